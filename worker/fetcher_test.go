package worker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// Runs of equal priority have about equal shares of the slots, whatever the size of
// their shards.
func TestRunsShareSlots(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		r, s uint32 // sizes of the shards
	}{
		{r: 8, s: 8},
		{r: 1, s: 1},
		{r: 1, s: 32},
	} {
		t.Run(fmt.Sprintf("shards of %d and %d", tt.r, tt.s), func(t *testing.T) {
			t.Parallel()

			const n = 320
			l := newLedger(sim.New(sim.Config{TTFT: 100 * time.Millisecond}))
			b := newTestBed(t, startServer(t, l))
			b.cfg.Limiter = limit.Fixed(16)

			for run, size := range map[string]uint32{"r": tt.r, "s": tt.s} {
				m := b.createStreams(run, 0, "m")
				b.publishRange(run, "m", 0, n, size)
				b.createRun(m)
			}

			w, stop := b.startWorker()
			b.awaitRun("r")
			b.awaitRun("s")
			stop()
			b.checkIdle(w)

			for _, run := range []string{"r", "s"} {
				b.checkLines(run, n)
				l.checkOnce(t, run, n)
			}

			share := float64(countCalls("r", l.calls()[:n])) / n
			if share < 0.4 || share > 0.6 {
				t.Errorf("one of two runs has a share of %.2f", share)
			}
		})
	}
}

// The requests of an urgent run go before those of a run that is in progress, except for the
// requests that the worker held at that moment.
func TestHigherPriorityFirst(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		size uint32 // of the urgent shards
	}{
		{size: 32},
		{size: 1},
	} {
		t.Run(fmt.Sprintf("shards of %d", tt.size), func(t *testing.T) {
			t.Parallel()

			const slots, n = 4, 96
			l := newGate(sim.New(sim.Config{TTFT: undoubtedTime}))
			b := newTestBed(t, startServer(t, l))
			b.cfg.Limiter = limit.Fixed(slots)
			b.longPull = patience / 4 // however slow this machine is
			b.addRun("low", 0, "m")
			b.publishRange("low", "m", 0, n, 8)
			urgent := b.createStreams("high", 1, "m")
			b.publishRange("high", "m", 0, n, tt.size)
			w, stop := b.startWorker()

			for range 10 { // the run of low priority continues
				l.gate <- struct{}{}
			}

			b.createRun(urgent)
			b.awaitKnown(w, "high")
			close(l.gate)
			b.awaitRun("high")
			b.awaitRun("low")
			stop()
			b.checkIdle(w)

			for _, run := range []string{"low", "high"} {
				b.checkLines(run, n)
				l.checkOnce(t, run, n)
			}

			checkBlock(t, l.calls(), slots)
		})
	}
}

// checkBlock checks that the requests of the run "high" began one after the other,
// with others before and after. Those at the edges get their slots at the same time, and so arrive
// in any order.
func checkBlock(t *testing.T, calls []call, slots int) {
	t.Helper()

	first, last := -1, -1
	for i, c := range calls {
		if c.run != "high" {
			continue
		}

		if first < 0 {
			first = i
		}

		last = i
	}

	if between := countCalls("low", calls[first:last]); between > 2*slots {
		t.Errorf("%d requests of low priority begin among those of high priority", between)
	}

	if first == 0 || last == len(calls)-1 {
		t.Errorf("the urgent requests are the %dth to the %dth of %d", first+1, last+1, len(calls))
	}
}

// A worker holds as many requests as its slots need, a little more, and the rest of a shard:
// other workers cannot run the requests that it hoards.
func TestWorkerDoesNotHoard(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		slots  int
		size   uint32
		enough int64 // requests done, so that it pulled again at least twice
	}{{4, 32, 65}, {1, 8, 20}} {
		t.Run(fmt.Sprintf("%d slots and shards of %d", tt.slots, tt.size), func(t *testing.T) {
			t.Parallel()

			// So slow that one request is held ahead, or two after a hiccup, which would
			// still come to the same bound.
			b := newTestBed(t, startServer(t, sim.New(sim.Config{Slots: 1, TTFT: 40 * time.Millisecond})))
			b.cfg.Limiter = limit.Fixed(tt.slots)
			b.cfg.Grace = time.Millisecond
			m := b.createStreams("r", 0, "m")
			b.publishRange("r", "m", 0, 20*tt.size, tt.size)
			b.createRun(m)
			w, _ := b.startWorker()
			most := int64(0)
			prototest.Poll(t, patience, "some of the requests to be done", func() bool {
				most = max(most, w.jobs.held.load())
				return w.stats.Done.Load() >= tt.enough
			})

			if bound := int64(tt.slots + 1 + int(tt.size)); most > bound || most < int64(tt.size) {
				t.Errorf("%d requests held at once, want %d to %d", most, tt.size, bound)
			}
		})
	}
}

// After small shards a worker does not pull many that may be large.
func TestWorkerDoesNotHoardLargerShards(t *testing.T) {
	t.Parallel()

	l := newGate(sim.New(sim.Config{}))
	b := newTestBed(t, startServer(t, l))
	b.cfg.Limiter, b.cfg.Grace = limit.Fixed(16), time.Millisecond
	m := b.createStreams("r", 0, "m")
	m.Settings.ShardSize = 32
	b.publishRange("r", "m", 0, 1, 1)
	b.publishRange("r", "m", 1, 641, 32)
	b.createRun(m)
	w, _ := b.startWorker()
	prototest.Poll(t, patience, "the slots to be full", func() bool { return l.countRun("r") == 16 })
	if most := int64(1 + 4*32); w.jobs.held.load() > most {
		t.Errorf("%d requests held, want at most %d", w.jobs.held.load(), most)
	}
}

// The context of requests ends with their epoch, and with their run.
func TestRequestsIn(t *testing.T) {
	t.Parallel()

	requests, cancel := context.WithCancel(t.Context())
	run := &activeRun{requests: requests}
	first, end := context.WithCancel(t.Context())
	second, endSecond := context.WithCancel(t.Context())
	defer endSecond()

	a := run.requestsIn(first)
	if run.requestsIn(first) != a {
		t.Error("a second request of the epoch has another parent")
	}

	end()
	<-a.Done()

	b := run.requestsIn(second)
	if err := b.Err(); err != nil {
		t.Fatalf("in the next epoch: %v", err)
	}

	cancel()
	<-b.Done()
}
