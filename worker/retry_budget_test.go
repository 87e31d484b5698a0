package worker

import (
	"testing"
	"time"
)

// Retries cost no time while they are paid for; then each waits a second longer than the last.
func TestRetryBudget(t *testing.T) {
	t.Parallel()

	var b retryBudgets
	now := time.Now()
	for i := range retryBudgetMax {
		if wait := b.Withdraw("a", now); wait != 0 {
			t.Fatalf("retry %d waits %v", i, wait)
		}
	}

	for i := range 3 {
		if got, want := b.Withdraw("a", now), time.Duration(i+1)*unpaidRetryPace; got != want {
			t.Errorf("unpaid retry %d waits %v, want %v", i, got, want)
		}
	}

	if wait := b.Withdraw("b", now); wait != 0 {
		t.Errorf("a retry of another run waits %v", wait)
	}

	b.Deposit("a")
	if wait := b.Withdraw("a", now); wait != 0 {
		t.Errorf("a paid retry waits %v", wait)
	}

	now = now.Add(time.Hour)
	if got := b.Withdraw("a", now); got != unpaidRetryPace {
		t.Errorf("an unpaid retry after an hour waits %v, want %v", got, unpaidRetryPace)
	}

	b.retain(func(run string) bool { return run == "b" })
	if wait := b.Withdraw("a", now); wait != 0 {
		t.Errorf("a retry of a run that begins again waits %v", wait)
	}
}
