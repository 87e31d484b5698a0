package worker

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"
)

// requestQueue holds the tasks that wait for a slot, first in first out, and those that
// wait for their next attempt.
type requestQueue struct {
	mu       sync.Mutex
	tasks    []*task
	head     int
	first    []*task // go before the others: they follow one of their group
	prefixes prefixGroups
	delayed  map[*task]*time.Timer
	closed   bool
	woken    bool
	ready    signal // while tasks may be there
}

func newRequestQueue() *requestQueue {
	return &requestQueue{
		delayed:  map[*task]*time.Timer{},
		ready:    newSignal(),
		prefixes: prefixGroups{seed: maphash.MakeSeed(), known: map[uint64]*promptPrefix{}, onPark: func() {}},
	}
}

// push adds tasks. It returns false, and does not take them, after close.
func (q *requestQueue) push(tasks ...*task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()

	if q.closed {
		return false
	}

	q.tasks = append(q.tasks, tasks...)
	q.ready.notify()

	return true
}

// pushAfter adds a task after a wait. It returns false after close.
func (q *requestQueue) pushAfter(t *task, wait time.Duration) bool {
	q.mu.Lock()
	defer q.mu.Unlock()

	if q.closed {
		return false
	}

	q.delayed[t] = time.AfterFunc(wait, func() {
		q.mu.Lock()
		defer q.mu.Unlock()

		if _, ok := q.delayed[t]; !ok {
			return // close has returned it
		}

		delete(q.delayed, t)
		q.tasks = append(q.tasks, t)
		q.ready.notify()
	})

	return true
}

// pop takes the first task, waiting for one. It returns nil after nudge, and false when
// ctx ends or the queue is closed. One goroutine may call it.
func (q *requestQueue) pop(ctx context.Context) (*task, bool) {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return nil, false
		}

		t := q.next()
		if t == nil {
			t = q.prefixes.takeFiller() // perhaps: see instead
		}

		if t != nil {
			q.mu.Unlock()
			return t, true
		}

		if q.woken {
			q.woken = false
			q.mu.Unlock()
			return nil, true
		}

		q.mu.Unlock()
		select {
		case <-q.ready:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// next takes out the first task that need not wait for another of its group, nil if there
// is none.
func (q *requestQueue) next() *task {
	if len(q.first) > 0 {
		t := q.first[0]
		q.first = slices.Delete(q.first, 0, 1)
		return t
	}

	for q.head < len(q.tasks) {
		t := q.tasks[q.head]
		q.tasks[q.head] = nil
		if q.head++; q.head == len(q.tasks) {
			q.tasks, q.head = q.tasks[:0], 0
		}

		if t.prefixes == nil || !q.prefixes.parkIfShared(t) {
			return t
		}
	}

	return nil
}

// wake has pop return without a task, if there is none.
func (q *requestQueue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.woken = true
	q.ready.notify()
}

// close ends the queue and returns all tasks that are in it.
func (q *requestQueue) close() []*task {
	q.mu.Lock()
	defer q.mu.Unlock()

	rest := slices.Concat(q.first, q.prefixes.removeParked(func(*task) bool { return true }), q.tasks[q.head:])
	for t, timer := range q.delayed {
		timer.Stop()
		rest = append(rest, t)
	}

	q.first, q.tasks, q.head, q.closed = nil, nil, 0, true
	clear(q.delayed)
	q.ready.notify()

	return rest
}

// remove takes out the tasks of which gone is true and returns them.
func (q *requestQueue) remove(gone func(*task) bool) []*task {
	q.mu.Lock()
	defer q.mu.Unlock()

	var out, rest []*task
	for _, t := range q.tasks[q.head:] {
		if gone(t) {
			out = append(out, t)
		} else {
			rest = append(rest, t)
		}
	}

	q.tasks, q.head = rest, 0
	out = append(out, q.prefixes.removeParked(gone)...)
	q.first = slices.DeleteFunc(q.first, func(t *task) bool {
		if gone(t) {
			out = append(out, t)
			return true
		}
		return false
	})

	for t, timer := range q.delayed {
		if gone(t) {
			timer.Stop()
			delete(q.delayed, t)
			out = append(out, t)
		}
	}

	return out
}

// delayedCount is the number of tasks that wait for their next attempt.
func (q *requestQueue) delayedCount() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.delayed)
}

// parkedCount is the number of tasks that wait for another one of their group.
func (q *requestQueue) parkedCount() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.prefixes.parked
}
