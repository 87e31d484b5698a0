package sim

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// keepRunning keeps n requests of an engine running, each followed by another, until the
// returned stop is called.
func keepRunning(ctx context.Context, e *Engine, n, prompt, completion int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var clients sync.WaitGroup
	for range n {
		clients.Go(func() {
			for ctx.Err() == nil {
				e.Run(ctx, prompt, completion)
			}
		})
	}

	return func() { cancel(); clients.Wait() }
}

// tokensPerSecond returns the tokens per second of an engine for a while.
func tokensPerSecond(e *Engine, while time.Duration) float64 {
	before := e.Load().Tokens
	time.Sleep(while)
	return float64(e.Load().Tokens-before) / while.Seconds()
}

func checkNear(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if math.Abs(got-want) > within*want {
		t.Errorf("%s is %g, want %g", what, got, want)
	}
}

func TestRunTakesItsTimeToTheNanosecond(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		e := NewEngine(EngineConfig{TTFT: time.Second, TPOT: 100 * time.Millisecond})
		var clients sync.WaitGroup
		for i := range 20 { // they do not disturb each other
			clients.Go(func() {
				time.Sleep(time.Duration(i) * 33 * time.Millisecond)
				begin := time.Now()

				if err := e.Run(t.Context(), 1, 11); err != nil {
					t.Error(err)
				}

				if got := time.Since(begin); got != 2*time.Second {
					t.Errorf("1 s and 10 tokens of 100 ms take %v", got)
				}
			})
		}

		clients.Wait()
	})
}

func TestLoadCountsTokensAsTheyCome(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		e := NewEngine(EngineConfig{Slots: 1, TTFT: time.Second, TPOT: 100 * time.Millisecond, KV: 1000})
		done := make(chan error, 2)
		for range 2 {
			go func() { done <- e.Run(t.Context(), 90, 10) }()
		}

		synctest.Wait()
		for _, tt := range []struct {
			name string
			wait time.Duration
			want Load
		}{
			{"prefill", 999 * time.Millisecond, Load{Running: 1, Waiting: 1, KVUsage: 0.091}},
			{"the first token", time.Millisecond, Load{
				Running:      1,
				Waiting:      1,
				KVUsage:      0.091,
				PromptTokens: 90,
				Tokens:       1,
			}},
			{"the fourth token", 350 * time.Millisecond, Load{
				Running:      1,
				Waiting:      1,
				KVUsage:      0.094,
				PromptTokens: 90,
				Tokens:       4,
			}},
			{"the second's prefill", 600 * time.Millisecond, Load{
				Running:      1,
				KVUsage:      0.091,
				PromptTokens: 90,
				Tokens:       10,
			}},
			{"the end", 2 * time.Second, Load{PromptTokens: 180, Tokens: 20}},
		} {
			time.Sleep(tt.wait)
			if diff := cmp.Diff(tt.want, e.Load()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.name, diff)
			}
		}

		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestTokensPerSecondRiseToTheKnee(t *testing.T) {
	t.Parallel()

	cfg := EngineConfig{Slots: 1024, Knee: 100, TTFT: 20 * time.Millisecond, TPOT: 20 * time.Millisecond}
	thrashing := cfg
	thrashing.Thrash = 0.3

	for _, tt := range []struct {
		name    string
		cfg     EngineConfig
		running int
		want    float64 // tokens/s; one alone has 50
	}{
		{"one", cfg, 1, 50},
		{"half of the knee", cfg, 50, 2500},
		{"the knee", cfg, 100, 5000},
		{"twice the knee", cfg, 200, 5000},
		{"eight times the knee", cfg, 800, 5000},
		{"the knee, before it thrashes", thrashing, 100, 5000},
		{"twice the knee, thrashing", thrashing, 200, 3500},
		{"three times the knee, thrashing", thrashing, 300, 2450},
		{"no knee", EngineConfig{Slots: 300, TTFT: 20 * time.Millisecond, TPOT: 20 * time.Millisecond}, 400, 15000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				e := NewEngine(tt.cfg)
				stop := keepRunning(t.Context(), e, tt.running, 100, 100)
				defer stop()
				time.Sleep(time.Second)
				checkNear(t, "rate", tokensPerSecond(e, time.Minute), tt.want, 0.01)
			})
		})
	}
}

