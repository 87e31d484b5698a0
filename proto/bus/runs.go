package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/promptmill/promptmill/proto"
)

// RunStore is the bucket of manifests.
type RunStore struct {
	js jetstream.JetStream
}

// Get returns a run's manifest, or an error that wraps [proto.ErrNoRun].
func (r *RunStore) Get(ctx context.Context, run string) (proto.Manifest, error) {
	m, _, err := r.getManifest(ctx, run)
	return m, err
}

func (r *RunStore) getManifest(ctx context.Context, run string) (proto.Manifest, uint64, error) {
	value, revision, err := lastEntry(ctx, r.js, proto.RunsBucket, run)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return proto.Manifest{}, 0, fmt.Errorf("run %s: %w", run, proto.ErrNoRun)
	}
	if err != nil {
		return proto.Manifest{}, 0, fmt.Errorf("read manifest of run %s: %w", run, err)
	}

	m, err := proto.ParseManifest(run, value)

	return m, revision, err
}

// Create stores the manifest of a new run. It fails if there is one already.
func (r *RunStore) Create(ctx context.Context, m proto.Manifest) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("manifest of run %s: %w", m.Run, err)
	}

	if err := createEntry(ctx, r.js, proto.RunsBucket, m.Run, data); err != nil {
		return fmt.Errorf("store manifest of run %s: %w", m.Run, err)
	}

	return nil
}

// Update changes a run's manifest by compare-and-set: change may be called several
// times, each time with the manifest as it then is, and its error ends the attempt.
func (r *RunStore) Update(ctx context.Context, run string, change func(*proto.Manifest) error) error {
	for {
		m, revision, err := r.getManifest(ctx, run)
		if err != nil {
			return err
		}

		state := m.State
		if err := change(&m); err != nil {
			return err
		}

		if m.State != state {
			m.StateAt = time.Now().UTC()
		}

		data, err := json.Marshal(m)
		if err != nil {
			return fmt.Errorf("manifest of run %s: %w", run, err)
		}

		err = updateEntry(ctx, r.js, proto.RunsBucket, run, data, revision)
		if err == nil {
			return nil
		}
		if !IsWrongSequence(err) {
			return fmt.Errorf("store manifest of run %s: %w", run, err)
		}

		// Another process was faster, or the copy of the bucket that answered is behind.
		if err := Sleep(ctx, conflictPause); err != nil {
			return err
		}
	}
}

// conflictPause is the time between two attempts to change a manifest.
const conflictPause = 10 * time.Millisecond

// Delete removes a run's manifest.
func (r *RunStore) Delete(ctx context.Context, run string) error {
	// A deletion marker stays, as after a purge, which needs a right to roll up.
	if err := deleteEntry(ctx, r.js, proto.RunsBucket, run, nil); err != nil {
		return fmt.Errorf("delete manifest of run %s: %w", run, err)
	}
	return nil
}

// List returns the manifests of all runs, the oldest first. Those that cannot be read are left
// out, see [RunStore.ListUnreadable].
func (r *RunStore) List(ctx context.Context) ([]proto.Manifest, error) {
	entries, _, err := entriesAfter(ctx, r.js, proto.RunsBucket, ">", 0)
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}

	var list []proto.Manifest
	for _, e := range entries {
		if e.deleted {
			continue
		}

		if m, err := proto.ParseManifest(e.key, e.value); err == nil {
			list = append(list, m)
		}
	}

	slices.SortFunc(list, func(a, b proto.Manifest) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.Run, b.Run))
	})

	return list, nil
}

// UnreadableRun is a run whose manifest cannot be read: of another version of promptmill
// ([proto.CheckSchema]), or damaged. Such runs are left alone.
type UnreadableRun struct {
	Run string
	Err error
}

// ListUnreadable returns the runs that [RunStore.List] and [RunStore.WatchAll] leave out.
func (r *RunStore) ListUnreadable(ctx context.Context) ([]UnreadableRun, error) {
	entries, _, err := entriesAfter(ctx, r.js, proto.RunsBucket, ">", 0)
	if err != nil {
		return nil, fmt.Errorf("list unreadable runs: %w", err)
	}

	var list []UnreadableRun
	for _, e := range entries {
		if e.deleted {
			continue
		}

		if _, err := proto.ParseManifest(e.key, e.value); err != nil {
			list = append(list, UnreadableRun{e.key, err})
		}
	}

	return list, nil
}

// ListDeleted returns the ids of the runs that were deleted from the bus.
func (r *RunStore) ListDeleted(ctx context.Context) ([]string, error) {
	entries, _, err := entriesAfter(ctx, r.js, proto.RunsBucket, ">", 0)
	if err != nil {
		return nil, fmt.Errorf("list deleted runs: %w", err)
	}

	var list []string
	for _, e := range entries {
		if e.deleted && proto.CheckRunID(e.key) == nil {
			list = append(list, e.key)
		}
	}

	return list, nil
}
