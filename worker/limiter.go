package worker

import "context"

// Limiter decides how many requests are at the model server at once.
type Limiter interface {
	// Acquire waits for a slot. It fails only when ctx ends.
	Acquire(ctx context.Context) error
	// Release gives a slot back.
	Release()
	// Limit is the number of slots as it is now. The worker holds a little more work
	// than that, so that a slot never waits for the bus.
	Limit() int
}

// FixedLimit is a limiter of a fixed number of slots.
type FixedLimit struct{ slots chan struct{} }

var _ Limiter = FixedLimit{}

// NewFixedLimit returns a limiter of n slots, at least one.
func NewFixedLimit(n int) FixedLimit { return FixedLimit{make(chan struct{}, max(1, n))} }

// Acquire waits for a slot.
func (l FixedLimit) Acquire(ctx context.Context) error {
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Release gives a slot back.
func (l FixedLimit) Release() { <-l.slots }

// Limit is the number of slots.
func (l FixedLimit) Limit() int { return cap(l.slots) }
