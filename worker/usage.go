package worker

import (
	"maps"
	"sync"

	"github.com/promptmill/promptmill/proto"
)

// usage counts the worker's expenses for each run: requests, and the energy of the GPUs, which is
// divided among the runs by the requests that ended since the last snapshot. What the GPUs take while
// the worker has no work is of no run.
type usage struct {
	// mu guards the fields below.
	mu   sync.Mutex
	runs map[string]proto.RunUsage

	// unattributed is the number of requests that ended since energy was last divided, by run.
	unattributed map[string]int64

	// joules is the energy that the GPUs had used when it was last divided; metered is set once
	// that is known.
	joules  float64
	metered bool
}

func newUsage() *usage {
	return &usage{runs: map[string]proto.RunUsage{}, unattributed: map[string]int64{}}
}

// countRequest counts a request of a run that the model server had, and the cost of its attempts
// whose answers were thrown away.
func (u *usage) countRequest(run string, discarded attemptCost) {
	u.mu.Lock()
	defer u.mu.Unlock()

	r := u.runs[run]
	r.Requests++
	u.runs[run] = addDiscarded(r, discarded)
	u.unattributed[run]++
}

// countDiscarded counts the cost of attempts at a request that has no result.
func (u *usage) countDiscarded(run string, discarded attemptCost) {
	if discarded == (attemptCost{}) {
		return
	}

	u.mu.Lock()
	defer u.mu.Unlock()

	u.runs[run] = addDiscarded(u.runs[run], discarded)
}

// addDiscarded returns usage with the cost of attempts whose answers were thrown away.
func addDiscarded(r proto.RunUsage, discarded attemptCost) proto.RunUsage {
	r.DiscardedAttempts += discarded.attempts
	r.DiscardedTokens += discarded.tokens
	r.DiscardedSeconds += discarded.time.Seconds()

	return r
}

// countRedelivery counts a shard of a run that a worker had before.
func (u *usage) countRedelivery(run string) {
	u.mu.Lock()
	defer u.mu.Unlock()

	r := u.runs[run]
	r.Redeliveries++
	u.runs[run] = r
}

// countRerun counts a request of a run that was sent to a model server although a worker which has
// died since had sent it before.
func (u *usage) countRerun(run string) {
	u.mu.Lock()
	defer u.mu.Unlock()

	r := u.runs[run]
	r.Rerun++
	u.runs[run] = r
}

// snapshot returns the resources spent on each run until now. Energy that was used while no request
// ended waits for the next snapshot: long answers take energy as well. That of a worker that isIdle, with no shard
// in hand and no request in flight, waits for none: the next run may begin hours later.
func (u *usage) snapshot(cards []proto.GPU, isIdle bool) map[string]proto.RunUsage {
	u.mu.Lock()
	defer u.mu.Unlock()

	if joules, known := totalJoules(cards); known {
		u.divideEnergy(joules, isIdle)
	}

	runs := maps.Clone(u.runs)
	for run, r := range runs {
		// A run without a request had only shards that were done already. Its energy is zero:
		// an unknown one would hide the expenses of other workers.
		if r.Requests == 0 {
			r.EnergyJoules = new(0.0)
			runs[run] = r
		}
	}

	return runs
}

// totalJoules returns the energy that the GPUs have used, and whether any of them measures it.
func totalJoules(cards []proto.GPU) (joules float64, known bool) {
	for _, c := range cards {
		if c.EnergyJoules != nil {
			joules += *c.EnergyJoules
			known = true
		}
	}
	return joules, known
}

// divideEnergy divides the energy used since the last time among the runs by their requests. If none ended,
// isIdle drops it. The caller holds the lock.
func (u *usage) divideEnergy(joules float64, isIdle bool) {
	if !u.metered {
		u.joules, u.metered = joules, true // energy used before the worker began is of no run
	}

	requests := int64(0)
	for _, n := range u.unattributed {
		requests += n
	}

	if requests == 0 && !isIdle {
		return
	}

	for run, n := range u.unattributed {
		r := u.runs[run]
		spent := (joules - u.joules) * float64(n) / float64(requests)
		if r.EnergyJoules != nil {
			spent += *r.EnergyJoules
		}

		r.EnergyJoules = &spent
		u.runs[run] = r
	}

	u.joules = joules
	clear(u.unattributed)
}

// retainRuns drops the runs for which wanted is false: they are over.
func (u *usage) retainRuns(wanted func(run string) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()

	maps.DeleteFunc(u.runs, func(run string, _ proto.RunUsage) bool { return !wanted(run) })
	maps.DeleteFunc(u.unattributed, func(run string, _ int64) bool { return !wanted(run) })
}
