package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
)

// Heartbeats are the announcements of workers. Each stands in [proto.PresenceBucket] and ends by
// itself after [proto.PresenceTTL] unless the worker sends another.
type Heartbeats struct {
	js         jetstream.JetStream
	unreadable atomic.Int64
}

// Send announces a worker.
func (h *Heartbeats) Send(ctx context.Context, w proto.WorkerInfo) error {
	data, err := json.Marshal(w)
	if err != nil {
		return err
	}

	if err := putEntry(ctx, h.js, proto.PresenceBucket, w.Key(), data); err != nil {
		return fmt.Errorf("announce %s: %w", w.Key(), err)
	}

	return nil
}

// Withdraw withdraws the announcement of a worker that stops, and leaves its last report for
// [Heartbeats.Reports], which has it for [proto.PresenceTTL].
func (h *Heartbeats) Withdraw(ctx context.Context, w proto.WorkerInfo) error {
	data, err := json.Marshal(w)
	if err != nil {
		return err
	}

	if err := deleteEntry(ctx, h.js, proto.PresenceBucket, w.Key(), data); err != nil {
		return fmt.Errorf("withdraw the announcement of %s: %w", w.Key(), err)
	}

	return nil
}

// Remove withdraws the announcement of a worker, by its id or, if it has none, its name.
func (h *Heartbeats) Remove(ctx context.Context, id string) error {
	return deleteEntry(ctx, h.js, proto.PresenceBucket, proto.WorkerKey(id), nil)
}

// Workers returns the workers whose announcements stand, by name. Announcements that cannot be
// true are left out, see [Heartbeats.Unreadable].
func (h *Heartbeats) Workers(ctx context.Context) ([]proto.WorkerInfo, error) {
	workers, _, err := h.Reports(ctx)
	return workers, err
}

// Reports returns the workers whose announcements stand, by name, and the last reports of those that
// have withdrawn theirs since a moment ago.
func (h *Heartbeats) Reports(ctx context.Context) (workers, stopped []proto.WorkerInfo, err error) {
	entries, _, err := entriesAfter(ctx, h.js, proto.PresenceBucket, "worker.*", 0)
	if err != nil {
		return nil, nil, fmt.Errorf("list workers: %w", err)
	}

	unreadable := int64(0)

	for _, e := range entries {
		if e.deleted && len(e.value) == 0 {
			continue
		}

		w, err := proto.ParseWorkerInfo(e.key, e.value)
		if err != nil {
			unreadable++
			continue
		}

		w.ReceivedAt = e.at
		if e.deleted {
			stopped = append(stopped, w)
		} else {
			workers = append(workers, w)
		}
	}

	h.unreadable.Store(unreadable)

	slices.SortFunc(workers, func(a, b proto.WorkerInfo) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})

	return dropDead(workers), stopped, nil
}

// Unreadable returns the number of announcements that the last call of [Heartbeats.Workers]
// left out because they could not be read, or could not be true.
func (h *Heartbeats) Unreadable() int { return int(h.unreadable.Load()) }

// deadAfter is the time without an announcement after which a worker counts as dead if another has
// taken its place.
const deadAfter = proto.PresenceTTL / 2

// dropDead leaves out workers that were killed and started again, and whose last announcement
// still stands: one of the same name, at the same model server of the same host, is heard, and
// they are not.
func dropDead(workers []proto.WorkerInfo) []proto.WorkerInfo {
	return slices.DeleteFunc(slices.Clone(workers), func(dead proto.WorkerInfo) bool {
		return slices.ContainsFunc(workers, func(w proto.WorkerInfo) bool {
			return w.Name == dead.Name && w.Host == dead.Host && w.Server == dead.Server &&
				w.ReceivedAt.Sub(dead.ReceivedAt) > deadAfter
		})
	})
}
