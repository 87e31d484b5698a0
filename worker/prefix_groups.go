package worker

import (
	"context"
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// A run may ask that requests which begin alike meet in a server's prompt cache. Those
// that are sent together miss it: each computes what it has in common with the others. So
// one of a group goes first, and the others follow when they find there what it left.
// Other groups take the slots meanwhile. No slot stays free for it: if nothing else is to
// be had, a request goes that could have waited.

// cacheSharing is what a server's prompt cache lets a request have of another one's prompt.
type cacheSharing int

const (
	// sharesComputedPrefixes is what is computed, for any number of requests, as with vLLM and SGLang.
	// So it is where the cache is not known. (vLLM shares even what it is computing, but who
	// comes so early takes up a slot until it is computed.)
	sharesComputedPrefixes cacheSharing = iota

	// sharesIdleSlots is the last prompt of a slot that has no request: one request after the
	// other has it.
	sharesIdleSlots
)

// sharingOf is how servers of a flavour share.
func sharingOf(flavour string) cacheSharing {
	if flavour == "llama.cpp" || flavour == "Ollama" {
		return sharesIdleSlots
	}
	return sharesComputedPrefixes
}

const (
	// prefixBytes is how much of a prompt is compared at a time, in bytes: some 60 tokens. It is
	// not worth a wait to share less.
	prefixBytes = 256

	// maxPrefixes bounds how much of a prompt is compared.
	maxPrefixes = 1024

	// minGroupedRequests is how many requests a worker may hold at least so that there are enough groups
	// for its slots.
	minGroupedRequests = 512

	// fillerWait is how long a free slot waits at most for requests that are about to come.
	fillerWait = 20 * time.Millisecond
)

// promptPrefix is a beginning of prompts that the worker holds.
type promptPrefix struct {
	hash     uint64
	tasks    int     // held that begin so
	busy     int     // of them, those at the server or about to go there
	computed bool    // one of them has an answer
	waiting  []*task // that share no more than this with others, and follow one that is busy
}

// prefixGroups are the beginnings of what the worker holds. The queue's lock guards them.
type prefixGroups struct {
	sharing cacheSharing
	slots   int // of the server, if each has its prompt; 0: not known

	seed     maphash.Seed
	known    map[uint64]*promptPrefix
	waiting  []*promptPrefix // that have tasks waiting, in the order in which they came to
	parked   int             // tasks that wait, in all
	atServer int             // tasks with a path at the server

	firstTime, followerTime time.Duration // that requests take which go first, and which follow; 0: not known

	parks     int          // how often a task began to wait
	onPark    func()       // tells the fetch loop of it
	parksSeen int          // of these, what the fetch loop knew when it found no room for more; -1: it is to look
	more      bool         // the bus has more, as far as the fetch loop knows
	opening   atomic.Int32 // shards that have come, and have no tasks yet
}

// register notes that the worker holds tasks, before any of them is pushed.
func (q *requestQueue) register(tasks []*task) {
	var scan jsonscan.Scanner
	paths := make([][]uint64, len(tasks))
	for i, t := range tasks {
		paths[i] = q.prefixes.prefixHashes(&scan, t)
	}

	q.mu.Lock()
	defer q.mu.Unlock()

	for i, t := range tasks {
		if len(paths[i]) > 0 {
			t.prefixes = make([]*promptPrefix, len(paths[i]))
		}

		for k, hash := range paths[i] {
			b := q.prefixes.known[hash]
			if b == nil {
				b = &promptPrefix{hash: hash}
				q.prefixes.known[hash] = b
			}

			b.tasks++
			t.prefixes[k] = b
		}
	}
}

// prefixHashes are those of the beginnings of a task's prompt, each longer than the one before.
// Prompts of different runs or models have nothing in common.
func (g *prefixGroups) prefixHashes(scan *jsonscan.Scanner, t *task) (list []uint64) {
	var h maphash.Hash
	h.SetSeed(g.seed)
	h.WriteString(t.shard.run.id)
	h.WriteByte(0)
	h.WriteString(t.shard.model)
	left := prefixBytes
	p := proto.FindPrompt(scan, t.Body)
	for _, part := range [][]byte{p.Tools, p.Instructions, p.Text} {
		h.WriteByte(0)
		for len(part) > 0 && len(list) < maxPrefixes {
			n := min(left, len(part))
			h.Write(part[:n])
			part = part[n:]
			if left -= n; left == 0 {
				list = append(list, h.Sum64())
				left = prefixBytes
			}
		}
	}

	return list
}

// unregister notes that the worker does not hold a task any more.
func (q *requestQueue) unregister(t *task) {
	q.mu.Lock()
	defer q.mu.Unlock()

	q.prefixes.unmarkBusy(t, false)
	q.releaseFollowers(t, false)

	for _, b := range t.prefixes {
		if b.tasks--; b.tasks == 0 {
			delete(q.prefixes.known, b.hash)
		}
	}

	t.prefixes = nil
}

// sharedPrefix is the longest beginning that a task shares with another one that is held, nil if
// that is less than half of its prompt: what so many have in common comes to be in every
// slot, and among the blocks, by itself.
func (t *task) sharedPrefix() *promptPrefix {
	for i := len(t.prefixes) - 1; i >= 0 && 2*(i+1) >= len(t.prefixes); i-- {
		if t.prefixes[i].tasks > 1 {
			return t.prefixes[i]
		}
	}
	return nil
}

// parkIfShared has a task wait if it is better to, and otherwise reserves its place in its group.
func (g *prefixGroups) parkIfShared(t *task) bool {
	b := t.sharedPrefix()
	if b == nil || b.busy == 0 || g.sharing == sharesComputedPrefixes && b.computed {
		g.markBusy(t)
		return false
	}
	g.parkAt(b, t, len(b.waiting))
	return true
}

func (g *prefixGroups) parkAt(b *promptPrefix, t *task, at int) {
	if len(b.waiting) == 0 {
		g.waiting = append(g.waiting, b)
	}
	b.waiting = slices.Insert(b.waiting, at, t)
	g.parked++
	g.parks++
	g.onPark()
}

// unpark takes tasks out of those that wait for a beginning.
func (g *prefixGroups) unpark(b *promptPrefix, n int) []*task {
	out := slices.Clone(b.waiting[:n])
	b.waiting = slices.Delete(b.waiting, 0, n)
	g.parked -= n
	if len(b.waiting) == 0 {
		b.waiting = nil
		g.waiting = slices.DeleteFunc(g.waiting, func(other *promptPrefix) bool { return other == b })
	}

	return out
}

// removeParked takes out the tasks that wait and of which gone is true.
func (g *prefixGroups) removeParked(gone func(*task) bool) (out []*task) {
	for _, b := range g.waiting {
		b.waiting = slices.DeleteFunc(b.waiting, func(t *task) bool {
			if gone(t) {
				out = append(out, t)
				return true
			}
			return false
		})
	}

	g.waiting = slices.DeleteFunc(g.waiting, func(b *promptPrefix) bool { return len(b.waiting) == 0 })
	g.parked -= len(out)

	return out
}

// markBusy has others of a task's group wait for it.
func (g *prefixGroups) markBusy(t *task) {
	if t.busy {
		return
	}
	t.busy = true
	for _, b := range t.prefixes {
		b.busy++
	}
}

// unmarkBusy takes that back. What an answered task begins with is computed.
func (g *prefixGroups) unmarkBusy(t *task, answered bool) {
	if !t.busy {
		return
	}

	t.busy = false
	for _, b := range t.prefixes {
		b.busy--
		b.computed = b.computed || answered
	}
}

// releaseFollowers lets those go that have waited for a task which has ended, or is gone: all that
// find computed what they share, and otherwise one. If it freed a slot that has its prompt,
// one goes there, whatever the other slots have.
func (q *requestQueue) releaseFollowers(t *task, slot bool) {
	g, one := &q.prefixes, false
	for _, b := range slices.Backward(t.prefixes) {
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
		for _, other := range g.unpark(b, n) {
			g.markBusy(other)
			other.follows = true
			q.first = append(q.first, other)
		}

		q.ready.notify()
	}
}

// takeFiller takes a task that could have waited: of the group that has waited longest, or,
// where that opens another slot to them, of that of which the most wait.
func (g *prefixGroups) takeFiller() *task {
	var best *promptPrefix
	for _, b := range g.waiting {
		switch {
		case g.sharing != sharesIdleSlots:
			best = g.waiting[0]
		case g.isSoonServed(b):
		case best == nil || len(b.waiting) > len(best.waiting):
			best = b
		}
	}

	if best == nil {
		return nil
	}

	t := g.unpark(best, 1)[0]
	g.markBusy(t)
	t.filler = best

	return t
}

// isSoonServed reports whether the slots that a group has will have answered those that wait
// before another slot has read what they share.
func (g *prefixGroups) isSoonServed(b *promptPrefix) bool {
	rounds := float64(len(b.waiting))/float64(max(1, b.busy)) + 0.5 // of a request in each, half of which is over
	return b.busy > 0 && g.followerTime > 0 && float64(g.firstTime) >= rounds*float64(g.followerTime)
}

// recordTime takes in how long a task was at the server, which had read its beginning or had not.
func (g *prefixGroups) recordTime(t *task, took time.Duration) {
	mean := &g.firstTime
	if t.follows {
		mean = &g.followerTime
	}
	if *mean == 0 {
		*mean = took
	}

	*mean += (took - *mean) / 8
}

// setSharing says how the server's cache shares, and how many slots it has.
func (q *requestQueue) setSharing(how cacheSharing, slots int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.prefixes.sharing, q.prefixes.slots = how, slots
}

// awaitSlot waits until a slot of the server is free, where each has its prompt: what waits
// at the server takes the next one, whatever that has. It returns false when ctx ends.
func (q *requestQueue) awaitSlot(ctx context.Context) bool {
	for {
		q.mu.Lock()
		g := &q.prefixes
		free := g.sharing != sharesIdleSlots || g.slots == 0 || g.atServer < g.slots
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

// pickForSlot returns the task that a slot is for now that it is free: it may be another one
// than when the wait for it began. Then that goes back. A task that could wait goes only if
// the fetch loop has looked meanwhile, and found no other.
func (q *requestQueue) pickForSlot(ctx context.Context, t *task) *task {
	var late <-chan time.Time
	for {
		other, sure := q.tryExchange(t, late == nil)
		if sure {
			return other
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

// tryExchange looks for a task that is better than one that could wait. It is sure if it has
// one, or if no other is about to come.
func (q *requestQueue) tryExchange(t *task, first bool) (other *task, sure bool) {
	q.mu.Lock()
	defer q.mu.Unlock()

	g := &q.prefixes
	if q.closed || t.follows {
		return t, true
	}

	if len(q.first) > 0 || t.filler != nil {
		other = q.next()
	}

	if other != nil {
		q.putBack(t)
		return other, true
	}

	if t.filler == nil || !g.more && g.opening.Load() == 0 {
		return t, true
	}

	if first {
		g.parksSeen = -1
		g.onPark()
	}

	return t, g.parksSeen == g.parks && g.opening.Load() == 0
}

// putBack has a task that was to go wait again.
func (q *requestQueue) putBack(t *task) {
	q.prefixes.unmarkBusy(t, false)
	switch b := t.filler; {
	case b != nil:
		t.filler = nil
		q.prefixes.parkAt(b, t, 0)
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

// parkCount is how often a task began to wait.
func (q *requestQueue) parkCount() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.prefixes.parks
}

// noteFetched notes whether the bus has more.
func (q *requestQueue) noteFetched(more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.prefixes.more = more
	if q.prefixes.parked > 0 {
		q.ready.notify()
	}
}

// noteFull notes that there is no room for more, although so many tasks began to wait.
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

// noteOpened notes that a shard has its tasks, or none.
func (q *requestQueue) noteOpened() {
	if q.prefixes.opening.Add(-1) == 0 {
		q.ready.notify()
	}
}
