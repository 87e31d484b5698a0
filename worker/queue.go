package worker

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// task is a request on its way to a result.
type task struct {
	proto.Request
	hash      uint64 // of the request as it came, whatever is sent later
	single    bool   // its body says nothing of how many parts the answer has
	shard     *held
	arrived   time.Time
	first     time.Time // when the first attempt began
	attempts  int
	overloads int       // of them, by a server that has too many requests
	reasons   []string  // of the attempts that failed
	loading   time.Time // when the server was first loading its model, of a request that waits for that
	deaths    int       // of the model server, or the worker, while it had this request

	spared        int           // attempts that a proxy had no server for, perhaps
	cutOffs       int           // attempts that something in front of the server cut off
	malformed     string        // why the last attempt's answer was no JSON
	mismatched    bool          // it had an answer that does not match the schema
	truncated     *proto.Result // an answer that was cut off, should there be no better one
	truncatedTook time.Duration

	// Where requests are grouped. The queue's lock guards them.
	path     []*beginning // of its prompt, each longer than the one before; nil: it is in no group
	reserved bool         // it counts as busy
	follows  bool         // it has waited for one that has ended, and goes now
	fills    *beginning   // it goes for want of another, and else would wait for this
}

// countedBody is the body that an answer is compared with, nil if there is nothing to compare.
func (t *task) countedBody() []byte {
	if t.single {
		return nil
	}
	return t.Body
}

// refusalsPerAttempt is how many refusals count as one attempt. A server that has too
// many requests says nothing about this one, and takes it a moment later.
const refusalsPerAttempt = 4

// attemptsUsed is how many of its attempts the task has used up.
func (t *task) attemptsUsed() int { return t.attempts - t.overloads + t.overloads/refusalsPerAttempt }

// queue holds the tasks that wait for a slot, first in first out, and those that
// wait for their next attempt.
type queue struct {
	mu      sync.Mutex
	tasks   []*task
	head    int
	first   []*task // go before the others: they follow one of their group
	groups  groups
	waiting map[*task]*time.Timer
	closed  bool
	nudged  bool
	ready   chan struct{} // has one element while tasks may be there
}

func newQueue() *queue {
	return &queue{
		waiting: map[*task]*time.Timer{},
		ready:   make(chan struct{}, 1),
		groups:  groups{seed: maphash.MakeSeed(), known: map[uint64]*beginning{}, crowded: func() {}},
	}
}

// push adds tasks. It returns false, and does not take them, after close.
func (q *queue) push(tasks ...*task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()

	if q.closed {
		return false
	}

	q.tasks = append(q.tasks, tasks...)
	q.signal()

	return true
}

// pushAfter adds a task after a wait. It returns false after close.
func (q *queue) pushAfter(t *task, wait time.Duration) bool {
	q.mu.Lock()
	defer q.mu.Unlock()

	if q.closed {
		return false
	}

	q.waiting[t] = time.AfterFunc(wait, func() {
		q.mu.Lock()
		defer q.mu.Unlock()

		if _, ok := q.waiting[t]; !ok {
			return // close has returned it
		}

		delete(q.waiting, t)
		q.tasks = append(q.tasks, t)
		q.signal()
	})

	return true
}

// pop takes the first task, waiting for one. It returns nil after nudge, and false when
// ctx ends or the queue is closed. One goroutine may call it.
func (q *queue) pop(ctx context.Context) (*task, bool) {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return nil, false
		}

		t := q.next()
		if t == nil {
			t = q.groups.fill() // perhaps: see instead
		}

		if t != nil {
			q.mu.Unlock()
			return t, true
		}

		if q.nudged {
			q.nudged = false
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
func (q *queue) next() *task {
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

		if t.path == nil || !q.groups.park(t) {
			return t
		}
	}

	return nil
}

// nudge has pop return without a task, if there is none.
func (q *queue) nudge() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.nudged = true
	q.signal()
}

// close ends the queue and returns all tasks that are in it.
func (q *queue) close() []*task {
	q.mu.Lock()
	defer q.mu.Unlock()

	rest := slices.Concat(q.first, q.groups.sweep(func(*task) bool { return true }), q.tasks[q.head:])
	for t, timer := range q.waiting {
		timer.Stop()
		rest = append(rest, t)
	}

	q.first, q.tasks, q.head, q.closed = nil, nil, 0, true
	clear(q.waiting)
	q.signal()

	return rest
}

// remove takes out the tasks of which gone is true and returns them.
func (q *queue) remove(gone func(*task) bool) []*task {
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
	out = append(out, q.groups.sweep(gone)...)
	q.first = slices.DeleteFunc(q.first, func(t *task) bool {
		if gone(t) {
			out = append(out, t)
			return true
		}
		return false
	})

	for t, timer := range q.waiting {
		if gone(t) {
			timer.Stop()
			delete(q.waiting, t)
			out = append(out, t)
		}
	}

	return out
}

// delayed is the number of tasks that wait for their next attempt.
func (q *queue) delayed() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// parked is the number of tasks that wait for another one of their group.
func (q *queue) parked() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.groups.parked
}

func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}