func TestTheNewestIsPreemptedWhenTheCacheIsFull(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		// Two fit with 50 tokens each of their 100.
		e := NewEngine(EngineConfig{TPOT: 10 * time.Millisecond, KV: 300})
		begin := time.Now()
		var mu sync.Mutex
		ends := map[string]time.Duration{}
		var clients sync.WaitGroup
		for _, name := range []string{"older", "newer", "third"} {
			clients.Go(func() {
				if err := e.Run(t.Context(), 100, 100); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				mu.Lock()
				defer mu.Unlock()
				ends[name] = time.Since(begin).Round(100 * time.Millisecond)
			})

			synctest.Wait()
		}

		time.Sleep(400 * time.Millisecond)
		if got := e.Load(); got.Running != 2 || got.Waiting != 1 || got.Preemptions != 0 {
			t.Errorf("before the cache is full: %+v", got)
		}

		clients.Wait()
		got := e.Load()

		if ends["older"] != time.Second || ends["newer"] <= time.Second || ends["third"] <= ends["newer"] {
			t.Errorf("ends %v: want the older undisturbed, and the preempted before the third", ends)
		}

		if got.Preemptions == 0 || got.Tokens <= 300 || got.Running != 0 || got.KVUsage != 0 {
			t.Errorf("%+v: want preemptions, and their tokens counted on top of 300", got)
		}
	})
}

func TestPreemptionCostsTokensPerSecond(t *testing.T) {
	t.Parallel()

	// Useful tokens of as many clients as fit, and of too many.
	useful := func(clients int) (rate float64, preemptions int64) {
		synctest.Test(t, func(t *testing.T) {
			e := NewEngine(EngineConfig{
				Slots: 256,
				Knee:  32,
				TTFT:  200 * time.Millisecond,
				TPOT:  20 * time.Millisecond,
				KV:    32 * 600,
			})

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()

			var done int
			var mu sync.Mutex
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for e.Run(ctx, 200, 400) == nil {
						mu.Lock()
						done += 400
						mu.Unlock()
					}
				})
			}

			time.Sleep(5 * time.Minute)
			cancel()
			all.Wait()
			rate, preemptions = float64(done)/300, e.Load().Preemptions
		})

		return rate, preemptions
	}

	fit, none := useful(32)
	crowded, many := useful(200)
	if none != 0 || many == 0 || crowded > 0.95*fit {
		t.Errorf("32 clients: %g tokens/s, %d preemptions; 200 clients: %g, %d", fit, none, crowded, many)
	}
}

func TestQueueIsBounded(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		e := NewEngine(EngineConfig{Slots: 2, Queue: 3, TTFT: time.Second})
		errs := make(chan error, 10)
		for range 10 {
			go func() { errs <- e.Run(t.Context(), 1, 1) }()
		}

		synctest.Wait()
		if got := e.Load(); got.Running != 2 || got.Waiting != 3 {
			t.Errorf("%+v", got)
		}

		busy := 0
		for range 10 {
			if errors.Is(<-errs, ErrBusy) {
				busy++
			}
		}

		if busy != 5 {
			t.Errorf("%d of 10 are refused, want 5", busy)
		}
	})
}

func TestClientsLeave(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		e := NewEngine(EngineConfig{Slots: 1, TTFT: time.Second, TPOT: time.Second})
		left := errors.New("left")
		type client struct {
			cancel context.CancelCauseFunc
			err    chan error
		}

		enter := func() client {
			ctx, cancel := context.WithCancelCause(t.Context())
			c := client{cancel, make(chan error, 1)}
			go func() { c.err <- e.Run(ctx, 1, 10) }()
			synctest.Wait()
			return c
		}

		running, waiting, last := enter(), enter(), enter()
		defer last.cancel(nil)

		time.Sleep(2500 * time.Millisecond)
		waiting.cancel(left)
		running.cancel(left)

		if err := <-waiting.err; !errors.Is(err, left) {
			t.Errorf("the waiting request: %v", err)
		}

		if err := <-running.err; !errors.Is(err, left) {
			t.Errorf("the running request: %v", err)
		}

		if diff := cmp.Diff(Load{Running: 1, KVUsage: 0.5, PromptTokens: 1, Tokens: 2}, e.Load()); diff != "" {
			t.Errorf("load (-want +got):\n%s", diff)
		}

		begin := time.Now()
		if err := <-last.err; err != nil || time.Since(begin) != 10*time.Second {
			t.Errorf("the last request: %v after %v", err, time.Since(begin))
		}

		last.cancel(left)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(left)
		if err := e.Run(ctx, 1, 1); !errors.Is(err, left) {
			t.Errorf("a client that left before: %v", err)
		}
	})
}

