package worker

import (
	"context"
	"sync"
	"time"

	"github.com/promptmill/promptmill/worker/limit"
)

// dispatcher takes the tasks out of the queue and starts an attempt at each as soon as the model
// server has a slot for it. Its loop is one goroutine, so tasks begin in the order of the queue.
type dispatcher struct {
	queue   *requestQueue
	limiter *limit.Limiter
	server  *serverSide
	plan    *departurePlan

	// mu guards the task that waits for a slot, or for the model server, and what ends its wait; nil: none
	// waits.
	mu      sync.Mutex
	waiting *task
	giveUp  context.CancelFunc
}

// run starts attempts until ctx ends or the queue is closed. Requests in quarantine go first.
func (d *dispatcher) run(ctx context.Context) {
	for {
		if !d.server.quarantine.isEmpty() && !d.server.state.isDown() {
			d.server.quarantine.run(ctx)
		}

		t, ok := d.queue.pop(ctx)
		if !ok {
			return
		}

		if t == nil { // the quarantine may have requests now
			continue
		}

		d.startAttempt(ctx, t)
	}
}

// startAttempt starts an attempt at a task as soon as there is a slot. While the model server
// is down the task waits for it, and goes to other workers if that takes too long.
func (d *dispatcher) startAttempt(ctx context.Context, t *task) {
	wait, giveUp := context.WithCancel(ctx)
	defer giveUp()

	d.setWaiting(t, giveUp)
	defer d.setWaiting(nil, nil)

	for d.server.gate.await(wait) {
		if t.prefixes != nil && !d.queue.awaitSlot(wait) {
			break
		}

		slot, err := d.limiter.Acquire(wait)
		if err != nil {
			break
		}

		if t.prefixes != nil && t.crashes == 0 {
			t = d.queue.pickForSlot(ctx, t)
		}

		// The epoch first: if the server hangs from now on, that ends it.
		epoch := d.server.state.epoch()

		if t.shard.run.paused.Load() || !d.plan.fits(t.kind(), time.Now(), 0) {
			d.limiter.Release(slot, limit.Outcome{})
			t.handBack()
			return
		}

		if !d.server.gate.isOpen() { // it may have been closed while there was no slot
			d.limiter.Release(slot, limit.Outcome{})
			d.setWaiting(t, giveUp)
			continue
		}

		if t.prefixes != nil {
			d.queue.markSent(t)
		}

		d.server.pool.start(attemptJob{epoch, t, slot})

		return
	}

	t.handBack()
}

// setWaiting sets the task that waits, and what ends its wait.
func (d *dispatcher) setWaiting(t *task, giveUp context.CancelFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting, d.giveUp = t, giveUp
}

// returnWaiting has the task that waits for a slot handed back, if there is one and late returns true.
func (d *dispatcher) returnWaiting(late func(*task) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()

	if d.waiting != nil && late(d.waiting) {
		d.giveUp()
	}
}
