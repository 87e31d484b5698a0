package proto

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
)

// Runs is the bucket of manifests.
type Runs struct {
	js jetstream.JetStream
	kv jetstream.KeyValue
}

// ReadersBucket is the key-value bucket that remembers how far named readers of
// results have come.
const ReadersBucket = "promptmill_readers"

// electionTime is how long a cluster may take to agree on a leader. On busy machines a
// node that comes back holds up the others for many seconds.
const electionTime = 30 * time.Second

// askAgain is how long an answer may take until the question counts as lost.
const askAgain = 5 * time.Second

// untilLed asks again for as long as a cluster has no leader, 30 s at most: its nodes
// drop questions meanwhile, and do not answer later.
func untilLed(ctx context.Context, ask func(context.Context) error) error {
	return untilLedFor(ctx, electionTime, askAgain, ask)
}

// untilLedFor is untilLed for so long, where an answer may take so long.
func untilLedFor(ctx context.Context, most, each time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		next := time.After(250 * time.Millisecond) // at the earliest: some refuse at once
		asking, stop := context.WithTimeout(ctx, each)
		err := ask(asking)
		stop()
		if err == nil || ctx.Err() != nil || !leaderless(err) {
			return err
		}
		select {
		case <-next:
		case <-ctx.Done():
			return err
		}
	}
}

// leaderless reports whether an error is what a cluster without a leader gives: none of
// its nodes answers, or the one that does says that it is not the one to ask.
func leaderless(err error) bool {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch api.ErrorCode {
		case 10005: // no place for all copies, among others because a node is away
			return strings.Contains(api.Description, "peer offline")
		case 10008, 10009: // not available now; not the leader
			return true
		}
		return false
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)
}

// Buckets are the buckets that all runs share, with so many copies in a cluster.
func Buckets(replicas int) []jetstream.KeyValueConfig {
	list := []jetstream.KeyValueConfig{
		{Bucket: RunsBucket, Description: "promptmill: manifests"},
		{Bucket: PresenceBucket, Description: "promptmill: workers and collectors", TTL: PresenceTTL},
		{Bucket: ReadersBucket, Description: "promptmill: positions of readers"},
	}
	for i := range list {
		list[i].History, list[i].Replicas = 1, max(1, replicas)
	}
	return list
}

// MakeBuckets makes the [Buckets] that are not there. A cluster that has no leader now
// is waited for, 30 s.
func MakeBuckets(ctx context.Context, js jetstream.JetStream, replicas int) error {
	ctx, cancel := context.WithTimeout(ctx, electionTime)
	defer cancel()
	for _, cfg := range Buckets(replicas) {
		err := untilLed(ctx, func(ctx context.Context) error {
			_, err := js.KeyValue(ctx, cfg.Bucket)
			if errors.Is(err, jetstream.ErrBucketNotFound) {
				_, err = js.CreateKeyValue(ctx, cfg)
			}
			return err
		})
		if err != nil && !errors.Is(err, jetstream.ErrBucketExists) {
			return fmt.Errorf("make bucket %s: %w", cfg.Bucket, err)
		}
	}
	return nil
}

// OpenRuns opens the bucket of manifests. A cluster that has no leader now is waited
// for, 30 s.
func OpenRuns(ctx context.Context, js jetstream.JetStream) (*Runs, error) {
	kv, err := openBucket(ctx, js, RunsBucket)
	if err != nil {
		return nil, err
	}
	return &Runs{js: js, kv: kv}, nil
}

func openBucket(ctx context.Context, js jetstream.JetStream, bucket string) (kv jetstream.KeyValue, err error) {
	err = untilLed(ctx, func(ctx context.Context) error {
		kv, err = js.KeyValue(ctx, bucket)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", bucket, err)
	}
	return kv, nil
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
	m, err := ParseManifest(run, entry.Value())
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

// Delete removes a run's manifest.
func (r *Runs) Delete(ctx context.Context, run string) error {
	if err := r.kv.Purge(ctx, run); err != nil {
		return fmt.Errorf("delete manifest of run %s: %w", run, err)
	}
	return nil
}

// List returns the manifests of all runs, the oldest first. Those that cannot be read,
// of a newer program, are left out.
func (r *Runs) List(ctx context.Context) ([]Manifest, error) {
	entries, err := snapshot(ctx, r.kv, ">", jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	var list []Manifest
	for _, entry := range entries {
		if m, err := ParseManifest(entry.Key(), entry.Value()); err == nil {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b Manifest) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.Run, b.Run))
	})
	return list, nil
}

