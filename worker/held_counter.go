package worker

import "sync/atomic"

// heldCounter counts the requests that the worker holds: they came in a shard, and have
// neither a result nor been handed back.
type heldCounter struct {
	n atomic.Int64

	// drained is notified after the last of them has ended, and freed after any of them has.
	drained signal
	freed   signal
}

func newHeldCounter(freed signal) *heldCounter {
	return &heldCounter{drained: newSignal(), freed: freed}
}

// load returns the number of requests held.
func (c *heldCounter) load() int64 { return c.n.Load() }

// add adds n, which may be negative, to the number of requests held.
func (c *heldCounter) add(n int) {
	if c.n.Add(int64(n)) == 0 {
		c.drained.notify()
	}

	if n < 0 {
		c.freed.notify()
	}
}
