package worker

import "time"

// prefetchTime bounds the work that is held beyond the slots, so that no slot waits for the bus:
// as many requests as the model has answered lately in this time.
const prefetchTime = 50 * time.Millisecond

// prefetchRate measures how many requests end in prefetchTime.
type prefetchRate struct {
	requests int

	// since is the time at which the measurement began, with done requests.
	since time.Time
	done  int64
}

// update takes in the number of requests that have ended.
func (r *prefetchRate) update(done int64, now time.Time) {
	if passed := now.Sub(r.since); passed >= 2*prefetchTime {
		r.requests = int(float64(done-r.done) * float64(prefetchTime) / float64(passed))
		r.since, r.done = now, done
	}
}

// capacity returns how many more requests the worker wants: enough to take all slots, and those
// of the prefetch. A pull brings whole shards, so the worker may come to hold the rest
// of a shard more. A request takes no room, up to a bound, while it waits for its next attempt,
// for another request of its group, or until the meaning of its refusal is known.
func (f *fetcher) capacity() int {
	f.rate.update(f.jobs.stats.Done.Load(), time.Now())

	want := f.limiter.Limit() + max(1, f.rate.requests)
	held := int(f.jobs.held.load())
	parked := f.parkedAllowance()
	idle := f.jobs.queue.delayedCount() + f.setAside() + parked

	most := max(8*want, 2*enoughRefusals)
	if parked > 0 {
		most = max(most, minGroupedRequests)
	}

	return min(want-(held-idle), most-held)
}

// parkedAllowance returns how many requests the worker may hold, beyond those it has room for,
// because they wait for others of their groups: all, if no other worker could run them, and
// otherwise its part of the requests on the bus.
func (f *fetcher) parkedAllowance() int {
	parked := f.jobs.queue.parkedCount()
	if parked == 0 || len(f.peers.list) == 0 {
		return parked
	}

	share, isAlone := 0, true
	f.runs.mu.Lock()
	defer f.runs.mu.Unlock()

	for _, run := range f.runs.byID {
		if !run.grouped {
			continue
		}

		for _, s := range run.fetch.sources {
			others := f.peers.countServing(s.model)
			share += s.waiting / (1 + others)
			isAlone = isAlone && others == 0
		}
	}

	if isAlone {
		return parked
	}

	return min(parked, share)
}
