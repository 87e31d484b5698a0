package pipeline

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// loggedServer is a simulated server that keeps which requests it got.
type loggedServer struct {
	url string

	// mu guards the field below.
	mu   sync.Mutex
	sent map[string]bool // bodies
}

// startLoggedServer starts a server.
func startLoggedServer(t *testing.T, cfg sim.Config) *loggedServer {
	t.Helper()

	cfg.Models = []string{"m"}
	server, l := sim.New(cfg), &loggedServer{sent: map[string]bool{}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/chat/completions" {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))

			l.mu.Lock()
			l.sent[string(body)] = true
			l.mu.Unlock()
		}

		server.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	l.url = s.URL

	return l
}

// requests returns which requests were sent.
func (l *loggedServer) requests() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()

	return maps.Clone(l.sent)
}

// parseThreshold parses a threshold.
func parseThreshold(t *testing.T, text string) proto.Threshold {
	t.Helper()

	threshold, err := proto.ParseThreshold(text)
	must(t, err)

	return threshold
}

// A run whose server fails too many requests is stopped. What is in flight comes back, and nothing
// else is sent. The same call goes on with counts of its own, and judges the whole run at its end.
func TestRunStopsAtALimit(t *testing.T) {
	t.Parallel()

	const requests, concurrency = 1500, 8
	cfg := newConfig(t, requests, sim.Config{})
	cfg.Workers.Concurrency = concurrency
	cfg.Policy.FailIf = []proto.Threshold{parseThreshold(t, "failed>5%")}

	faulty := sim.Config{Slots: 64, TTFT: 10 * time.Millisecond, Faults: sim.Faults{"context": 0.2}}
	faultyServer := startLoggedServer(t, faulty)
	cfg.ServerURL = faultyServer.url

	_, err := Run(t.Context(), cfg)
	limit, ok := errors.AsType[*LimitError](err)
	if !ok || exit.Code(err) != exit.CodeLimit || errors.Is(err, ErrInterrupted) {
		t.Fatalf("the error is %v, with code %d", err, exit.Code(err))
	}

	if r := limit.Reached; r.Limit != "failed>5%" || r.Ended < 100 || r.Ended > requests/2 || r.Count <= 5 {
		t.Errorf("the limit is %+v", r)
	}

	if len(limit.Failures) != 1 || limit.Failures["http_400"] < int64(limit.Reached.Count) ||
		int64(len(limit.FailedLines)) != limit.Failures["http_400"] ||
		!strings.Contains(string(limit.FailedLines[0]), "maximum context length") {
		t.Errorf("the causes are %v, and there are %d lines", limit.Failures, len(limit.FailedLines))
	}

	j, err := journal.Open(output.Prefix(strings.TrimSuffix(cfg.Output, output.ResultsSuffix)).Journal())
	must(t, err)
	done, stops := j.State().Counts.Done, len(j.State().Stops)
	must(t, j.Close())

	// Slots begin more requests until their worker hears of the stop, some dozens on a busy machine. A refusal
	// that is not known to be final then has no line.
	sent := faultyServer.requests()
	if len(sent) > requests/2 || done > len(sent) || done < len(sent)-concurrency || stops != 1 {
		t.Errorf("%d of %d requests were sent; %d have a line; %d stops are noted", len(sent), requests, done, stops)
	}

	goodServer := startLoggedServer(t, sim.Config{Slots: 64})
	cfg.ServerURL = goodServer.url
	res, err := Run(t.Context(), cfg)
	must(t, err)

	// The last results in flight may have reached the bus after the collector stopped.
	onBus := requests - done - len(goodServer.requests())
	more := int64(res.Failed) - limit.Failures["http_400"]
	if res.Answered+res.Failed != requests || onBus < 0 || done+onBus > len(sent) || more < 0 || more > int64(onBus) {
		t.Errorf("%d answered, %d failed, %d and %d were sent; %d were done and %v failed at the stop", res.Answered,
			res.Failed, len(sent), len(goodServer.requests()), done, limit.Failures)
	}

	if res.Reached != nil || len(res.Metadata.Results.Stops) != 1 {
		t.Errorf("the whole run has reached %v; its stops are %v", res.Reached, res.Metadata.Results.Stops)
	}

	cfg.Policy.FailIf = []proto.Threshold{parseThreshold(t, "failed>=1")}
	res, err = Run(t.Context(), cfg)
	if err != nil || !res.WasComplete || res.Reached == nil || !res.Reached.WholeRun ||
		res.Reached.Ended != requests {
		t.Errorf("the complete run with another limit: %+v, %v", res, err)
	}
}

// A run that has used its tokens sends nothing before it gets more of them.
func TestRunWithoutTokens(t *testing.T) {
	t.Parallel()

	cfg := newConfig(t, 300, sim.Config{})
	cfg.Workers.Concurrency = 4
	cfg.Policy.MaxTokens = 500
	server := startLoggedServer(t, sim.Config{Slots: 64, TTFT: 5 * time.Millisecond, Tokens: 20})
	cfg.ServerURL = server.url

	_, err := Run(t.Context(), cfg)
	limit, ok := errors.AsType[*LimitError](err)
	if !ok || limit.Reached.Tokens < 500 || limit.Reached.MaxTokens != 500 {
		t.Fatalf("the error is %v", err)
	}

	before := len(server.requests())
	_, err = Run(t.Context(), cfg)
	if _, ok = errors.AsType[*LimitError](err); !ok || exit.Code(err) != exit.CodeLimit ||
		len(server.requests()) != before || !strings.HasSuffix(err.Error(), "; nothing was sent") {
		t.Fatalf("the same run again: %v; %d requests were sent", err, len(server.requests())-before)
	}

	cfg.Policy.MaxTokens = 1e6
	if res, err := Run(t.Context(), cfg); err != nil || res.Answered != 300 || len(server.requests()) != 300 {
		t.Errorf("with more tokens: %+v, %v; %d requests were sent", res, err, len(server.requests()))
	}
}
