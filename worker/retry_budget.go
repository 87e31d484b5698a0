package worker

import (
	"maps"
	"sync"
	"time"
)

// A broken server must not get a multiple of the load: each answer pays for one retry, and
// without a paid one retries are slow. So a fault rate of a half costs no time, and a server that
// fails everything is asked about once a second, instead of failing a whole run within minutes.
const (
	// retryBudgetMax is the number of retries that can be saved up.
	retryBudgetMax = 200
	// unpaidRetryPace is the time between retries that no answer paid for.
	unpaidRetryPace = time.Second
	// failingServerWait is the wait for a retry from which on the server is logged as failing.
	failingServerWait = 30 * time.Second
)

// retryBudget is the number of retries that a run may make at a server. The zero value is full.
type retryBudget struct {
	spent float64 // of retryBudgetMax
	// nextUnpaid is the due time of the latest retry that no answer paid for.
	nextUnpaid time.Time
}

// Deposit pays for one more retry.
func (b *retryBudget) Deposit() { b.spent = max(0, b.spent-1) }

// Withdraw takes one retry, and returns how long it must wait: 0 while there are paid ones.
func (b *retryBudget) Withdraw(now time.Time) time.Duration {
	if b.spent+1 <= retryBudgetMax {
		b.spent++
		return 0
	}

	if b.nextUnpaid.Before(now) {
		b.nextUnpaid = now
	}

	b.nextUnpaid = b.nextUnpaid.Add(unpaidRetryPace)

	return b.nextUnpaid.Sub(now)
}

// retryBudgets holds the budget of each run that has made retries.
type retryBudgets struct {
	mu   sync.Mutex
	runs map[string]*retryBudget
}

// Deposit pays for one more retry of a run. Each answer calls it.
func (b *retryBudgets) Deposit(run string) {
	b.mu.Lock()
	defer b.mu.Unlock()

	if budget := b.runs[run]; budget != nil { // a run without one has a full budget
		budget.Deposit()
	}
}

// Withdraw takes one retry of a run, and returns how long it must wait.
func (b *retryBudgets) Withdraw(run string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.runs[run] == nil {
		if b.runs == nil {
			b.runs = map[string]*retryBudget{}
		}
		b.runs[run] = &retryBudget{}
	}

	return b.runs[run].Withdraw(now)
}

// retain drops the budgets of the runs for which wanted returns false.
func (b *retryBudgets) retain(wanted func(run string) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.runs, func(run string, _ *retryBudget) bool { return !wanted(run) })
}
