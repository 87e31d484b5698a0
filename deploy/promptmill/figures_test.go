package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/sim"
)

// truth is the log of model servers: what they did with each attempt.
type truth struct {
	mu        sync.Mutex
	exchanges []sim.Exchange
	questions map[string]string // by the id of the attempt
}

// newModel returns a model server with this log. Several may have one.
func (l *truth) newModel(t *testing.T, cfg sim.Config) *model {
	cfg.OnExchange = func(x sim.Exchange) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.exchanges = append(l.exchanges, x)
	}

	m := newModel(t, cfg)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			l.noteQuestion(r)
		}
		m.sim.ServeHTTP(w, r)
	}))

	t.Cleanup(s.Close)
	m.url = s.URL

	return m
}

// noteQuestion notes which request an attempt is of.
func (l *truth) noteQuestion(r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}

	r.Body = io.NopCloser(bytes.NewReader(body))

	l.mu.Lock()
	defer l.mu.Unlock()

	if l.questions == nil {
		l.questions = map[string]string{}
	}
	if found := contentOf.FindSubmatch(body); found != nil {
		l.questions[r.Header.Get("X-Request-Id")] = string(found[1])
	}
}

// figures are what the metadata of a run should say.
type figures struct {
	requests       int
	attempts       int
	latency        float64 // s, the mean from the first attempt's start to the last one's end
	lastAttempt    float64 // s, the mean
	discarded      float64 // s, of all attempts but the last ones
	wastedTokens   int64   // of answers that were thrown away
	peak           int     // requests at once
	worked         float64 // s, with a request at a server
	perSecond      int     // requests that ended in the best second
	first, last    time.Time
	serverSeconds  float64
	answeredTokens int64
}

// figures returns what the log says.
func (l *truth) figures() (f figures) {
	l.mu.Lock()
	defer l.mu.Unlock()

	type edge struct {
		at time.Time
		by int
	}

	var edges []edge
	attempts, ended := map[string][]sim.Exchange{}, map[int64]int{}
	for _, x := range l.exchanges {
		question := l.questions[x.RequestID]
		attempts[question] = append(attempts[question], x)
		edges = append(edges, edge{x.Start, 1}, edge{x.End, -1})
		f.serverSeconds += x.End.Sub(x.Start).Seconds()
	}

	f.requests, f.attempts = len(attempts), len(l.exchanges)
	for _, list := range attempts {
		slices.SortFunc(list, func(a, b sim.Exchange) int { return a.Start.Compare(b.Start) })

		last := list[len(list)-1]
		f.latency += last.End.Sub(list[0].Start).Seconds() / float64(len(attempts))
		f.lastAttempt += last.End.Sub(last.Start).Seconds() / float64(len(attempts))
		f.answeredTokens += int64(last.CompletionTokens)
		ended[last.End.Unix()]++

		for _, x := range list[:len(list)-1] {
			f.discarded += x.End.Sub(x.Start).Seconds()
			f.wastedTokens += int64(x.CompletionTokens)
		}
	}

	slices.SortFunc(edges, func(a, b edge) int { return a.at.Compare(b.at) })

	now := 0
	for i, e := range edges {
		if now > 0 {
			f.worked += e.at.Sub(edges[i-1].at).Seconds()
		}
		now += e.by
		f.peak = max(f.peak, now)
	}

	for _, n := range ended {
		f.perSecond = max(f.perSecond, n)
	}

	f.first, f.last = edges[0].at, edges[len(edges)-1].at

	return f
}

// near fails the test unless a figure is at most so far above what it should be, or a little below. The
// client sees more of an attempt than the server: it waits for a processor, too.
func near(t *testing.T, what string, got, want, above float64) {
	t.Helper()
	if got < want-0.05-0.02*want || got > want+above {
		t.Errorf("%s is %.3f, and %.3f by the servers' log", what, got, want)
	}
}

