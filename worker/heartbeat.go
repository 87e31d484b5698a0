package worker

import (
	"sync"
	"time"

	"github.com/promptmill/promptmill/proto/bus"
)

// heartbeat keeps a shard with its worker: it extends the ack wait again and again,
// whatever the worker does meanwhile. Large objects take minutes over a thin line.
type heartbeat struct {
	// mu guards the fields below.
	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

// startHeartbeat calls extend three times in each ack wait, until stop.
func startHeartbeat(extend func() error) *heartbeat {
	h := &heartbeat{}
	h.mu.Lock()
	defer h.mu.Unlock()

	h.timer = time.AfterFunc(bus.AckWait/3, func() {
		h.mu.Lock()
		defer h.mu.Unlock()

		if !h.stopped {
			extend() // fails while the connection is away; the next call may succeed
			h.timer.Reset(bus.AckWait / 3)
		}
	})

	return h
}

// stop ends the heartbeat. After stop has returned, extend is not called any more.
func (h *heartbeat) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()

	h.stopped = true
	h.timer.Stop()
}