func TestTooLongForTheCache(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		e := NewEngine(EngineConfig{TPOT: 10 * time.Millisecond, KV: 100})
		if err := e.Run(t.Context(), 50, 51); !errors.Is(err, ErrTooLong) {
			t.Errorf("101 of 100 tokens: %v", err)
		}

		errs := make(chan error, 1)
		go func() { errs <- e.Run(t.Context(), 50, 50) }()
		time.Sleep(200 * time.Millisecond)
		e.Set(func(c *EngineConfig) { c.KV = 60 })
		if err := <-errs; !errors.Is(err, ErrTooLong) {
			t.Errorf("when the cache has shrunk: %v", err)
		}
	})
}

func TestSetChangesRunningRequests(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		after  time.Duration // of 1 s and 10 tokens of 100 ms
		change func(*EngineConfig)
		want   time.Duration
	}{
		{"slower, in the middle of the tokens", 1500 * time.Millisecond,
			func(c *EngineConfig) { c.TTFT *= 2; c.TPOT *= 2 }, 2500 * time.Millisecond},
		{"faster, in the middle of the prefill", 500 * time.Millisecond,
			func(c *EngineConfig) { c.TTFT /= 2; c.TPOT /= 2 }, 1250 * time.Millisecond},
		{"at once", 1500 * time.Millisecond, func(c *EngineConfig) { c.TTFT, c.TPOT = 0, 0 }, 1500 * time.Millisecond},
		{"fewer slots", time.Second, func(c *EngineConfig) { c.Slots = 1 }, 2 * time.Second},
		{"a knee", time.Second, func(c *EngineConfig) { c.Knee = 1 }, 3 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				e := NewEngine(EngineConfig{TTFT: time.Second, TPOT: 100 * time.Millisecond})
				begin := time.Now()

				var clients sync.WaitGroup
				for range 2 {
					clients.Go(func() {
						if err := e.Run(t.Context(), 1, 11); err != nil {
							t.Error(err)
						}
					})
				}

				time.Sleep(tt.after)
				before := e.Load().Tokens
				e.Set(tt.change)
				if after := e.Load().Tokens; tt.name != "at once" && after != before {
					t.Errorf("%d tokens before, %d after", before, after)
				}

				clients.Wait()
				checkNear(t, "end", time.Since(begin).Seconds(), tt.want.Seconds(), 1e-6)
			})
		})
	}
}

func TestMoreSlotsAdmitTheWaiting(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		e := NewEngine(EngineConfig{Slots: 1, TTFT: time.Second})
		stop := keepRunning(t.Context(), e, 8, 1, 1)
		defer stop()

		synctest.Wait()
		e.Set(func(c *EngineConfig) { c.Slots = 5 })

		if got := e.Load(); got.Running != 5 || got.Waiting != 3 {
			t.Errorf("%+v", got)
		}
	})
}

func TestThousandsOnAFullCache(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		e := NewEngine(EngineConfig{
			Slots: 4096,
			Knee:  512,
			TTFT:  200 * time.Millisecond,
			TPOT:  20 * time.Millisecond,
			KV:    2000 * 400,
		})

		stop := keepRunning(t.Context(), e, 4000, 200, 400)
		time.Sleep(30 * time.Second)

		var before Load
		for range 30 {
			time.Sleep(time.Second)

			now := e.Load()
			if now.Running < 1000 || now.Running+now.Waiting != 4000 || now.KVUsage < 0.9 {
				t.Errorf("%+v", now)
			}

			if now.Tokens < before.Tokens || now.Preemptions < before.Preemptions {
				t.Errorf("%+v after %+v", now, before)
			}

			before = now
		}

		stop()
		if got := e.Load(); got.Running != 0 || got.Waiting != 0 || got.Tokens < 1_000_000 || got.Preemptions == 0 {
			t.Errorf("at the end: %+v", got)
		}
	})
}
