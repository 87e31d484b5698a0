package worker

import (
	"context"
	"slices"
	"time"
)

// Which task a free slot gets is decided when it is free: until then a better one may have come.
// The dispatcher calls the functions below for each task of a grouped run.

// awaitSlot waits until a slot of the server is free, where each slot has its own prompt: a request
// that waits at the server takes the next one, whatever that has. It returns false when ctx ends.
func (q *requestQueue) awaitSlot(ctx context.Context) bool {
	for {
		if q.hasFreeSlot() {
			return true
		}

		select {
		case <-q.ready:
		case <-ctx.Done():
			return false
		}
	}
}

func (q *requestQueue) hasFreeSlot() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	g := &q.prefixes
	return g.sharing != sharesIdleSlots || g.slots == 0 || g.atServer < g.slots
}

// pickForSlot returns the task for a slot that is free now. It may be another one than t, for
// which the wait for the slot began; then t goes back. A task that could wait goes only if the
// fetch loop has looked meanwhile, and found no other.
func (q *requestQueue) pickForSlot(ctx context.Context, t *task) *task {
	var late <-chan time.Time
	for {
		better, sure := q.tryExchange(t, late == nil)
		if sure {
			return better
		}

		if late == nil {
			late = time.After(fillerWait)
		}

		select {
		case <-q.ready:
		case <-late:
			return t
		case <-ctx.Done():
			return t
		}
	}
}

// tryExchange looks for a task that is better than one that could wait. It is sure if there is
// one, or if no other is about to come. isFirst is set for the first look.
func (q *requestQueue) tryExchange(t *task, isFirst bool) (better *task, sure bool) {
	q.mu.Lock()
	defer q.mu.Unlock()

	g := &q.prefixes
	if q.closed || t.follows {
		return t, true
	}

	if len(q.first) > 0 || t.filler != nil {
		better = q.next()
	}

	if better != nil {
		q.putBack(t)
		return better, true
	}

	if t.filler == nil || !g.busHasMore && g.opening.Load() == 0 {
		return t, true
	}

	if isFirst {
		g.parksSeen = -1
		g.onPark()
	}

	return t, g.parksSeen == g.parks && g.opening.Load() == 0
}

// putBack lets a task wait again that was about to go. The caller holds the lock.
func (q *requestQueue) putBack(t *task) {
	q.prefixes.unmarkBusy(t, false)

	switch p := t.filler; {
	case p != nil:
		t.filler = nil
		q.prefixes.parkTask(p, t, 0)
	case q.head > 0:
		q.head--
		q.tasks[q.head] = t
	default:
		q.tasks = slices.Insert(q.tasks, 0, t)
	}
}

// markSent notes that a task goes to the server.
func (q *requestQueue) markSent(t *task) {
	q.mu.Lock()
	defer q.mu.Unlock()

	q.prefixes.markBusy(t)
	q.prefixes.atServer++
	t.filler = nil
}

// markEnded notes that the server has ended a task, or lost it.
func (q *requestQueue) markEnded(t *task, answered bool, took time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()

	q.prefixes.atServer--
	if answered {
		q.prefixes.recordTime(t, took)
	}

	q.prefixes.unmarkBusy(t, answered)
	t.follows = false
	q.releaseFollowers(t, q.prefixes.sharing == sharesIdleSlots)
	q.ready.notify()
}

// parkCount returns how often a task began to wait.
func (q *requestQueue) parkCount() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.prefixes.parks
}

// noteFetched notes whether the bus has more requests.
func (q *requestQueue) noteFetched(busHasMore bool) {
	q.mu.Lock()
	defer q.mu.Unlock()

	q.prefixes.busHasMore = busHasMore
	if q.prefixes.parked > 0 {
		q.ready.notify()
	}
}

// noteFull notes that there is no room for more, although tasks began to wait parks times.
func (q *requestQueue) noteFull(parks int) {
	q.mu.Lock()
	defer q.mu.Unlock()

	q.prefixes.parksSeen = parks
	if q.prefixes.parked > 0 {
		q.ready.notify()
	}
}

// noteOpening notes that a shard has come, and has no tasks yet.
func (q *requestQueue) noteOpening() { q.prefixes.opening.Add(1) }

// noteOpened notes that a shard has its tasks, or that it has none.
func (q *requestQueue) noteOpened() {
	if q.prefixes.opening.Add(-1) == 0 {
		q.ready.notify()
	}
}
