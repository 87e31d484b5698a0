package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/promptmill/promptmill/proto"
)

// RunStore is the bucket of manifests.
type RunStore struct {
	js jetstream.JetStream
}

// OpenRuns opens the bucket of manifests. A cluster that has no leader now is waited
// for, 30 s.
func OpenRuns(ctx context.Context, js jetstream.JetStream) (*RunStore, error) {
	if err := findBucket(ctx, js, proto.RunsBucket); err != nil {
		return nil, err
	}
	return &RunStore{js: js}, nil
}

// Get returns a run's manifest, or an error that wraps [proto.ErrNoRun].
func (r *RunStore) Get(ctx context.Context, run string) (proto.Manifest, error) {
	m, _, err := r.get(ctx, run)
	return m, err
}

func (r *RunStore) get(ctx context.Context, run string) (proto.Manifest, uint64, error) {
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
		m, revision, err := r.get(ctx, run)
		if err != nil {
			return err
		}

		if err := change(&m); err != nil {
			return err
		}

		data, err := json.Marshal(m)
		if err != nil {
			return fmt.Errorf("manifest of run %s: %w", run, err)
		}

		err = updateEntry(ctx, r.js, proto.RunsBucket, run, data, revision)
		if err == nil {
			return nil
		}
		if !wrongLastSequence(err) {
			return fmt.Errorf("store manifest of run %s: %w", run, err)
		}

		// Somebody else was faster, or the copy of the bucket that answered is behind.
		if err := sleep(ctx, conflictPause); err != nil {
			return err
		}
	}
}

// conflictPause is the time between two attempts to change a manifest.
const conflictPause = 10 * time.Millisecond

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()

	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Delete removes a run's manifest.
func (r *RunStore) Delete(ctx context.Context, run string) error {
	// leaves a mark, as a purge does, which needs a right to roll up
	if err := deleteEntry(ctx, r.js, proto.RunsBucket, run); err != nil {
		return fmt.Errorf("delete manifest of run %s: %w", run, err)
	}
	return nil
}

// List returns the manifests of all runs, the oldest first. Those that cannot be read,
// of a newer program, are left out.
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

// ListDeleted returns the ids of the runs that were taken off the bus.
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

// Follow calls changed with a run's manifest as it is now and after every change,
// until ctx ends or changed returns an error, which Follow returns. A manifest may
// come again as it was. Of changes in quick succession the last is enough.
func (r *RunStore) Follow(ctx context.Context, run string, changed func(proto.Manifest) error) error {
	return r.follow(ctx, run, func(entries []entry, _ bool) error {
		if len(entries) == 0 || entries[len(entries)-1].deleted {
			return nil
		}

		m, err := proto.ParseManifest(run, entries[len(entries)-1].value)
		if err != nil {
			return err
		}

		return changed(m)
	})
}

// FollowAll calls changed with the manifests of all runs that are there, now and after
// every change, until ctx ends. Manifests that cannot be read, those of a newer
// program, are left out.
func (r *RunStore) FollowAll(ctx context.Context, changed func(map[string]proto.Manifest)) error {
	all := map[string]proto.Manifest{}

	return r.follow(ctx, ">", func(entries []entry, whole bool) error {
		if whole {
			clear(all)
		}

		for _, e := range entries {
			delete(all, e.key)
			if e.deleted {
				continue
			}

			if m, err := proto.ParseManifest(e.key, e.value); err == nil {
				all[e.key] = m
			}
		}

		changed(maps.Clone(all))

		return nil
	})
}

const (
	// pollEvery is how long a change may go unseen if the word of it is lost.
	pollEvery = 2 * time.Second
	// lookAgain is how long after the word of a change it is looked for once more: the
	// word may be here before the change is stored.
	lookAgain = 100 * time.Millisecond
	// wholeEvery is how often all is read again, whether or not something changed: the
	// bucket may have been made again, or messages taken out of it.
	wholeEvery = 15 * time.Second
)