// Deleted returns the ids of the runs that were taken off the bus.
func (r *Runs) Deleted(ctx context.Context) ([]string, error) {
	entries, err := snapshot(ctx, r.kv, ">")
	if err != nil {
		return nil, fmt.Errorf("list deleted runs: %w", err)
	}
	var list []string
	for _, entry := range entries {
		if entry.Operation() != jetstream.KeyValuePut && CheckRunID(entry.Key()) == nil {
			list = append(list, entry.Key())
		}
	}
	return list, nil
}

// watchFor is how long one watch is trusted. The consumer behind it can be lost with
// the server that held it, and then it says nothing any more.
const watchFor = 15 * time.Second

// Follow calls changed with a run's manifest as it is now and after every change,
// until ctx ends or changed returns an error, which Follow returns. A manifest may
// come again as it was. What the bus does not say for a while is made good later.
func (r *Runs) Follow(ctx context.Context, run string, changed func(Manifest) error) error {
	return r.follow(ctx, run, func(entry jetstream.KeyValueEntry) error {
		if entry == nil || entry.Operation() != jetstream.KeyValuePut {
			return nil
		}
		m, err := ParseManifest(entry.Key(), entry.Value())
		if err != nil {
			return err
		}
		return changed(m)
	}, func() {}, func() {})
}

// FollowAll calls changed with the manifests of all runs that are there, now and after
// every change, until ctx ends. Manifests that cannot be read, those of a newer
// program, are left out.
func (r *Runs) FollowAll(ctx context.Context, changed func(map[string]Manifest)) error {
	all := map[string]Manifest{}
	begun := true // a watch has begun and has not given all that was there
	return r.follow(ctx, ">", func(entry jetstream.KeyValueEntry) error {
		if begun {
			clear(all)
			begun = false
		}
		switch {
		case entry == nil:
		case entry.Operation() != jetstream.KeyValuePut:
			delete(all, entry.Key())
		default:
			if m, err := ParseManifest(entry.Key(), entry.Value()); err == nil {
				all[entry.Key()] = m
			} else {
				delete(all, entry.Key())
			}
		}
		return nil
	}, func() { changed(maps.Clone(all)) }, func() { begun = true })
}

// follow watches keys, each watch for a while. told is called when all
// that was there at a watch's beginning has been given to each, and after every
// change then; begin before each watch.
func (r *Runs) follow(ctx context.Context, keys string, each func(jetstream.KeyValueEntry) error, told, begin func()) error {
	for {
		begin()
		err := r.watch(ctx, keys, each, told)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if stop, ok := errors.AsType[stopError](err); ok {
			return stop.error
		}
		if r.js.Conn().IsClosed() {
			return fmt.Errorf("watch bucket %s: %w", RunsBucket, nats.ErrConnectionClosed)
		}
		if err != nil {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
}

// stopError is an error of who is called, not of the bus.
type stopError struct{ error }

func (r *Runs) watch(ctx context.Context, keys string, each func(jetstream.KeyValueEntry) error, told func()) error {
	w, err := r.kv.Watch(ctx, keys)
	if err != nil {
		return err
	}
	defer stopWatch(w)
	enough := time.NewTimer(watchFor)
	defer enough.Stop()
	back := r.js.Conn().StatusChanged(nats.CONNECTED) // after a server's restart
	defer r.js.Conn().RemoveStatusListener(back)
	for whole := false; ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-enough.C:
			return nil
		case <-back:
			return nil
		case entry, ok := <-w.Updates():
			if !ok {
				return nats.ErrConnectionClosed
			}
			if err := each(entry); err != nil {
				return stopError{err}
			}
			if whole = whole || entry == nil; whole {
				told()
			}
		}
	}
}

// stopWatch ends a watch. The library's callback may be blocked on a full channel,
// for ever if nobody empties it.
func stopWatch(w jetstream.KeyWatcher) {
	w.Stop()
	for range w.Updates() {
	}
}

// snapshot returns what a bucket holds now.
func snapshot(ctx context.Context, kv jetstream.KeyValue, keys string, opts ...jetstream.WatchOpt) ([]jetstream.KeyValueEntry, error) {
	w, err := kv.Watch(ctx, keys, opts...)
	if err != nil {
		return nil, err
	}
	defer stopWatch(w)
	entries := map[string]jetstream.KeyValueEntry{}
	var end <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-end:
			return slices.Collect(maps.Values(entries)), nil
		case entry, ok := <-w.Updates():
			switch {
			case !ok:
				return nil, nats.ErrConnectionClosed
			case entry == nil:
				// A key that was changed while its bucket was read comes only now.
				end = time.After(30 * time.Millisecond)
			default:
				entries[entry.Key()] = entry
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