// compare compares the metadata of a run with the log of its servers. concurrency is the most requests
// that all workers send at once.
func (f figures) compare(t *testing.T, meta *metadata.Run, concurrency int64) {
	t.Helper()

	const slow = 1.0 // s that an attempt may take longer on a busy machine
	r := meta.Results
	if r.LatencySeconds == nil || r.LastAttemptSeconds == nil || r.Wasted == nil || r.PeakConcurrentRequests == nil ||
		r.MeanConcurrentRequests == nil || r.LatencyHistogram == nil {
		t.Fatalf("figures are unknown: %+v", r)
	}

	near(t, "end-to-end latency", r.LatencySeconds.Mean, f.latency, slow)
	near(t, "latency of the last attempts", r.LastAttemptSeconds.Mean, f.lastAttempt, slow)
	near(t, "time of discarded attempts", r.Wasted.DiscardedSeconds, f.discarded, slow*float64(f.attempts-f.requests))

	if peak := *r.PeakConcurrentRequests; peak < int64(f.peak) || peak > concurrency {
		t.Errorf("%d requests in flight at most; %d by the servers' log, of %d allowed", peak, f.peak, concurrency)
	}

	counted := int64(0)
	for _, n := range r.LatencyHistogram.Counts {
		counted += n
	}
	if counted != int64(r.SuccessCount) {
		t.Errorf("the histogram counts %d of %d answers", counted, r.SuccessCount)
	}
}

// compareWaste compares the share of tokens that were thrown away.
func (f figures) compareWaste(t *testing.T, meta *metadata.Run) {
	t.Helper()

	r := meta.Results
	if r.Attempts != int64(f.attempts) {
		t.Errorf("%d attempts were made, and %d by the servers' log", r.Attempts, f.attempts)
	}

	w, discarded := r.Wasted, int64(f.attempts-f.requests)
	if w.DiscardedAttempts != discarded || w.DiscardedTokens != f.wastedTokens {
		t.Errorf("%d attempts and %d tokens were thrown away; %d and %d by the servers' log",
			w.DiscardedAttempts, w.DiscardedTokens, discarded, f.wastedTokens)
	}

	want := float64(f.wastedTokens) / float64(f.wastedTokens+f.answeredTokens)
	if share := r.Wasted.TokenShare; share == nil || *share < want-0.001 || *share > want+0.001 {
		t.Errorf("the share of tokens that were thrown away is %v, want %.3f", share, want)
	}
}

// The metadata of a run say what its model servers did, as their own logs have it.
func TestFigures(t *testing.T) {
	t.Parallel()

	together(t, map[string]func(*testing.T){
		"retries":         testFiguresOfRetries,
		"hangs":           testFiguresOfHangs,
		"a short run":     testFiguresOfShortRun,
		"collected later": testFiguresOfLateCollecting,
		"a pause":         testFiguresOfPause,
		"a schema":        testFiguresOfSchema,
	})
}

func testFiguresOfRetries(t *testing.T) {
	const requests, slots = 200, 20
	c := newCommand(t)
	var log truth
	m := log.newModel(t, sim.Config{
		Slots:  slots,
		TTFT:   200 * time.Millisecond,
		Tokens: 10,
		Faults: sim.Faults{"nochoices": 0.2},
	})

	in := c.input("in.jsonl", requests)
	c.must("run", in, "-o", "out.jsonl.zst", "--url", m.url, "--concurrency", fmt.Sprint(slots), "--progress", "none",
		"--attempts", "12") // of five, all fail for one of the requests in one of 16 tests

	f, meta := log.figures(), c.meta("out")
	f.compare(t, meta, slots)
	f.compareWaste(t, meta)

	if f.attempts == f.requests || f.latency < f.lastAttempt+0.01 {
		t.Errorf("no request was tried again: %+v", f)
	}
}

// An answer that does not match the schema is thrown away with its tokens, and requested once more.
func testFiguresOfSchema(t *testing.T) {
	const requests, slots = 40, 10
	c := newCommand(t)
	var log truth
	m := log.newModel(t, sim.Config{Slots: slots, TTFT: 100 * time.Millisecond, Tokens: 10})

	in := c.input("in.jsonl", requests)
	schema := `{"type":"object","properties":{"a":{"type":"string","pattern":"^[0-9]{40}$"}},"required":["a"]}`
	must(t, os.WriteFile(filepath.Join(c.dir, "schema.json"), []byte(schema), 0o644)) // the server ignores patterns
	text, code := c.run("run", in, "-o", "out.jsonl.zst", "--url", m.url, "--concurrency", fmt.Sprint(slots),
		"--schema", "schema.json", "--progress", "none")
	if code != exit.CodeFailed {
		t.Fatalf("exit code %d:\n%s", code, text)
	}

	f, meta := log.figures(), c.meta("out")
	f.compareWaste(t, meta)

	const source = "vllm:time_to_first_token_seconds"
	if d := meta.Results.TimeToFirstTokenSeconds; d == nil || d.Source != source {
		t.Errorf("the time to the first token is %+v, want one of %s", d, source)
	}

	if f.wastedTokens == 0 || f.attempts != 2*requests {
		t.Errorf("%d tokens of %d attempts were thrown away", f.wastedTokens, f.attempts)
	}
}

