package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/telemetry/otlptest"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// traceParents keeps the header traceparent of each request that a handler gets.
type traceParents struct {
	http.Handler

	mu   sync.Mutex
	seen map[string]bool
}

func (p *traceParents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if value := r.Header.Get("Traceparent"); value != "" {
		p.mu.Lock()
		p.seen[value] = true
		p.mu.Unlock()
	}

	p.Handler.ServeHTTP(w, r)
}

// countAttempts returns how many attempts the durations have, by the type of their error, and the
// tokens by their type.
func countAttempts(r *otlptest.Receiver) (attempts map[string]uint64, tokens map[string]int64) {
	attempts, tokens = map[string]uint64{}, map[string]int64{}
	for _, p := range r.Points("gen_ai.client.operation.duration") {
		attempts[p.Attributes["error.type"]] += p.Count
	}
	for _, p := range r.Points("gen_ai.client.token.usage") {
		tokens[p.Attributes["gen_ai.token.type"]] += int64(p.Sum)
	}

	return attempts, tokens
}

// The receiver has at the end what the metadata has: each answer, each failed attempt, all tokens,
// and a trace of each request, whose attempts the model server has seen under their ids.
func TestOTLPOfRun(t *testing.T) {
	t.Parallel()

	const n = 60

	c, r := newCommand(t), otlptest.Start(t)
	model := sim.New(sim.Config{
		Models: []string{"sim"},
		Tokens: 10,
		Seed:   1,
		Faults: sim.Faults{"500": 0.1},
	})
	parents := &traceParents{Handler: model, seen: map[string]bool{}}
	server := httptest.NewServer(parents)
	t.Cleanup(server.Close)

	c.env = []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL,
		"OTEL_EXPORTER_OTLP_HEADERS=x-team=mill",
		"OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test",
	}
	in := c.input("in.jsonl", n)
	c.must("run", in, "--url", server.URL, "-o", "out.jsonl.zst", "--otlp", "env", "--otlp-traces", "1",
		"--progress", "none")

	res := c.meta("out").Results
	attempts, tokens := countAttempts(r)
	wantTokens := map[string]int64{"input": *res.PromptTokens, "output": *res.CompletionTokens}

	if diff := cmp.Diff(wantTokens, tokens); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
	if attempts[""] != n || attempts["500"] == 0 || len(attempts) != 2 {
		t.Errorf("attempts %v, want %d answers, and failures with 500", attempts, n)
	}

	name := fmt.Sprint(pipeline.HostName())
	for _, p := range r.Points("promptmill_worker_requests_total") {
		want := map[string]float64{"answered": n, "failed": 0}[p.Attributes["outcome"]]
		if p.Sum != want || p.Attributes["worker"] != name {
			t.Errorf("promptmill_worker_requests_total %+v, want %v", p, want)
		}
	}

	testLastMetrics(t, r, c.meta("out").TestID, n)

	indexes, spans := map[string]bool{}, map[string]bool{}
	for _, s := range r.Spans() {
		if s.Parent == "" {
			indexes[s.Attributes["promptmill.request.index"]] = true
			continue
		}
		spans["00-"+s.Trace+"-"+s.ID+"-01"] = true
	}

	if len(indexes) != n {
		t.Errorf("%d requests have a trace, of %d", len(indexes), n)
	}
	if diff := cmp.Diff(parents.seen, spans); diff != "" {
		t.Errorf("attempts (-at the model server +traced):\n%s", diff)
	}

	if got := r.Header().Get("X-Team"); got != "mill" {
		t.Errorf("header x-team %q", got)
	}
	if got := r.Resource()["deployment.environment.name"]; got != "test" {
		t.Errorf("resource %v", r.Resource())
	}
}

// testLastMetrics checks that the receiver has the metrics of a run and of its bus at its end: the run is far shorter
// than the minute between two exports.
func testLastMetrics(t *testing.T, r *otlptest.Receiver, run string, answered float64) {
	t.Helper()

	for metric, want := range map[string]map[string]float64{
		"promptmill_collector_requests":        {"": answered},
		"promptmill_collector_lines_total":     {"answered": answered, "failed": 0},
		"promptmill_collector_durable_lines":   {"": answered},
		"promptmill_collector_stopped":         {"": 0},
		"promptmill_run_requests":              {"": answered},
		"promptmill_run_lines":                 {"answered": answered, "failed": 0},
		"promptmill_run_durable_lines":         {"": answered},
		"promptmill_producer_waiting":          {"": 0},
		"promptmill_collector_tokens_total":    nil, // have their values in other tests
		"promptmill_run_state":                 nil,
		"promptmill_bus_workers":               nil,
		"promptmill_worker_shards_acked_total": nil,
	} {
		points := r.Points(metric)
		if len(points) == 0 {
			t.Errorf("the receiver has no %s", metric)
		}
		if want == nil {
			continue
		}

		got := map[string]float64{}
		for _, p := range points {
			if got[p.Attributes["outcome"]] = p.Sum; p.Attributes["run"] != run {
				t.Errorf("%s is of the run %q, want %q", metric, p.Attributes["run"], run)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", metric, diff)
		}
	}

	for _, p := range r.Points("promptmill_run_state") {
		if want := p.Attributes["state"] == string(proto.StateCompleted); (p.Sum == 1) != want {
			t.Errorf("the state of the run %+v", p)
		}
	}
}

// A variable of the environment alone sends nothing: it may be meant for another program.
func TestOTLPIsOff(t *testing.T) {
	t.Parallel()

	c, r := newCommand(t), otlptest.Start(t)
	c.env = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL}
	c.must("run", c.input("in.jsonl", 5), "--sim", "--sim-tokens", "3", "-o", "out.jsonl.zst")

	if n := r.Requests(); n != 0 {
		t.Errorf("%d requests without --otlp", n)
	}
}

// A worker that a signal ends sends what it has counted.
func TestOTLPOfAStoppedWorker(t *testing.T) {
	t.Parallel()

	const n = 20

	c, r := newCommand(t), otlptest.Start(t)
	c.serve()
	worker, out := c.start("worker", "--sim", "--sim-tokens", "3", "--otlp", r.URL)
	c.must("submit", c.input("in.jsonl", n), "--run", "r", "--model", pipeline.SimModel)
	c.ended("r", patience)
	must(t, worker.Process.Signal(syscall.SIGTERM))

	if code := waitExit(t, worker, out, patience); code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	if attempts, _ := countAttempts(r); attempts[""] != n {
		t.Errorf("attempts %v, want %d", attempts, n)
	}
}

// A receiver that never answers costs a run none of its answers, and does not keep it from ending.
func TestOTLPHangs(t *testing.T) {
	t.Parallel()

	release := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(receiver.Close)
	t.Cleanup(func() { close(release) })

	c := newCommand(t)
	in := c.input("in.jsonl", 50)
	text, code := c.run("run", in, "--sim", "--sim-tokens", "3", "-o", "out.jsonl.zst", "--otlp", receiver.URL,
		"--otlp-traces", "1")

	if code != exit.CodeOK || !strings.Contains(text, "failed to export the last telemetry") {
		t.Errorf("exit code %d:\n%s", code, text)
	}

	c.verified(in, "out")
}
