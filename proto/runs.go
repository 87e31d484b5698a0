package proto

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Runs is the bucket of manifests.
type Runs struct{ kv jetstream.KeyValue }

// OpenRuns opens the bucket of manifests, and makes it if it is not there.
func OpenRuns(ctx context.Context, js jetstream.JetStream) (*Runs, error) {
	kv, err := js.KeyValue(ctx, RunsBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: RunsBucket, History: 1})
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", RunsBucket, err)
	}
	return &Runs{kv: kv}, nil
}

// Get returns a run's manifest, or an error that wraps [ErrNoRun].
func (r *Runs) Get(ctx context.Context, run string) (Manifest, error) {
	m, _, err := r.get(ctx, run)
	return m, err
}

func (r *Runs) get(ctx context.Context, run string) (Manifest, uint64, error) {
	entry, err := r.kv.Get(ctx, run)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Manifest{}, 0, fmt.Errorf("run %s: %w", run, ErrNoRun)
	}
	if err != nil {
		return Manifest{}, 0, fmt.Errorf("read manifest of run %s: %w", run, err)
	}
	m, err := ParseManifest(entry.Value())
	return m, entry.Revision(), err
}

// Create stores the manifest of a new run. It fails if there is one already.
func (r *Runs) Create(ctx context.Context, m Manifest) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("manifest of run %s: %w", m.Run, err)
	}
	if _, err := r.kv.Create(ctx, m.Run, data); err != nil {
		return fmt.Errorf("store manifest of run %s: %w", m.Run, err)
	}
	return nil
}

// Update changes a run's manifest by compare-and-set: change may be called several
// times, each time with the manifest as it then is, and its error ends the attempt.
func (r *Runs) Update(ctx context.Context, run string, change func(*Manifest) error) error {
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
		_, err = r.kv.Update(ctx, run, data, revision)
		if err == nil {
			return nil
		}
		if !wrongLastSequence(err) {
			return fmt.Errorf("store manifest of run %s: %w", run, err)
		}
	}
}

// Watch calls changed with the run's manifest as it is now and after every change,
// until ctx ends or changed returns an error, which Watch returns.
func (r *Runs) Watch(ctx context.Context, run string, changed func(Manifest) error) error {
	w, err := r.kv.Watch(ctx, run)
	if err != nil {
		return fmt.Errorf("watch manifest of run %s: %w", run, err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case entry, ok := <-w.Updates():
			if !ok {
				return fmt.Errorf("watch manifest of run %s: %w", run, cmp.Or(context.Cause(ctx), nats.ErrConnectionClosed))
			}
			if entry == nil || entry.Operation() != jetstream.KeyValuePut {
				continue
			}
			m, err := ParseManifest(entry.Value())
			if err != nil {
				return err
			}
			if err := changed(m); err != nil {
				return err
			}
		}
	}
}

// wrongLastSequence reports whether err says that a message was refused because the
// stream was not where its publisher believed.
func wrongLastSequence(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == 10164)
}
