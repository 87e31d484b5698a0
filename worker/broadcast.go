package worker

import (
	"context"
	"sync"
	"time"
)

// broadcast wakes all goroutines that wait for a change. The zero value is ready for use.
type broadcast struct {
	mu   sync.Mutex
	next chan struct{} // closed by the next notify; nil: nothing waits
}

// changed returns a channel that the next call of notify closes. Get it before you read the
// state that may change.
func (b *broadcast) changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.next == nil {
		b.next = make(chan struct{})
	}

	return b.next
}

// notify wakes all that wait.
func (b *broadcast) notify() {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// await waits until there is work: until hasWork returns true, which is called after each change.
// Then it waits for the next change, or for the time of every, since the work may depend on the
// time. It returns false if ctx ends.
func (b *broadcast) await(ctx context.Context, every time.Duration, hasWork func() bool) bool {
	changed := b.changed()
	for !hasWork() {
		select {
		case <-changed:
			changed = b.changed()
		case <-ctx.Done():
			return false
		}
	}

	timer := time.NewTimer(every)
	defer timer.Stop()

	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
	}

	return ctx.Err() == nil
}
