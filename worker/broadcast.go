package worker

import "sync"

// broadcast wakes all goroutines that wait for a change. The zero value is ready for use.
type broadcast struct {
	mu   sync.Mutex
	next chan struct{} // closed by the next notify; nil: nothing waits
}

// changed returns a channel that the next call of notify closes. Get it before you look at what
// may change.
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
