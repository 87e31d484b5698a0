package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
)

// Watch returns a run's manifest as it is now and after every change. It ends with an error: the
// cause of ctx's end, a closed connection, or a manifest that is unreadable. A manifest may come
// again as it was, and of changes in quick succession the last alone.
//
//	for m, err := range b.Runs.Watch(ctx, run) {
//		if err != nil {
//			return err
//		}
//		if m.State.Ended() {
//			return nil
//		}
//	}
func (r *RunStore) Watch(ctx context.Context, run string) iter.Seq2[proto.Manifest, error] {
	return func(yield func(proto.Manifest, error) bool) {
		for changed, err := range r.watchEntries(ctx, run) {
			if err != nil {
				yield(proto.Manifest{}, err)
				return
			}

			if len(changed.entries) == 0 || changed.entries[len(changed.entries)-1].deleted {
				continue
			}

			m, err := proto.ParseManifest(run, changed.entries[len(changed.entries)-1].value)
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// WatchAll returns the manifests of all runs, by their ids, as they are now and after every
// change. It ends with an error: the cause of ctx's end, or a closed connection. Manifests that
// are unreadable, of another version of promptmill, are left out.
func (r *RunStore) WatchAll(ctx context.Context) iter.Seq2[map[string]proto.Manifest, error] {
	return func(yield func(map[string]proto.Manifest, error) bool) {
		all := map[string]proto.Manifest{}

		for changed, err := range r.watchEntries(ctx, ">") {
			if err != nil {
				yield(nil, err)
				return
			}

			if changed.whole {
				clear(all)
			}

			for _, e := range changed.entries {
				delete(all, e.key)
				if e.deleted {
					continue
				}

				if m, err := proto.ParseManifest(e.key, e.value); err == nil {
					all[e.key] = m
				}
			}

			if !yield(maps.Clone(all), nil) {
				return
			}
		}
	}
}

const (
	// pollEvery is the interval of the reads that find a change whose notice is lost. A read takes the
	// bus two direct gets. On a bus whose accounts or buckets are of a version before
	// [proto.StoredPrefix], no notice comes of what another role changes.
	pollEvery = 2 * time.Second
	// lookAgain is the delay of a second read after the notice of a change: the notice may
	// arrive before the change is stored.
	lookAgain = 100 * time.Millisecond
	// wholeEvery is the interval at which the whole bucket is read, whether or not something
	// changed: the bucket may have been made again, or messages taken out of it.
	wholeEvery = 15 * time.Second
)

// entryChanges are the entries of a bucket that changed or, if whole is true, all its entries.
type entryChanges struct {
	entries []entry
	whole   bool
}

// watchEntries returns the entries under keys, and then the entries that change. It reads by direct
// gets: a watcher has no state on the bus that would be lost with a server. Messages on the
// bucket's subjects are the notice to look.
func (r *RunStore) watchEntries(ctx context.Context, keys string) iter.Seq2[entryChanges, error] {
	return func(yield func(entryChanges, error) bool) {
		if err := r.watchUntil(ctx, keys, func(c entryChanges) bool { return yield(c, nil) }); err != nil {
			yield(entryChanges{}, err)
		}
	}
}

// watchUntil calls changed with changes until it returns false, which is no error, or else
// until ctx ends or the connection is closed.
func (r *RunStore) watchUntil(ctx context.Context, keys string, changed func(entryChanges) bool) error {
	conn := r.js.Conn()
	wake := make(chan struct{}, 1)

	sub, err := conn.Subscribe("$KV."+proto.RunsBucket+"."+strings.Replace(keys, ">", "*", 1), func(*nats.Msg) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return fmt.Errorf("watch bucket %s: %w", proto.RunsBucket, err)
	}
	defer sub.Unsubscribe()

	reconnected := conn.StatusChanged(nats.CONNECTED)
	defer conn.RemoveStatusListener(reconnected)

	view := bucketView{js: r.js, keys: keys}
	for woken := false; ; {
		changes, err := view.readUntil(ctx, reconnected)
		if err == nil && (changes.whole || len(changes.entries) > 0) && !changed(changes) {
			return nil
		}

		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

		if conn.IsClosed() {
			return fmt.Errorf("watch bucket %s: %w", proto.RunsBucket, nats.ErrConnectionClosed)
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
		case <-reconnected:
			view.readAll = time.Time{}
		case <-next.C:
		}

		next.Stop()
	}
}

// bucketView is the part of the bucket of manifests that a watcher has seen.
type bucketView struct {
	js   jetstream.JetStream
	keys string
	// created is the time at which the bucket was made.
	created time.Time
	// last is the sequence of the latest entry seen.
	last uint64
	// readAll is the time of the last read of the whole bucket.
	readAll time.Time
	// behind is the time since which the copies that answer have fewer entries than were seen;
	// zero: they have all.
	behind time.Time
}

// errReconnected is returned when a request may have been lost with a connection.
var errReconnected = errors.New("the connection was lost meanwhile")

// readUntil is read that ends when the connection is back after it was lost: the reply will not
// come, and all is read again.
func (v *bucketView) readUntil(ctx context.Context, reconnected <-chan nats.Status) (changes entryChanges, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	done := make(chan struct{})

	go func() {
		defer close(done)
		changes, err = v.readChanges(ctx)
	}()

	select {
	case <-done:
		return changes, err
	case <-reconnected:
		cancel(errReconnected)
		<-done
		v.readAll = time.Time{}
		return entryChanges{}, errReconnected
	}
}

// readChanges returns the entries that changed since the last call, or all entries.
func (v *bucketView) readChanges(ctx context.Context) (changes entryChanges, err error) {
	if time.Since(v.readAll) < wholeEvery {
		changes.entries, v.last, err = entriesAfter(ctx, v.js, proto.RunsBucket, v.keys, v.last)
		return changes, err
	}

	stream, err := FindStream(ctx, v.js, "KV_"+proto.RunsBucket)
	if err != nil {
		return entryChanges{}, err
	}

	entries, last, err := entriesAfter(ctx, v.js, proto.RunsBucket, v.keys, 0)
	if err != nil {
		return entryChanges{}, err
	}

	info := stream.CachedInfo()
	if info.Config.Replicas > 1 && info.Created.Equal(v.created) && last < v.last {
		// The copy that answered is behind, and the known entries are newer; or the bucket has lost
		// its end with a server's store, and stays so.
		if v.behind.IsZero() {
			v.behind = time.Now()
		}
		if time.Since(v.behind) < wholeEvery {
			return entryChanges{}, nil
		}
	}

	v.created, v.last, v.readAll, v.behind = info.Created, last, time.Now(), time.Time{}

	return entryChanges{entries: entries, whole: true}, nil
}
