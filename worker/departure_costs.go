package worker

import (
	"maps"
	"sync"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// departureCosts counts what becomes of the requests of a worker after it was asked to leave.
type departureCosts struct {
	plan *departurePlan

	// mu guards the fields below.
	mu   sync.Mutex
	used time.Duration // in slots, by attempts that gave a result

	// runs are the counts of each run. HandedBack is below zero between the end of an attempt that is
	// thrown away and the return of its request.
	runs map[string]proto.DepartureUsage
}

// countFinished counts a request that got its result. The attempt that gave it took some time.
func (c *departureCosts) countFinished(run string, end time.Time, took time.Duration) {
	if !c.plan.isLeaving() {
		return
	}

	used := min(took, end.Sub(c.plan.noticedAt()))

	c.mu.Lock()
	defer c.mu.Unlock()

	c.used += max(0, used)
	c.change(run, func(u *proto.DepartureUsage) { u.Finished++ })
}

// countHandedBack counts a request that goes back to the bus.
func (c *departureCosts) countHandedBack(run string) {
	if !c.plan.isLeaving() {
		return
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.change(run, func(u *proto.DepartureUsage) { u.HandedBack++ })
}

// countThrownAway counts a request that was cancelled at the model server after a time, and then goes
// back to the bus.
func (c *departureCosts) countThrownAway(run string, took time.Duration) {
	if !c.plan.isLeaving() {
		return
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	c.change(run, func(u *proto.DepartureUsage) {
		u.HandedBack-- // which the return of the request counts
		u.ThrownAway++
		u.ThrownAwaySeconds += took.Seconds()
	})
}

// change changes the counts of a run. The caller holds the lock.
func (c *departureCosts) change(run string, apply func(*proto.DepartureUsage)) {
	if c.runs == nil {
		c.runs = map[string]proto.DepartureUsage{}
	}

	u := c.runs[run]
	apply(&u)
	c.runs[run] = u
}

// retainRuns drops the runs for which wanted is false: they are over.
func (c *departureCosts) retainRuns(wanted func(run string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.runs, func(run string, _ proto.DepartureUsage) bool { return !wanted(run) })
}

// report returns the departure as it is announced; nil: the worker does not leave.
func (c *departureCosts) report() *proto.Departure {
	d := c.plan.describe()
	if d == nil {
		return nil
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	d.UsedSeconds = c.used.Seconds()
	d.Runs = maps.Clone(c.runs)
	for run, u := range d.Runs {
		u.HandedBack = max(0, u.HandedBack) // readers drop an announcement with a count below zero
		d.Runs[run] = u
	}

	return d
}
