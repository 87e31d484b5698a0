package worker

import (
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// A run may ask that requests with the same prefix meet in a server's prompt cache. Those
// that are sent together miss it: each computes the prefix that all have in common. So one
// of a group goes first, and the others follow when they find its prefix in the cache.
// Other groups take the slots meanwhile. No slot stays free for it: if there is no other
// request, one goes that could have waited.

// cacheSharing is which part of other prompts a request finds in a server's prompt cache.
type cacheSharing int

const (
	// sharesComputedPrefixes is a cache that has all prefixes that were computed, for any number of
	// requests, as with vLLM and SGLang. It is assumed where the cache is not known. (vLLM shares
	// even a prefix that it is computing, but a request that comes so early takes up a slot until
	// the prefix is computed.)
	sharesComputedPrefixes cacheSharing = iota

	// sharesIdleSlots is a cache that has the last prompt of each slot without a request: one
	// request after the other has it.
	sharesIdleSlots
)

// sharingOf returns how servers of a flavour share.
func sharingOf(flavour string) cacheSharing {
	if flavour == "llama.cpp" || flavour == "Ollama" {
		return sharesIdleSlots
	}
	return sharesComputedPrefixes
}

const (
	// prefixBytes is the part of a prompt that is compared at a time: some 60 tokens. It is not
	// worth a wait to share less.
	prefixBytes = 256

	// maxPrefixes bounds how many prefixes of a prompt are compared.
	maxPrefixes = 1024

	// minGroupedRequests is the least bound on the requests that a worker holds, so that there are
	// enough groups for its slots.
	minGroupedRequests = 512

	// fillerWait bounds the time that a free slot waits for requests that are about to come.
	fillerWait = 20 * time.Millisecond
)

// promptPrefix is a prefix of prompts that the worker holds. The tasks that have it are a group.
type promptPrefix struct {
	hash uint64

	// tasks is the number of tasks held with this prefix. busy of them are at the server or about
	// to go there.
	tasks int
	busy  int

	// computed is set after one of the tasks was answered.
	computed bool

	// waiting are the tasks that share no longer prefix with others, and wait for one that is busy.
	waiting []*task
}

// prefixGroups are the prefixes of the tasks that the worker holds. The lock of the queue guards
// them.
type prefixGroups struct {
	sharing cacheSharing

	// slots is the number of the server's slots, if each has its own prompt; 0: not known.
	slots int

	seed  maphash.Seed
	known map[uint64]*promptPrefix

	// waiting are the prefixes that have waiting tasks, the first to get one first. parked is the
	// number of these tasks.
	waiting []*promptPrefix
	parked  int

	// atServer is the number of tasks with prefixes that are at the server.
	atServer int

	// firstTime is the latency of a request that goes first in its group, and followerTime that
	// of one that follows; 0: not known.
	firstTime    time.Duration
	followerTime time.Duration

	// parks counts the tasks that began to wait. onPark wakes the fetch loop each time.
	parks  int
	onPark func()

	// parksSeen is the value of parks that the fetch loop knew when it found no room for more;
	// -1: the loop has yet to look.
	parksSeen int

	// busHasMore is set if the bus has more requests, as far as the fetch loop knows.
	busHasMore bool

	// opening is the number of shards that have come and have no tasks yet. The lock does not
	// guard it.
	opening atomic.Int32
}

// addTask notes that the worker holds a task whose prefixes have these hashes.
func (g *prefixGroups) addTask(t *task, hashes []uint64) {
	if len(hashes) > 0 {
		t.prefixes = make([]*promptPrefix, len(hashes))
	}

	for i, hash := range hashes {
		p := g.known[hash]
		if p == nil {
			p = &promptPrefix{hash: hash}
			g.known[hash] = p
		}

		p.tasks++
		t.prefixes[i] = p
	}
}

// removeTask notes that the worker does not hold a task any more.
func (g *prefixGroups) removeTask(t *task) {
	for _, p := range t.prefixes {
		if p.tasks--; p.tasks == 0 {
			delete(g.known, p.hash)
		}
	}

	t.prefixes = nil
}

// hashPrefixes returns the hashes of the prefixes of a task's prompt, each longer than the one
// before. Prompts of different runs or models have nothing in common.
func (g *prefixGroups) hashPrefixes(scan *jsonscan.Scanner, t *task) (hashes []uint64) {
	var h maphash.Hash
	h.SetSeed(g.seed)
	h.WriteString(t.shard.run.id)
	h.WriteByte(0)
	h.WriteString(t.shard.model)

	left := prefixBytes
	prompt := proto.FindPrompt(scan, t.Body)
	for _, part := range [][]byte{prompt.Tools, prompt.Instructions, prompt.Text} {
		h.WriteByte(0)
		for len(part) > 0 && len(hashes) < maxPrefixes {
			n := min(left, len(part))
			h.Write(part[:n])
			part = part[n:]
			if left -= n; left == 0 {
				hashes = append(hashes, h.Sum64())
				left = prefixBytes
			}
		}
	}

	return hashes
}

// sharedPrefix returns the longest prefix that a task shares with another one that is held, or
// nil if that is less than half of its prompt: a prefix that many tasks have in common gets into
// every slot, and among the blocks, by itself.
func (t *task) sharedPrefix() *promptPrefix {
	for i := len(t.prefixes) - 1; i >= 0 && 2*(i+1) >= len(t.prefixes); i-- {
		if t.prefixes[i].tasks > 1 {
			return t.prefixes[i]
		}
	}
	return nil
}

// parkIfShared lets a task wait if that is better, and reports it. Otherwise it marks the task
// busy.
func (g *prefixGroups) parkIfShared(t *task) bool {
	p := t.sharedPrefix()
	if p == nil || p.busy == 0 || g.sharing == sharesComputedPrefixes && p.computed {
		g.markBusy(t)
		return false
	}

	g.parkTask(p, t, len(p.waiting))

	return true
}

// parkTask lets a task wait for a prefix, in the place at.
func (g *prefixGroups) parkTask(p *promptPrefix, t *task, at int) {
	if len(p.waiting) == 0 {
		g.waiting = append(g.waiting, p)
	}

	p.waiting = slices.Insert(p.waiting, at, t)
	g.parked++
	g.parks++
	g.onPark()
}

// unparkTasks takes out the first n tasks that wait for a prefix.
func (g *prefixGroups) unparkTasks(p *promptPrefix, n int) []*task {
	out := slices.Clone(p.waiting[:n])
	p.waiting = slices.Delete(p.waiting, 0, n)
	g.parked -= n

	if len(p.waiting) == 0 {
		p.waiting = nil
		g.waiting = slices.DeleteFunc(g.waiting, func(other *promptPrefix) bool { return other == p })
	}

	return out
}

// removeParked takes out the waiting tasks for which gone is true.
func (g *prefixGroups) removeParked(gone func(*task) bool) (out []*task) {
	for _, p := range g.waiting {
		p.waiting = slices.DeleteFunc(p.waiting, func(t *task) bool {
			if gone(t) {
				out = append(out, t)
				return true
			}
			return false
		})
	}

	g.waiting = slices.DeleteFunc(g.waiting, func(p *promptPrefix) bool { return len(p.waiting) == 0 })
	g.parked -= len(out)

	return out
}

// markBusy lets the other tasks of a task's groups wait for it.
func (g *prefixGroups) markBusy(t *task) {
	if t.busy {
		return
	}

	t.busy = true
	for _, p := range t.prefixes {
		p.busy++
	}
}

// unmarkBusy undoes markBusy. The prefixes of an answered task are computed.
func (g *prefixGroups) unmarkBusy(t *task, answered bool) {
	if !t.busy {
		return
	}

	t.busy = false
	for _, p := range t.prefixes {
		p.busy--
		p.computed = p.computed || answered
	}
}

// takeFollowers takes out tasks that waited for a task which has ended, or is gone: all whose
// shared prefix is computed, and otherwise one. If the task freed a slot that has its
// prompt, one goes there, whatever the other slots have.
func (g *prefixGroups) takeFollowers(t *task, freedSlot bool) (followers []*task) {
	for _, p := range slices.Backward(t.prefixes) {
		n := min(1, len(p.waiting))
		switch {
		case g.sharing != sharesIdleSlots && p.computed:
			n = len(p.waiting)
		case len(followers) > 0 || p.busy > 0 && !freedSlot:
			n = 0
		}

		if n == 0 {
			continue
		}

		for _, follower := range g.unparkTasks(p, n) {
			g.markBusy(follower)
			follower.follows = true
			followers = append(followers, follower)
		}
	}

	return followers
}

// takeFiller takes out a task that could have waited: of the group that has waited longest, or,
// where that opens another slot to a group, of the group of which the most wait.
func (g *prefixGroups) takeFiller() *task {
	var best *promptPrefix
	for _, p := range g.waiting {
		switch {
		case g.sharing != sharesIdleSlots:
			best = g.waiting[0]
		case g.isSoonServed(p):
		case best == nil || len(p.waiting) > len(best.waiting):
			best = p
		}
	}

	if best == nil {
		return nil
	}

	t := g.unparkTasks(best, 1)[0]
	g.markBusy(t)
	t.filler = best

	return t
}

// isSoonServed reports whether the slots that a group has will have answered the tasks that wait
// before another slot has read their shared prefix.
func (g *prefixGroups) isSoonServed(p *promptPrefix) bool {
	rounds := float64(len(p.waiting))/float64(max(1, p.busy)) + 0.5 // of a request in each, half of which is over
	return p.busy > 0 && g.followerTime > 0 && float64(g.firstTime) >= rounds*float64(g.followerTime)
}

// recordTime takes in how long a task was at the server, which had read its prefix or had not.
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
