package worker

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/sim"
)

// The latencies of the server count from the first reading, go on after its restart, and begin
// again at another server's buckets.
func TestServerLatency(t *testing.T) {
	t.Parallel()

	var l serverLatency
	if got := l.snapshot(); got != nil {
		t.Errorf("before any reading: %+v", got)
	}

	read := func(sum float64, counts ...int64) {
		l.observe(modelserver.Load{FirstToken: &proto.Histogram{Bounds: []float64{0.1, 1}, Counts: counts, Sum: sum}})
	}
	check := func(what string, sum float64, counts ...int64) {
		t.Helper()
		want := &proto.ServerLatency{TimeToFirstToken: &proto.Histogram{
			Bounds: []float64{0.1, 1},
			Counts: counts,
			Sum:    sum,
		}}
		if diff := cmp.Diff(want, l.snapshot()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", what, diff)
		}
	}

	read(5, 10, 4, 1)
	check("what was before the worker", 0, 0, 0, 0)
	read(7, 12, 4, 2)
	check("three more", 2, 2, 0, 1)
	l.observe(modelserver.Load{}) // a page without it
	read(0.5, 1, 1, 0)
	check("a server that was restarted", 2.5, 3, 1, 1)
	read(1.5, 1, 3, 0)
	check("and goes on", 3.5, 3, 3, 1)

	l.observe(modelserver.Load{FirstToken: &proto.Histogram{Bounds: []float64{2}, Counts: []int64{9, 9}, Sum: 9}})
	if got := l.snapshot().TimeToFirstToken; got.Sum != 0 || len(got.Counts) != 2 || got.Counts[0] != 0 {
		t.Errorf("with other buckets: %+v", got)
	}

	l.forget()
	if got := l.snapshot(); got != nil {
		t.Errorf("of several servers: %+v", got)
	}
}

// The worker announces what a vLLM has measured of its requests, also of the last ones, and nothing
// of those before it.
func TestServerLatencyOfAWorker(t *testing.T) {
	t.Parallel()

	const n, tokens = 6, 5
	server := sim.New(sim.Config{TTFT: 60 * time.Millisecond, TPOT: 20 * time.Millisecond})
	url := startServer(t, server)

	earlier := newRunBed(t, url)
	earlier.publishRange("r", "m", 0, n, n)
	w, stop := earlier.startWorker()
	earlier.finishRun(w, stop, n)

	b := newRunBed(t, url)
	requests := chatRequests(0, n-1)
	for i := range requests {
		requests[i].Body = []byte(`{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"r question 1"}]}`)
	}

	// Requests that end before its first reading are none of the worker's.
	w, _ = b.startWorker()
	prototest.Poll(t, patience, "the first reading", func() bool { return w.server.load.measured.snapshot() != nil })
	b.publishShard("0-0", requests...)

	count := func(h *proto.Histogram) (total int64) {
		for _, c := range h.Counts {
			total += c
		}
		return total
	}

	var got *proto.ServerLatency
	prototest.Poll(t, patience, "the latencies of all requests", func() bool {
		got = w.server.load.measured.snapshot()
		return got != nil && count(got.TimePerOutputToken) == n*(tokens-1)
	})

	if source := got.TimeToFirstToken.Source; source != "vllm:time_to_first_token_seconds" {
		t.Errorf("the time to the first token is of %q", source)
	}

	if c, mean := count(got.TimeToFirstToken), got.TimeToFirstToken.Sum/n; c != n || mean < 0.06 {
		t.Errorf("%d first tokens after %g s in the mean, want %d and 0.06 s", c, mean, n)
	}

	if mean := got.TimePerOutputToken.Sum / (n * (tokens - 1)); mean < 0.0199 || mean > 0.0201 {
		t.Errorf("a further token takes %g s, want 0.02 s", mean)
	}
}