func testFiguresOfHangs(t *testing.T) {
	const requests, slots = 60, 20
	c := newCommand(t)
	var log truth
	m := log.newModel(t, sim.Config{
		Slots:  slots,
		TTFT:   100 * time.Millisecond,
		Tokens: 10,
		Faults: sim.Faults{"hang": 0.1},
	})

	in := c.input("in.jsonl", requests)
	c.must("run", in, "-o", "out.jsonl.zst", "--url", m.url, "--concurrency", fmt.Sprint(slots), "--timeout", "5s",
		"--progress", "none")

	f, meta := log.figures(), c.meta("out")
	f.compare(t, meta, slots)

	if w := meta.Results.Wasted; f.attempts == f.requests || w.DiscardedAttempts != int64(f.attempts-f.requests) {
		t.Errorf("%d attempts were thrown away; %d by the servers' log", w.DiscardedAttempts, f.attempts-f.requests)
	}
}

// A run that takes a second has a peak, and answers that were cut off.
func testFiguresOfShortRun(t *testing.T) {
	const requests, slots = 40, 20
	c := newCommand(t)
	var log truth
	m := log.newModel(t, sim.Config{Slots: slots, TTFT: 300 * time.Millisecond, Tokens: 50})

	var text strings.Builder
	for i := range requests {
		fmt.Fprintf(&text, `{"custom_id":"q-%d","max_tokens":2,"messages":[{"role":"user","content":"q %d"}]}`+"\n", i, i)
	}
	must(t, os.WriteFile(filepath.Join(c.dir, "in.jsonl"), []byte(text.String()), 0o644))

	c.must("run", "in.jsonl", "-o", "out.jsonl.zst", "--url", m.url, "--concurrency", fmt.Sprint(slots),
		"--progress", "none")

	f, meta := log.figures(), c.meta("out")
	f.compare(t, meta, slots)
	f.compareWaste(t, meta)

	if n := meta.Results.Wasted.CutOffAnswers; n < requests/2 || n != meta.Results.FinishReasons["length"] {
		t.Errorf("%d answers were cut off, of which %d say so", n, meta.Results.FinishReasons["length"])
	}
}

// A run that is collected after it was answered reports the rates at which it was answered.
func testFiguresOfLateCollecting(t *testing.T) {
	const requests, slots = 100, 10
	c := newCommand(t)
	_, url := startNATS(t)
	var log truth
	m := log.newModel(t, sim.Config{Slots: slots, TTFT: 400 * time.Millisecond, Tokens: 10})

	in := c.input("in.jsonl", requests)
	c.output("submit", in, "--model", "sim", "--run", "out", "--nats", url)
	worker, out := c.start("worker", "--url", m.url, "--nats", url, "--concurrency", fmt.Sprint(slots))
	poll(t, patience, "all answers", func() bool { return m.sim.Succeeded() >= requests })
	worker.Process.Signal(os.Interrupt) // it stores all of its results first
	waitExit(t, worker, out, patience)

	collecting := time.Now()
	text, code := c.run("collect", "out", "-o", "out.jsonl.zst", "--nats", url, "--progress", "none")
	if code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, text)
	}
	took := time.Since(collecting).Seconds()

	f, r := log.figures(), c.meta("out").Results
	near(t, "worked time", r.InferenceTimeSeconds, f.worked, took+3)
	near(t, "end-to-end latency", r.LatencySeconds.Mean, f.latency, 1)

	rate := float64(requests) / f.worked
	if got := *r.ThroughputRequestsPerSec; got > rate*1.1 {
		t.Errorf("%.1f requests/s, and %.1f by the servers' log", got, rate)
	}

	// Results are published a moment after they come, so two seconds' may be in one.
	if got := *r.PeakRequestsPerSec; got > 2*float64(f.perSecond) {
		t.Errorf("%.0f requests in the best second, and %d by the servers' log", got, f.perSecond)
	}
}

