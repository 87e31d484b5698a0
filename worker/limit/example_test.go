package limit_test

import (
	"context"
	"fmt"

	"github.com/promptmill/promptmill/worker/limit"
)

// A client takes a slot before each request, and returns it with the server's output.
func ExampleLimiter() {
	limiter := limit.New(limit.Config{Start: 4, Max: 64})

	slot, err := limiter.Acquire(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println("in flight:", limiter.InFlight(), "of", limiter.Limit())

	tokens := 120.0 // of the answer
	limiter.Release(slot, limit.Outcome{Work: tokens})
	fmt.Println("in flight:", limiter.InFlight(), "of", limiter.Limit())

	// Output:
	// in flight: 1 of 4
	// in flight: 0 of 4
}

// A server that reports its slots gets that many requests, and one more that waits there.
func ExampleLimiter_SetSlots() {
	limiter := limit.New(limit.Config{})
	limiter.SetSlots(16)
	fmt.Println(limiter.Limit())
	// Output: 17
}

// The gauges of a server move the limit: here it is idle, and takes more at once.
func ExampleLimiter_Observe() {
	limiter := limit.New(limit.Config{Start: 2})
	for range 2 {
		if _, err := limiter.Acquire(context.Background()); err != nil {
			fmt.Println(err)
		}
	}

	limiter.Observe(limit.Gauges{Running: 2, Waiting: 0, KVUsage: 0.1, Tokens: 900})
	fmt.Println(limiter.Limit())
	// Output: 4
}

// A fixed limiter is a semaphore.
func ExampleFixed() {
	fmt.Println(limit.Fixed(32).Limit())
	// Output: 32
}
