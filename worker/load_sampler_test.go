package worker

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// A reading has the most requests since the one before, however short they were, by run.
func TestLoadSampler(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var most atomic.Int64
		most.Store(5)
		s := newLoadSampler(func() int { return int(most.Load()) })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.run(ctx); close(done) }()

		start := time.Now().UTC()
		time.Sleep(sampleEvery / 2)

		s.begin("a")
		s.begin("b")
		s.begin("a")
		s.end("a")
		s.end("b")
		time.Sleep(sampleEvery) // a request of a stays
		most.Store(7)
		time.Sleep(sampleEvery)
		s.end("a")
		time.Sleep(2 * sampleEvery)
		cancel()
		<-done

		at := func(n int) time.Time { return start.Add(time.Duration(n) * sampleEvery) }
		want := []proto.LoadSample{
			{At: at(1), InFlight: 3, Limit: 5, Runs: map[string]int64{"a": 2, "b": 1}},
			{At: at(2), InFlight: 1, Limit: 7, Runs: map[string]int64{"a": 1}},
			{At: at(3), InFlight: 1, Limit: 7, Runs: map[string]int64{"a": 1}},
			{At: at(4), InFlight: 0, Limit: 7},
			{At: start.Add(9 * sampleEvery / 2), InFlight: 0, Limit: 7},
		}
		if diff := cmp.Diff(want, s.latest(time.Now())); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

// Readings are kept until an announcement that has them was stored, and repeated for a while.
func TestLoadSamplesOutliveABusThatIsAway(t *testing.T) {
	t.Parallel()

	s := newLoadSampler(func() int { return 1 })
	start := time.Unix(1000, 0)
	for i := range 60 {
		s.read(start.Add(time.Duration(i) * sampleEvery))
	}

	end := start.Add(60 * sampleEvery)
	if got := len(s.latest(end)); got != 61 {
		t.Errorf("%d readings wait, want 61", got)
	}

	s.noteStored(end)

	got := s.latest(end)
	if first := end.Add(-sampleOverlap); !got[0].At.Equal(first) || len(got) != 17 {
		t.Errorf("%d readings are repeated, from %v; want 17 from %v", len(got), got[0].At, first)
	}

	for i := range 10 * maxKeptSamples {
		s.read(end.Add(time.Duration(i) * sampleEvery))
	}

	if got := s.latest(end); len(got) != maxKeptSamples {
		t.Errorf("%d readings are kept, want %d", len(got), maxKeptSamples)
	}

	for range maxKeptRuns {
		s.begin(proto.NewWorkerID())
	}
	s.read(end)
	s.read(end)

	if got := s.latest(end); len(got) != 1 {
		t.Errorf("%d readings of many runs are kept, want 1", len(got))
	}
}

// The readings of a run that took less than a second are in the last report of the worker, and so
// is what ended while it stopped.
func TestLastReport(t *testing.T) {
	t.Parallel()

	const n = 6
	held := newGate(sim.New(sim.Config{}))
	b := newRunBed(t, startServer(t, held))
	b.cfg.Limiter = limit.Fixed(n)
	b.publishRange("r", "m", 0, n, n)
	w, stop := b.startWorker()

	prototest.Poll(t, patience, "all requests to be at the server", func() bool { return held.countRun("r") == n })

	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()

	prototest.Poll(t, patience, "the worker to be announced as one that stops", func() bool {
		list := b.announcedWorkers()
		return len(list) == 1 && !list[0].Ready && list[0].Problem == "stopping" && *list[0].Shards == 1
	})

	close(held.gate)
	<-stopped

	opened, err := bus.Open(t.Context(), b.js)
	if err != nil {
		t.Fatal(err)
	}

	workers, reports, err := opened.Heartbeats.Reports(t.Context())
	if err != nil || len(workers) != 0 || len(reports) != 1 {
		t.Fatalf("%d workers are announced, %d reports are left: %v", len(workers), len(reports), err)
	}

	last := reports[0]
	if last.ID != w.ID() || last.Runs["r"].Requests != n || last.InFlight != 0 || last.SentAt.IsZero() {
		t.Errorf("the last report is %+v", last)
	}

	isPeak := func(s proto.LoadSample) bool { return s.InFlight == n && s.Runs["r"] == n && s.Limit == n }
	if !slices.ContainsFunc(last.Samples, isPeak) {
		t.Errorf("no reading has %d requests in flight: %+v", n, last.Samples)
	}

	if end := last.Samples[len(last.Samples)-1]; !end.At.Equal(last.SentAt) {
		t.Errorf("the last reading is of %v, the report of %v", end.At, last.SentAt)
	}
}
