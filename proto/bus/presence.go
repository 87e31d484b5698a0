package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/promptmill/promptmill/proto"
)

// Presence is the bucket of announcements.
type Presence struct {
	js      jetstream.JetStream
	leftOut atomic.Int64
}

// OpenPresence opens the bucket of announcements. Who may not make it waits until
// somebody else has.
func OpenPresence(ctx context.Context, js jetstream.JetStream) (*Presence, error) {
	if err := findBucket(ctx, js, proto.PresenceBucket); err != nil {
		return nil, err
	}
	return &Presence{js: js}, nil
}

// Heartbeat announces a worker.
func (p *Presence) Heartbeat(ctx context.Context, w proto.WorkerInfo) error {
	return p.put(ctx, w.Key(), w)
}

// RemoveWorker takes the announcement of a worker back, by its id or, if it has none, its
// name.
func (p *Presence) RemoveWorker(ctx context.Context, id string) error {
	return deleteEntry(ctx, p.js, proto.PresenceBucket, proto.WorkerKey(id))
}

// Workers are the workers that have announced themselves lately, by name. Announcements
// that cannot be are left out ([Presence.LeftOut]).
func (p *Presence) Workers(ctx context.Context) ([]proto.WorkerInfo, error) {
	entries, _, err := entriesAfter(ctx, p.js, proto.PresenceBucket, "worker.*", 0)
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}

	var workers []proto.WorkerInfo
	leftOut := 0
	for _, e := range entries {
		if e.deleted {
			continue
		}

		w, err := proto.ParseWorkerInfo(e.key, e.value)
		if err != nil {
			leftOut++
			continue
		}

		w.ReceivedAt = e.at
		workers = append(workers, w)
	}

	p.leftOut.Store(int64(leftOut))
	slices.SortFunc(workers, func(a, b proto.WorkerInfo) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})

	return dropDead(workers), nil
}

// LeftOut is how many announcements of workers could not be read, or not be true, when
// they were listed last.
func (p *Presence) LeftOut() int { return int(p.leftOut.Load()) }

// AcquireCollector announces who collects a run. It fails with [proto.ErrLeaseHeld] if somebody
// else does.
func (p *Presence) AcquireCollector(ctx context.Context, run string, c proto.CollectorInfo) error {
	key := "collector." + run
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}

	for begin := time.Now(); ; {
		now, has, revision, err := p.collectorOf(ctx, run)
		switch {
		case err != nil:
			return err
		case has && now != c:
			return fmt.Errorf("%w: into %s", proto.ErrLeaseHeld, now)
		case revision > 0: // ours, or one that nobody can read
			err = updateEntry(ctx, p.js, proto.PresenceBucket, key, data, revision)
		default:
			err = createEntry(ctx, p.js, proto.PresenceBucket, key, data)
		}

		switch {
		case err == nil:
			return nil
		case !errors.Is(err, jetstream.ErrKeyExists) && !wrongLastSequence(err):
			return fmt.Errorf("announce the collector of run %s: %w", run, err)
		case time.Since(begin) > copyLag || sleep(ctx, lookAgain) != nil:
			return fmt.Errorf("%w, since this moment", proto.ErrLeaseHeld)
		}
		// Somebody else's, which is there in a moment; or ours, and the copy of the bucket that
		// answered is behind.
	}
}

// copyLag is how long a copy of a bucket may be behind the others.
const copyLag = 5 * time.Second

// ReleaseCollector takes the announcement of a run's collector back.
func (p *Presence) ReleaseCollector(ctx context.Context, run string) error {
	return deleteEntry(ctx, p.js, proto.PresenceBucket, "collector."+run)
}

// CollectorOf is who collects a run, if anybody does.
func (p *Presence) CollectorOf(ctx context.Context, run string) (proto.CollectorInfo, bool, error) {
	c, ok, _, err := p.collectorOf(ctx, run)
	return c, ok, err
}

func (p *Presence) collectorOf(
	ctx context.Context, run string,
) (c proto.CollectorInfo, ok bool, revision uint64, err error) {
	value, revision, err := lastEntry(ctx, p.js, proto.PresenceBucket, "collector."+run)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return c, false, 0, nil
	}
	if errors.Is(err, proto.ErrFormat) {
		return c, false, revision, nil // it keeps nobody from collecting
	}
	if err != nil {
		return c, false, 0, fmt.Errorf("look for the collector of run %s: %w", run, err)
	}

	if c, err = proto.ParseCollectorInfo(value); err != nil {
		return proto.CollectorInfo{}, false, revision, nil
	}

	return c, true, revision, nil
}

func (p *Presence) put(ctx context.Context, key string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}

	if err := putEntry(ctx, p.js, proto.PresenceBucket, key, data); err != nil {
		return fmt.Errorf("announce %s: %w", key, err)
	}

	return nil
}

// deadAfter is after how long without an announcement a worker counts as dead if another
// has taken its place.
const deadAfter = proto.PresenceTTL / 2

// dropDead leaves out workers that were killed and started again, and whose last
// announcement stands for a while still: one of the same name, at the same model server of
// the same host, is heard, and they are not.
func dropDead(workers []proto.WorkerInfo) []proto.WorkerInfo {
	return slices.DeleteFunc(slices.Clone(workers), func(dead proto.WorkerInfo) bool {
		return slices.ContainsFunc(workers, func(w proto.WorkerInfo) bool {
			return w.Name == dead.Name && w.Host == dead.Host && w.Server == dead.Server &&
				w.ReceivedAt.Sub(dead.ReceivedAt) > deadAfter
		})
	})
}
