package worker

import (
	"sync"
	"time"
)

// A broken server must not get a multiple of the load: each answer that it gives pays
// for one further attempt, and beyond that attempts come slowly. So a fault rate of a
// half costs no time, and a server that fails everything is asked about once a second,
// instead of failing a whole run within minutes.
const (
	budgetMost     = 200         // attempts that may be saved up
	budgetPace     = time.Second // between attempts that nothing pays for
	budgetPatience = 30 * time.Second
)

// retryBudget is how many further attempts a run may make at a server.
type retryBudget struct {
	mu    sync.Mutex
	spent float64   // of budgetMost
	next  time.Time // of an attempt that nothing pays for
}

// Deposit pays for one more attempt.
func (b *retryBudget) Deposit() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(0, b.spent-1)
}

// Withdraw takes one attempt, and returns how long it must wait: 0 while there are some.
func (b *retryBudget) Withdraw(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.spent+1 <= budgetMost {
		b.spent++
		return 0
	}

	if b.next.Before(now) {
		b.next = now
	}

	b.next = b.next.Add(budgetPace)

	return b.next.Sub(now)
}