// follow calls each with the entries that there are under keys, now, when whole is true,
// and with those that changed then. It reads by direct gets: nothing on the bus stands
// for the one who follows, which a server that dies could take along. Messages on the
// bucket's subjects say when to look.
func (r *RunStore) follow(ctx context.Context, keys string, each func(entries []entry, whole bool) error) error {
	conn := r.js.Conn()
	wake := make(chan struct{}, 1)
	sub, err := conn.Subscribe("$KV."+proto.RunsBucket+"."+strings.Replace(keys, ">", "*", 1), func(*nats.Msg) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return fmt.Errorf("follow bucket %s: %w", proto.RunsBucket, err)
	}
	defer sub.Unsubscribe()

	back := conn.StatusChanged(nats.CONNECTED)
	defer conn.RemoveStatusListener(back)

	view := view{js: r.js, keys: keys}
	for woken := false; ; {
		entries, whole, err := view.readUntil(ctx, back)
		if err == nil && (whole || len(entries) > 0) {
			if err := each(entries, whole); err != nil {
				return err
			}
		}

		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

		if conn.IsClosed() {
			return fmt.Errorf("follow bucket %s: %w", proto.RunsBucket, nats.ErrConnectionClosed)
		}

		wait := pollEvery
		switch {
		case errors.Is(err, errReconnected):
			continue
		case err != nil:
			wait = time.Second
		case woken:
			wait = lookAgain
		}

		woken = false
		next := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-wake:
			woken = true
		case <-back:
			view.readAll = time.Time{}
		case <-next.C:
		}

		next.Stop()
	}
}

// view is what one who follows the bucket of manifests has seen of it.
type view struct {
	js      jetstream.JetStream
	keys    string
	created time.Time // when the bucket was made
	last    uint64    // sequence of the latest entry seen
	readAll time.Time // when all was read
	behind  time.Time // since when the copies that answer have less than was seen; zero: they do not
}

// errReconnected says that a question may have been lost with a connection.
var errReconnected = errors.New("the connection was lost meanwhile")

// readUntil is read that ends when the connection is back after it was lost: the answer
// will not come, and all is read again.
func (v *view) readUntil(ctx context.Context, back <-chan nats.Status) (entries []entry, whole bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	done := make(chan struct{})
	go func() {
		defer close(done)
		entries, whole, err = v.read(ctx)
	}()

	select {
	case <-done:
		return entries, whole, err
	case <-back:
		cancel(errReconnected)
		<-done
		v.readAll = time.Time{}
		return nil, false, errReconnected
	}
}

// read returns what has changed since the last call, or all that there is.
func (v *view) read(ctx context.Context) (entries []entry, whole bool, err error) {
	if time.Since(v.readAll) < wholeEvery {
		entries, v.last, err = entriesAfter(ctx, v.js, proto.RunsBucket, v.keys, v.last)
		return entries, false, err
	}

	stream, err := FindStream(ctx, v.js, "KV_"+proto.RunsBucket)
	if err != nil {
		return nil, false, err
	}

	entries, last, err := entriesAfter(ctx, v.js, proto.RunsBucket, v.keys, 0)
	if err != nil {
		return nil, false, err
	}

	info := stream.CachedInfo()
	if info.Config.Replicas > 1 && info.Created.Equal(v.created) && last < v.last {
		// The copy that answered is behind, and what is known is newer; or the bucket has lost
		// its end with a server's store, and stays so.
		if v.behind.IsZero() {
			v.behind = time.Now()
		}
		if time.Since(v.behind) < wholeEvery {
			return nil, false, nil
		}
	}

	v.created, v.last, v.readAll, v.behind = info.Created, last, time.Now(), time.Time{}

	return entries, true, nil
}

// wrongLastSequence reports whether err says that a message was refused because the
// stream was not where its publisher believed.
func wrongLastSequence(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == 10164)
}