// Time in which a run is paused is idle, and no request waits in it.
func testFiguresOfPause(t *testing.T) {
	const requests, slots = 120, 10
	c := newCommand(t)
	c.serve()
	var log truth
	m := log.newModel(t, sim.Config{Slots: slots, TTFT: 200 * time.Millisecond, Tokens: 10})

	in := c.input("in.jsonl", requests)
	c.start("worker", "--url", m.url, "--concurrency", fmt.Sprint(slots))
	c.must("submit", in, "--model", "sim", "--run", "out")
	poll(t, patience, "answers", func() bool { return m.sim.Succeeded() >= requests/4 })
	c.must("pause", "out")

	paused := time.Now()
	poll(t, patience, "a long pause", func() bool { return time.Since(paused) > 14*time.Second })
	c.must("resume", "out")

	meta := c.ended("out", patience)
	f := log.figures()
	f.compare(t, meta, slots)

	idle := f.last.Sub(f.first).Seconds() - f.worked
	if got := *meta.Results.IdleTimeSeconds; idle < 10 || got < idle-6 || got > idle+6 {
		t.Errorf("%.1f s are idle, and %.1f by the servers' log", got, idle)
	}
	near(t, "worked time", meta.Results.InferenceTimeSeconds, f.worked, 8)
}

// The requests that a worker had at its server when it was killed count as repeated.
func TestFiguresOfKill(t *testing.T) {
	if testing.Short() {
		t.Skip("takes proto.AckWait")
	}

	t.Parallel()

	const requests, slots = 60, 10
	c := newCommand(t)
	c.serve()
	var log truth

	dying := log.newModel(t, sim.Config{Slots: slots, TTFT: time.Hour})
	victim, _ := c.start("worker", "--url", dying.url, "--name", "victim", "--concurrency", fmt.Sprint(slots))
	c.workers(1)
	c.must("submit", c.input("in.jsonl", requests), "--model", "sim", "--run", "out")
	poll(t, patience, "requests at the server", func() bool { return dying.sim.Engine().Load().Running == slots })

	sent := time.Now() // a worker notes once a second what it has sent
	poll(t, patience, "a note", func() bool { return time.Since(sent) > 3*time.Second })
	victim.Process.Kill()
	victim.Wait()

	other := log.newModel(t, sim.Config{Slots: slots, TTFT: 100 * time.Millisecond, Tokens: 10})
	c.start("worker", "--url", other.url, "--name", "other", "--concurrency", fmt.Sprint(slots))

	meta := c.ended("out", bus.AckWait+time.Minute)
	f := log.figures()
	if got := meta.Results.Wasted; got == nil || got.RepeatedRequests != slots || f.attempts-f.requests != slots {
		t.Errorf("the waste is %+v; %d requests were sent twice by the servers' log", got, f.attempts-f.requests)
	}
}

// Three boxes have the requests in flight of all, also if one is killed.
func TestFiguresOfThreeBoxes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes proto.AckWait")
	}

	t.Parallel()

	const requests, slots, boxes = 600, 10, 3
	c := newCommand(t)
	c.serve()
	var log truth
	cfg := sim.Config{Slots: slots, TTFT: 200 * time.Millisecond, Tokens: 10}
	in := c.input("in.jsonl", requests)

	dying := log.newModel(t, cfg)
	victim, _ := c.start("worker", "--url", dying.url, "--name", "box-0", "--concurrency", fmt.Sprint(slots))
	for i := 1; i < boxes; i++ {
		c.start("worker", "--url", log.newModel(t, cfg).url, "--name", fmt.Sprint("box-", i),
			"--concurrency", fmt.Sprint(slots))
	}
	c.workers(boxes)

	c.must("submit", in, "--model", "sim", "--run", "out")
	poll(t, patience, "answers", func() bool { return dying.sim.Succeeded() > 5*slots })
	victim.Process.Kill()
	victim.Wait()

	meta := c.ended("out", bus.AckWait+time.Minute)
	c.verified(in, "out")

	r := meta.Results
	if peak := r.PeakConcurrentRequests; peak == nil || *peak < 2*slots || *peak > boxes*slots {
		t.Errorf("%v requests in flight at most, want those of %d boxes with %d each", peak, boxes, slots)
	}
}
