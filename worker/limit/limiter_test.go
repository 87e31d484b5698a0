package limit

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestFixed(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		l := Fixed(2)
		if l.Limit() != 2 || Fixed(0).Limit() != 1 {
			t.Errorf("limits %d and %d, want 2 and 1", l.Limit(), Fixed(0).Limit())
		}

		var slot Slot
		for range 2 {
			var err error
			if slot, err = l.Acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()

		if _, err := l.Acquire(ctx); err == nil {
			t.Error("a third slot of two")
		}

		time.AfterFunc(time.Second, func() { l.Release(slot, Outcome{Overload: true}) })
		if _, err := l.Acquire(t.Context()); err != nil {
			t.Errorf("no slot after Release: %v", err)
		}

		l.Observe(Gauges{Running: 2, Waiting: 10})
		if l.Limit() != 2 || l.InFlight() != 2 {
			t.Errorf("limit %d, %d in flight", l.Limit(), l.InFlight())
		}
	})
}

// Every waiter gets a slot, however the slots become free.
func TestAcquireMany(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		l := Fixed(3)
		const n = 100
		done := make(chan struct{}, n)
		for range n {
			go func() {
				slot, err := l.Acquire(t.Context())
				if err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
				l.Release(slot, Outcome{Work: 1})
				done <- struct{}{}
			}()
		}

		begin := time.Now()
		for range n {
			<-done
		}

		if took := time.Since(begin); took != 34*time.Second || l.InFlight() != 0 {
			t.Errorf("100 seconds of work in 3 slots took %v; %d in flight", took, l.InFlight())
		}
	})
}

// A server that reports its slots gets that many requests, and one that waits there.
func TestSetSlots(t *testing.T) {
	t.Parallel()

	l := New(Config{})
	l.SetSlots(4)
	if got := l.Limit(); got != 5 {
		t.Errorf("limit %d for 4 slots, want 5", got)
	}

	l.SetSlots(0) // unknown
	if got := l.Limit(); got != 5 {
		t.Errorf("limit %d", got)
	}

	fixed := Fixed(3)
	fixed.SetSlots(8)
	if got := fixed.Limit(); got != 3 {
		t.Errorf("a fixed limit of 3 became %d", got)
	}
}

// The slots of one of several servers bound nothing, whether they were set before or after that
// is known.
func TestSetSlotsIgnored(t *testing.T) {
	t.Parallel()

	l := New(Config{})
	l.SetSlots(4)
	l.IgnoreGauges()
	l.SetSlots(4)
	if l.Limit() < 8 || l.win.top != DefaultMax {
		t.Errorf("limit %d, at most %d", l.Limit(), l.win.top)
	}
}

// Without enough requests to fill it, the limit stays.
func TestNoDemand(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		l := New(Config{})
		for range 1000 {
			slot, err := l.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}

			time.Sleep(100 * time.Millisecond)
			l.Observe(Gauges{Running: 1, KVUsage: -1, Tokens: -1})
			l.Release(slot, Outcome{Work: 100})
		}

		if got := l.Limit(); got != 8 {
			t.Errorf("limit %d with one request at a time, want 8", got)
		}
	})
}

// A process that cannot have more connections lowers the limit for good, a fixed one too.
func TestLower(t *testing.T) {
	t.Parallel()

	for _, l := range []*Limiter{Fixed(200), New(Config{Start: 200})} {
		synctest.Test(t, func(t *testing.T) {
			l.lowered, l.win.updated = time.Time{}, time.Now()
			for range 40 {
				if _, err := l.Acquire(t.Context()); err != nil {
					t.Fatal(err)
				}
			}

			if !l.Lower() || l.Limit() != 30 {
				t.Errorf("limit %d, want 30: three quarters of 40 and one", l.Limit())
			}

			if l.Lower() { // others notice the same at the same time
				t.Errorf("limit %d after a second call", l.Limit())
			}

			time.Sleep(time.Second)
			l.SetSlots(100)
			l.Observe(Gauges{Running: 30})

			if l.Limit() != 30 {
				t.Errorf("limit %d after a while", l.Limit())
			}

			for range 10 {
				time.Sleep(time.Second)
				l.Lower()
			}

			if l.Limit() < 1 {
				t.Errorf("limit %d", l.Limit())
			}
		})
	}
}

// Gauges that are ignored move nothing, and their effects are dropped.
func TestIgnoreGauges(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Start: 8})
		for range 8 {
			if _, err := l.Acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}

		queue := Gauges{Running: 2, Waiting: 40, KVUsage: -1, Tokens: -1}
		for range 8 {
			time.Sleep(500 * time.Millisecond)
			l.Observe(queue)
		}

		if got := l.Limit(); got >= 8 {
			t.Fatalf("limit %d with a queue of 40; the test needs one that is lower than 8", got)
		}

		l.IgnoreGauges()
		if got := l.Limit(); got != 8 {
			t.Errorf("limit %d after IgnoreGauges, want 8", got)
		}

		for range 8 {
			time.Sleep(500 * time.Millisecond)
			l.Observe(queue)
		}

		if got := l.Limit(); got != 8 {
			t.Errorf("limit %d after gauges that are ignored, want 8", got)
		}

		fixed := Fixed(3)
		fixed.IgnoreGauges()
		if got := fixed.Limit(); got != 3 {
			t.Errorf("a fixed limit of 3 became %d", got)
		}
	})
}
