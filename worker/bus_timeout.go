package worker

import (
	"context"
	"time"
)

// busTimeout bounds one call of the bus.
const busTimeout = 10 * time.Second

// withTimeout makes a call of the bus that returns a value, with a deadline.
func withTimeout[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	return call(ctx)
}

// callWithTimeout makes a call of the bus that returns no value, with a deadline.
func callWithTimeout(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	return call(ctx)
}
