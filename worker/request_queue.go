package worker

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// requestQueue holds the tasks that wait for a slot, first in first out, and those that
// wait for their next attempt. It knows which of them wait for another of their group.
type requestQueue struct {
	// ready is signaled when there may be something to pop.
	ready signal

	// mu guards the fields below.
	mu sync.Mutex

	// tasks wait for a slot, from head on. The tasks in first go before them: they follow one of
	// their group.
	tasks []*task
	head  int
	first []*task

	// delayed wait for their next attempt.
	delayed map[*task]*time.Timer

	// prefixes has the tasks that wait for another of their group.
	prefixes prefixGroups

	closed bool
	woken  bool
}

func newRequestQueue() *requestQueue {
	return &requestQueue{
		ready:    newSignal(),
		delayed:  map[*task]*time.Timer{},
		prefixes: prefixGroups{seed: maphash.MakeSeed(), known: map[uint64]*promptPrefix{}, onPark: func() {}},
	}
}

// push adds tasks. After close it returns false, and does not take them.
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

// pushAfter adds a task after a wait. After close it returns false.
func (q *requestQueue) pushAfter(t *task, wait time.Duration) bool {
	q.mu.Lock()
	defer q.mu.Unlock()

	if q.closed {
		return false
	}

	t.notBefore = time.Now().Add(wait)
	q.delayed[t] = time.AfterFunc(wait, func() {
		q.mu.Lock()
		defer q.mu.Unlock()

		if _, ok := q.delayed[t]; !ok {
			return // close or remove has returned it
		}

		delete(q.delayed, t)
		q.tasks = append(q.tasks, t)
		q.ready.notify()
	})

	return true
}

// pop takes the first task, and waits for one. It returns nil after wake, and false when
// ctx ends or the queue is closed. One goroutine may call it.
func (q *requestQueue) pop(ctx context.Context) (*task, bool) {
	for {
		t, ok, wait := q.tryPop()
		if !wait {
			return t, ok
		}

		select {
		case <-q.ready:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// tryPop is pop without the wait.
func (q *requestQueue) tryPop() (t *task, ok, wait bool) {
	q.mu.Lock()
	defer q.mu.Unlock()

	if q.closed {
		return nil, false, false
	}

	t = q.next()
	if t == nil {
		t = q.prefixes.takeFiller() // perhaps: see pickForSlot
	}

	switch {
	case t != nil:
		return t, true, false
	case q.woken:
		q.woken = false
		return nil, true, false
	}

	return nil, false, true
}

// next takes out the first task that need not wait for another of its group, or returns nil if
// there is none. The caller holds the lock.
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

// wake lets pop return without a task, if there is none.
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

// removeTasks takes out the tasks for which gone is true, and returns them.
func (q *requestQueue) removeTasks(gone func(*task) bool) (out []*task) {
	q.mu.Lock()
	defer q.mu.Unlock()

	take := func(t *task) bool {
		if gone(t) {
			out = append(out, t)
			return true
		}
		return false
	}

	q.tasks, q.head = slices.DeleteFunc(slices.Clone(q.tasks[q.head:]), take), 0
	out = append(out, q.prefixes.removeParked(gone)...)
	q.first = slices.DeleteFunc(q.first, take)

	for t, timer := range q.delayed {
		if take(t) {
			timer.Stop()
			delete(q.delayed, t)
		}
	}

	return out
}

// delayedCount returns the number of tasks that wait for their next attempt.
func (q *requestQueue) delayedCount() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.delayed)
}

// parkedCount returns the number of tasks that wait for another one of their group.
func (q *requestQueue) parkedCount() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.prefixes.parked
}

// registerTasks notes that the worker holds tasks of a grouped run, before any of them is pushed.
func (q *requestQueue) registerTasks(tasks []*task) {
	var scan jsonscan.Scanner
	hashes := make([][]uint64, len(tasks))
	for i, t := range tasks {
		hashes[i] = q.prefixes.hashPrefixes(&scan, t)
	}

	q.mu.Lock()
	defer q.mu.Unlock()

	for i, t := range tasks {
		q.prefixes.addTask(t, hashes[i])
	}
}

// unregisterTask notes that the worker does not hold a task any more.
func (q *requestQueue) unregisterTask(t *task) {
	q.mu.Lock()
	defer q.mu.Unlock()

	q.prefixes.unmarkBusy(t, false)
	q.releaseFollowers(t, false)
	q.prefixes.removeTask(t)
}

// releaseFollowers queues the tasks that waited for a task which has ended, or is gone. The
// caller holds the lock.
func (q *requestQueue) releaseFollowers(t *task, freedSlot bool) {
	followers := q.prefixes.takeFollowers(t, freedSlot)
	if len(followers) > 0 {
		q.first = append(q.first, followers...)
		q.ready.notify()
	}
}

// setSharing sets how the server's cache shares, and how many slots it has.
func (q *requestQueue) setSharing(how cacheSharing, slots int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.prefixes.sharing, q.prefixes.slots = how, slots
}
