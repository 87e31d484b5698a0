package worker

import (
	"context"
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// A run may ask that requests which begin alike meet in a server's prompt cache. Those
// that are sent together miss it: each computes what it has in common with the others. So
// one of a group goes first, and the others follow when they find there what it left.
// Other groups take the slots meanwhile. No slot stays free for it: if nothing else is to
// be had, a request goes that could have waited.

// sharing is what a server's prompt cache lets a request have of another one's prompt.
type sharing int

const (
	// sharesComputed is what is computed, for any number of requests, as with vLLM and SGLang.
	// So it is where the cache is not known. (vLLM shares even what it is computing, but who
	// comes so early takes up a slot until it is computed.)
	sharesComputed sharing = iota

	// sharesIdleSlots is the last prompt of a slot that has no request: one request after the
	// other has it.
	sharesIdleSlots
)

// sharingOf is how servers of a flavour share.
func sharingOf(flavour string) sharing {
	if flavour == "llama.cpp" || flavour == "Ollama" {
		return sharesIdleSlots
	}
	return sharesComputed
}

const (
	// stretch is how much of a prompt is compared at a time, in bytes: some 60 tokens. It is
	// not worth a wait to share less.
	stretch = 256

	// mostStretches bounds how much of a prompt is compared.
	mostStretches = 1024

	// fewGroups is how many requests a worker may hold at least so that there are enough groups
	// for its slots.
	fewGroups = 512

	// fillAfter is how long a free slot waits at most for requests that are about to come.
	fillAfter = 20 * time.Millisecond
)

// beginning is a beginning of prompts that the worker holds.
type beginning struct {
	hash     uint64
	tasks    int     // held that begin so
	busy     int     // of them, those at the server or about to go there
	computed bool    // one of them has an answer
	waiting  []*task // that share no more than this with others, and follow one that is busy
}

// groups are the beginnings of what the worker holds. The queue's lock guards them.
type groups struct {
	sharing sharing
	slots   int // of the server, if each has its prompt; 0: not known

	seed   maphash.Seed
	known  map[uint64]*beginning
	held   []*beginning // that have tasks waiting, in the order in which they came to
	parked int          // tasks that wait, in all
	there  int          // tasks with a path at the server

	cold, warm time.Duration // that requests take which go first, and which follow; 0: not known

	parks   int          // how often a task began to wait
	crowded func()       // tells the fetch loop of it
	looked  int          // of these, what the fetch loop knew when it found no room for more; -1: it is to look
	more    bool         // the bus has more, as far as the fetch loop knows
	opening atomic.Int32 // shards that have come, and have no tasks yet
}

// enter notes that the worker holds tasks, before any of them is pushed.
func (q *queue) enter(tasks []*task) {
	var scan proto.Scanner
	paths := make([][]uint64, len(tasks))
	for i, t := range tasks {
		paths[i] = q.groups.hashes(&scan, t)
	}

	q.mu.Lock()
	defer q.mu.Unlock()

	for i, t := range tasks {
		if len(paths[i]) > 0 {
			t.path = make([]*beginning, len(paths[i]))
		}

		for k, hash := range paths[i] {
			b := q.groups.known[hash]
			if b == nil {
				b = &beginning{hash: hash}
				q.groups.known[hash] = b
			}

			b.tasks++
			t.path[k] = b
		}
	}
}

// hashes are those of the beginnings of a task's prompt, each longer than the one before.
// Prompts of different runs or models have nothing in common.
func (g *groups) hashes(scan *proto.Scanner, t *task) (list []uint64) {
	var h maphash.Hash
	h.SetSeed(g.seed)
	h.WriteString(t.shard.feed.run)
	h.WriteByte(0)
	h.WriteString(t.shard.model)
	left := stretch
	p := proto.FindPrompt(scan, t.Body)
	for _, part := range [][]byte{p.Tools, p.Instructions, p.Text} {
		h.WriteByte(0)
		for len(part) > 0 && len(list) < mostStretches {
			n := min(left, len(part))
			h.Write(part[:n])
			part = part[n:]
			if left -= n; left == 0 {
				list = append(list, h.Sum64())
				left = stretch
			}
		}
	}

	return list
}

// leave notes that the worker does not hold a task any more.
func (q *queue) leave(t *task) {
	q.mu.Lock()
	defer q.mu.Unlock()

	q.groups.yield(t, false)
	q.follow(t, false)

	for _, b := range t.path {
		if b.tasks--; b.tasks == 0 {
			delete(q.groups.known, b.hash)
		}
	}

	t.path = nil
}

// shared is the longest beginning that a task shares with another one that is held, nil if
// that is less than half of its prompt: what so many have in common comes to be in every
// slot, and among the blocks, by itself.
func (t *task) shared() *beginning {
	for i := len(t.path) - 1; i >= 0 && 2*(i+1) >= len(t.path); i-- {
		if t.path[i].tasks > 1 {
			return t.path[i]
		}
	}
	return nil
}

// park has a task wait if it is better to, and otherwise reserves its place in its group.
func (g *groups) park(t *task) bool {
	b := t.shared()
	if b == nil || b.busy == 0 || g.sharing == sharesComputed && b.computed {
		g.reserve(t)
		return false
	}
	g.hold(b, t, len(b.waiting))
	return true
}

func (g *groups) hold(b *beginning, t *task, at int) {
	if len(b.waiting) == 0 {
		g.held = append(g.held, b)
	}
	b.waiting = slices.Insert(b.waiting, at, t)
	g.parked++
	g.parks++
	g.crowded()
}

// take takes tasks out of those that wait for a beginning.
func (g *groups) take(b *beginning, n int) []*task {
	out := slices.Clone(b.waiting[:n])
	b.waiting = slices.Delete(b.waiting, 0, n)
	g.parked -= n
	if len(b.waiting) == 0 {
		b.waiting = nil
		g.held = slices.DeleteFunc(g.held, func(other *beginning) bool { return other == b })
	}

	return out
}

// sweep takes out the tasks that wait and of which gone is true.
func (g *groups) sweep(gone func(*task) bool) (out []*task) {
	for _, b := range g.held {
		b.waiting = slices.DeleteFunc(b.waiting, func(t *task) bool {
			if gone(t) {
				out = append(out, t)
				return true
			}
			return false
		})
	}

	g.held = slices.DeleteFunc(g.held, func(b *beginning) bool { return len(b.waiting) == 0 })
	g.parked -= len(out)

	return out
}

// reserve has others of a task's group wait for it.
func (g *groups) reserve(t *task) {
	if t.reserved {
		return
	}
	t.reserved = true
	for _, b := range t.path {
		b.busy++
	}
}

// yield takes that back. What an answered task begins with is computed.
func (g *groups) yield(t *task, answered bool) {
	if !t.reserved {
		return
	}

	t.reserved = false
	for _, b := range t.path {
		b.busy--
		b.computed = b.computed || answered
	}
}

// follow lets those go that have waited for a task which has ended, or is gone: all that
// find computed what they share, and otherwise one. If it freed a slot that has its prompt,
// one goes there, whatever the other slots have.
func (q *queue) follow(t *task, slot bool) {
	g, one := &q.groups, false
	for _, b := range slices.Backward(t.path) {
		n := min(1, len(b.waiting))
		switch {
		case g.sharing != sharesIdleSlots && b.computed:
			n = len(b.waiting)
		case one || b.busy > 0 && !slot:
			n = 0
		}

		if n == 0 {
			continue
		}

		one = true
		for _, other := range g.take(b, n) {
			g.reserve(other)
			other.follows = true
			q.first = append(q.first, other)
		}

		q.signal()
	}
}

// fill takes a task that could have waited: of the group that has waited longest, or,
// where that opens another slot to them, of that of which the most wait.
func (g *groups) fill() *task {
	var best *beginning
	for _, b := range g.held {
		switch {
		case g.sharing != sharesIdleSlots:
			best = g.held[0]
		case g.soonDone(b):
		case best == nil || len(b.waiting) > len(best.waiting):
			best = b
		}
	}

	if best == nil {
		return nil
	}

	t := g.take(best, 1)[0]
	g.reserve(t)
	t.fills = best

	return t
}

// soonDone reports whether the slots that a group has will have answered those that wait
// before another slot has read what they share.
func (g *groups) soonDone(b *beginning) bool {
	rounds := float64(len(b.waiting))/float64(max(1, b.busy)) + 0.5 // of a request in each, half of which is over
	return b.busy > 0 && g.warm > 0 && float64(g.cold) >= rounds*float64(g.warm)
}

// time takes in how long a task was at the server, which had read its beginning or had not.
func (g *groups) time(t *task, took time.Duration) {
	mean := &g.cold
	if t.follows {
		mean = &g.warm
	}
	if *mean == 0 {
		*mean = took
	}

	*mean += (took - *mean) / 8
}

// share says how the server's cache shares, and how many slots it has.
func (q *queue) share(how sharing, slots int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.groups.sharing, q.groups.slots = how, slots
}

// awaitSlot waits until a slot of the server is free, where each has its prompt: what waits
// at the server takes the next one, whatever that has. It returns false when ctx ends.
func (q *queue) awaitSlot(ctx context.Context) bool {
	for {
		q.mu.Lock()
		g := &q.groups
		free := g.sharing != sharesIdleSlots || g.slots == 0 || g.there < g.slots
		q.mu.Unlock()
		if free {
			return true
		}

		select {
		case <-q.ready:
		case <-ctx.Done():
			return false
		}
	}
}

// instead returns the task that a slot is for now that it is free: it may be another one
// than when the wait for it began. Then that goes back. A task that could wait goes only if
// the fetch loop has looked meanwhile, and found no other.
func (q *queue) instead(ctx context.Context, t *task) *task {
	var late <-chan time.Time
	for {
		other, sure := q.exchange(t, late == nil)
		if sure {
			return other
		}

		if late == nil {
			late = time.After(fillAfter)
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

// exchange looks for a task that is better than one that could wait. It is sure if it has
// one, or if no other is about to come.
func (q *queue) exchange(t *task, first bool) (other *task, sure bool) {
	q.mu.Lock()
	defer q.mu.Unlock()

	g := &q.groups
	if q.closed || t.follows {
		return t, true
	}

	if len(q.first) > 0 || t.fills != nil {
		other = q.next()
	}

	if other != nil {
		q.putBack(t)
		return other, true
	}

	if t.fills == nil || !g.more && g.opening.Load() == 0 {
		return t, true
	}

	if first {
		g.looked = -1
		g.crowded()
	}

	return t, g.looked == g.parks && g.opening.Load() == 0
}

// putBack has a task that was to go wait again.
func (q *queue) putBack(t *task) {
	q.groups.yield(t, false)
	switch b := t.fills; {
	case b != nil:
		t.fills = nil
		q.groups.hold(b, t, 0)
	case q.head > 0:
		q.head--
		q.tasks[q.head] = t
	default:
		q.tasks = slices.Insert(q.tasks, 0, t)
	}
}

// sent notes that a task goes to the server.
func (q *queue) sent(t *task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.groups.reserve(t)
	q.groups.there++
	t.fills = nil
}

// ended notes that the server has ended a task, or lost it.
func (q *queue) ended(t *task, answered bool, took time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()

	q.groups.there--
	if answered {
		q.groups.time(t, took)
	}

	q.groups.yield(t, answered)
	t.follows = false
	q.follow(t, q.groups.sharing == sharesIdleSlots)
	q.signal()
}

// parks is how often a task began to wait.
func (q *queue) parks() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.groups.parks
}

// fetched notes whether the bus has more.
func (q *queue) fetched(more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.groups.more = more
	if q.groups.parked > 0 {
		q.signal()
	}
}

// full notes that there is no room for more, although so many tasks began to wait.
func (q *queue) full(parks int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.groups.looked = parks
	if q.groups.parked > 0 {
		q.signal()
	}
}

// opened notes that a shard has its tasks, or none.
func (q *queue) opened() {
	if q.groups.opening.Add(-1) == 0 {
		q.signal()
	}
}

// mayWait is how many tasks the worker may hold, beyond what it has room for, since they wait
// for others of their groups: all, if no other worker could run them, and otherwise its part
// of what the bus has.
func (w *Worker) mayWait() int {
	parked := w.queue.parked()
	if parked == 0 || len(w.others.list) == 0 {
		return parked
	}

	share, alone := 0, true
	w.feeds.mu.Lock()
	defer w.feeds.mu.Unlock()

	for _, f := range w.feeds.runs {
		for _, s := range f.sources {
			beside := 0
			for _, o := range w.others.list {
				if o.ID != w.id && o.Ready && proto.Serves(o.Models, s.model) {
					beside++
				}
			}

			if f.grouped {
				share += s.waiting / (1 + beside)
				alone = alone && beside == 0
			}
		}
	}

	if alone {
		return parked
	}

	return min(parked, share)
}
