package objectstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// temporaryError is an error of a request that may succeed when it is tried again.
type temporaryError struct {
	// err is the error.
	err error
	// after is the least time until the next attempt, as the server has asked for.
	after time.Duration
}

// Error implements error.
func (e *temporaryError) Error() string { return e.err.Error() }

// Unwrap returns the error itself.
func (e *temporaryError) Unwrap() error { return e.err }

// retryPolicy says how often and after which waits a request is tried again.
type retryPolicy struct {
	// attempts is the number of attempts.
	attempts int
	// first is the longest wait before the second attempt; each later wait may be twice as long.
	first time.Duration
	// longest is the longest wait.
	longest time.Duration
}

// defaultRetryPolicy gives up after about two minutes, in which a store that throttles its clients or a
// gateway that restarts comes back.
var defaultRetryPolicy = retryPolicy{
	attempts: 10,
	first:    250 * time.Millisecond,
	longest:  30 * time.Second,
}

// retry calls attempt until it returns nil or an error that is not a [temporaryError], the attempts are used
// up, or ctx ends.
func (p retryPolicy) retry(ctx context.Context, attempt func() error) error {
	for n := 1; ; n++ {
		err := attempt()
		if _, temporary := errors.AsType[*temporaryError](err); !temporary || n >= p.attempts || ctx.Err() != nil {
			return err
		}

		if err := p.wait(ctx, n, err); err != nil {
			return err
		}
	}
}

// wait waits after the nth failed attempt: a random time, so that clients that failed together do not come
// back together, and as long as the server has asked for.
func (p retryPolicy) wait(ctx context.Context, n int, failure error) error {
	longest := p.longest
	if n < 16 {
		longest = min(longest, p.first<<(n-1))
	}

	pause := longest/2 + rand.N(longest/2+1)
	if temporary, ok := errors.AsType[*temporaryError](failure); ok {
		pause = max(pause, min(temporary.after, p.longest))
	}

	timer := time.NewTimer(pause)
	defer timer.Stop()

	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
