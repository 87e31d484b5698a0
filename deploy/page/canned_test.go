package page_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/deploy/page"
	"github.com/promptmill/promptmill/proto"
)

// cannedHead is a head whose runs are what a test says.
type cannedHead struct {
	t       *testing.T
	address string
	stop    func()

	mu       sync.Mutex
	session  page.Session
	overview page.Overview
	details  map[string]page.RunDetail
	changed  chan struct{} // closed when something changes
	posts    []string      // the paths of the requests that change something
	found    string        // what a search answers, one FindResult a line
}

// startCannedHead starts a head without runs whose viewers may do everything.
func startCannedHead(t *testing.T) *cannedHead {
	t.Helper()

	h := &cannedHead{
		t:        t,
		address:  "127.0.0.1:0",
		session:  page.Session{SignedIn: true, MayChange: true, Version: "v1"},
		overview: page.Overview{Runs: []page.Run{}, Workers: []page.Worker{}, Bus: &page.Bus{Streams: []page.Stream{}}},
		details:  map[string]page.RunDetail{},
		changed:  make(chan struct{}),
	}
	h.start()
	t.Cleanup(func() { h.stop() })

	return h
}

// start listens, at the address of before.
func (h *cannedHead) start() {
	h.t.Helper()

	listener, err := net.Listen("tcp", h.address)
	if err != nil {
		h.t.Fatal(err)
	}

	h.address = listener.Addr().String()
	server := &http.Server{Handler: h.routes()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(listener)
	}()

	h.stop = func() {
		server.Close() // breaks connections, as a kill does
		<-done
	}
}

func (h *cannedHead) url() string { return "http://" + h.address + "/" }

// change changes what the head says.
func (h *cannedHead) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()

	f()
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *cannedHead) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /page/api/session", func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		json.NewEncoder(w).Encode(h.session)
	})
	mux.HandleFunc("POST /page/login", h.login)
	mux.HandleFunc("GET /page/events", h.sendEvents)
	mux.HandleFunc("GET /page/api/runs/{run}/find", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, h.found)
	})
	mux.HandleFunc("POST /page/api/runs/{run}/{action}", func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.posts = append(h.posts, r.URL.Path)
		json.NewEncoder(w).Encode(page.Changed{Run: r.PathValue("run"), Text: "Done: " + r.PathValue("action") + "."})
	})

	handler, err := page.AddFiles(mux)
	if err != nil {
		h.t.Fatal(err)
	}

	return handler
}

// login takes the key "right".
func (h *cannedHead) login(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()

	var login page.Login
	if err := json.NewDecoder(r.Body).Decode(&login); err != nil {
		h.t.Error(err)
	}

	if login.Key != "right" {
		w.WriteHeader(http.StatusUnauthorized)
		json.NewEncoder(w).Encode(page.Error{Code: "unknown_key", Message: "This key is not known."})
		return
	}

	h.session.SignedIn = true
	w.WriteHeader(http.StatusNoContent)
}

func (h *cannedHead) sendEvents(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	refused := h.session.KeyNeeded && !h.session.SignedIn
	h.mu.Unlock()
	if refused {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}

	w.Header().Set("Content-Type", "text/event-stream")
	for {
		h.mu.Lock()
		changed := h.changed
		h.send(w, page.EventState, h.overview)
		if run := r.URL.Query().Get("run"); run != "" {
			if detail, ok := h.details[run]; ok {
				h.send(w, page.EventRun, detail)
			} else {
				h.send(w, page.EventGone, page.Error{Code: "no_run", Message: "There is no run " + run + " on this bus."})
			}
		}
		h.mu.Unlock()
		http.NewResponseController(w).Flush()

		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (h *cannedHead) send(w http.ResponseWriter, event string, data any) {
	text, err := json.Marshal(data)
	if err != nil {
		h.t.Error(err)
	}
	fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, text)
}

// cannedAt is the time of a head that is canned.
var cannedAt = time.Date(2026, 11, 3, 8, 30, 0, 0, time.UTC)

// working returns a run that works.
func working(id string) page.Run {
	return page.Run{
		ID:         id,
		Label:      "nightly triage",
		InputName:  "tickets.jsonl",
		Models:     []string{"Qwen/Qwen3-8B"},
		State:      proto.StateInProgress,
		StateSince: cannedAt.Add(-time.Hour),
		CreatedAt:  cannedAt.Add(-time.Hour),
		Progress: page.Progress{
			Total:        50_000,
			Done:         34_211,
			Failed:       12,
			Durable:      34_100,
			RequestsPerS: new(14.2),
			Remaining:    &proto.Interval{Low: 1020, Expected: 1150, High: 1320},
			ElapsedS:     3600,
		},
		Failures: map[string]int64{"context_length": 9, "500": 3},
		Actions:  []string{"pause", "cancel"},
	}
}

// fill gives the head runs of each kind, workers and a bus.
func (h *cannedHead) fill() {
	stuck := working("20261103-073100-b2aa")
	stuck.Label, stuck.InputName = "", "a-very-long-file-name-of-an-input-"+strings.Repeat("x", 120)+".jsonl.zst"
	stuck.Models = []string{"meta-llama/Llama-3.3-70B-Instruct"}
	stuck.Problem = "no worker serves meta-llama/Llama-3.3-70B-Instruct; served are Qwen/Qwen3-8B"
	stuck.Progress = page.Progress{Total: 1200, ElapsedS: 600}

	ended := working("20261102-201500-c3d4")
	ended.Label, ended.State, ended.EndedAt = "", proto.StateCompleted, new(cannedAt.Add(-5*time.Hour))
	ended.Progress = page.Progress{Total: 80_000, Done: 80_000, Failed: 341, Durable: 80_000, ElapsedS: 14_400}
	ended.Actions = []string{"retry"}

	runs := []page.Run{working("20261103-073000-k7f2"), stuck, ended}
	h.change(func() {
		h.overview = page.Overview{At: cannedAt, Runs: runs, Workers: cannedWorkers(), Bus: cannedBus()}
		for _, r := range runs {
			h.details[r.ID] = cannedDetail(r)
		}
	})
}

func cannedWorkers() []page.Worker {
	gpu := func(index int) proto.GPU {
		return proto.GPU{
			Index:              index,
			Name:               "NVIDIA H100 80GB HBM3",
			UUID:               fmt.Sprint("GPU-", index),
			MemoryBytes:        80 << 30,
			MemoryUsedBytes:    new(int64(71 << 30)),
			PowerWatts:         new(540.0),
			UtilizationPercent: new(97.0),
			TemperatureC:       new(66.0),
		}
	}

	return []page.Worker{
		{
			ID:             "a",
			Name:           "box-a",
			Host:           "box-a",
			Server:         "http://127.0.0.1:8000",
			Platform:       "vLLM 0.11.2",
			Models:         []string{"Qwen/Qwen3-8B"},
			Ready:          true,
			InFlight:       93,
			Limit:          96,
			RequestsPerS:   7.1,
			LatencySeconds: 13.2,
			Since:          cannedAt.Add(-time.Hour),
			HeardAt:        cannedAt.Add(-time.Second),
			GPUs:           []proto.GPU{gpu(0), gpu(1)},
			Runs:           []string{"20261103-073000-k7f2"},
		},
		{
			ID:      "b",
			Name:    "box-b",
			Host:    "box-b.internal.example",
			Server:  "http://box-b.internal.example:8080",
			Problem: "the model server does not answer: connection refused",
			Limit:   8,
			Since:   cannedAt.Add(-time.Minute),
			HeardAt: cannedAt.Add(-12 * time.Second),
		},
		{
			ID:             "c",
			Name:           "box-c",
			Host:           "box-c",
			Server:         "http://127.0.0.1:8000",
			Platform:       "vLLM 0.11.2",
			Models:         []string{"Qwen/Qwen3-8B"},
			Ready:          true,
			Departure:      &page.Departure{Reason: "the spot instance ends (aws)", Deadline: cannedAt.Add(98 * time.Second)},
			Engines:        8,
			InFlight:       40,
			Limit:          512,
			RequestsPerS:   3.2,
			LatencySeconds: 11.8,
			Since:          cannedAt.Add(-2 * time.Hour),
			HeardAt:        cannedAt.Add(-2 * time.Second),
		},
	}
}

func cannedBus() *page.Bus {
	stream := func(kind string, bytes int64) page.Stream {
		return page.Stream{
			Name:       strings.ToUpper(kind) + "_20261103-073000-k7f2",
			Run:        "20261103-073000-k7f2",
			Kind:       kind,
			Messages:   500,
			Bytes:      bytes,
			LimitBytes: new(int64(1 << 30)),
		}
	}

	return &page.Bus{
		Name:          "promptmill",
		Version:       "2.15.3",
		Own:           true,
		Since:         cannedAt.Add(-time.Hour),
		Connected:     true,
		StoreBytes:    3 << 30,
		ReservedBytes: 20 << 30,
		LimitBytes:    new(int64(100 << 30)),
		DiskFreeBytes: new(int64(380 << 30)),
		DiskBytes:     new(int64(900 << 30)),
		Streams:       []page.Stream{stream("results", 1020<<20), stream("work", 500<<20)},
	}
}

// cannedDetail returns the detail of a run: with charts, if it has begun.
func cannedDetail(r page.Run) page.RunDetail {
	d := page.RunDetail{
		At:         cannedAt,
		Run:        r,
		InputFiles: []string{"/data/" + r.InputName},
		InputBytes: 9 << 20,
		Output:     "head:/data/tickets.results",
		Commands:   []page.Command{{Does: "All failed requests with their errors", Line: "zstd -dc /data/tickets.results.errors.jsonl.zst"}},
	}
	if r.Progress.Done == 0 {
		return d
	}

	d.Series = cannedSeries(450)
	d.Results = cannedResults(r)
	d.Markers = []page.Marker{{
		Kind: "interruption",
		From: cannedAt.Add(-20 * time.Minute),
		To:   new(cannedAt.Add(-17 * time.Minute)),
		Text: "no process collected the run",
	}}
	for i := range 12 {
		d.LastFailures = append(d.LastFailures, page.Failure{
			CustomID: fmt.Sprint("ticket-190", i),
			Cause:    "context_length",
			Message:  "This model's maximum context length is 32768 tokens. However, you requested 41023 tokens.",
			Status:   400,
			Attempts: 1,
			Worker:   "box-a",
		})
	}

	return d
}

// cannedResults returns the figures of a run.
func cannedResults(r page.Run) *metadata.Results {
	return &metadata.Results{
		OutputTokensPerSec:         new(4390.0),
		ThroughputRequestsPerSec:   new(14.1),
		PromptTokens:               new(int64(27_000_000)),
		CompletionTokens:           new(int64(10_600_000)),
		LatencySeconds:             &metadata.Distribution{Mean: 13, P50: 12.4, P90: 21.1, P99: 31.7, Max: 88},
		CompletionTokensPerRequest: &metadata.Distribution{Mean: 310, P50: 287, P90: 512, P99: 512, Max: 512},
		LatencyHistogram: &metadata.Histogram{
			Bounds: []float64{1, 2, 4, 8, 16, 32},
			Counts: []int64{0, 2, 9, 30, 40, 3},
		},
		CompletionTokensHistogram: &metadata.Histogram{Bounds: []float64{128, 256, 512}, Counts: []int64{30, 60, 90}},
		PromptTokensHistogram:     &metadata.Histogram{Bounds: []float64{512, 1024}, Counts: []int64{30, 60}},
		Failures:                  r.Failures,
		FailureDetails: []metadata.FailureDetail{
			{
				Cause:    "context_length",
				Count:    9,
				Message:  "This model's maximum context length is 32768 tokens.",
				CustomID: "ticket-00412",
			},
			{Cause: "500", Count: 3, Message: "Internal Server Error", CustomID: "ticket-01001"},
		},
		Wasted: &metadata.Wasted{
			TokenShare:        new(0.012),
			DiscardedAttempts: 61,
			RepeatedRequests:  12,
			CutOffAnswers:     183,
		},
	}
}

// cannedSeries returns a series of n intervals of 8 s, some without readings.
func cannedSeries(n int) *metadata.Series {
	s := &metadata.Series{Start: cannedAt.Add(-time.Hour), IntervalSeconds: 8}
	for i := range n {
		requests := int64(113 + 10*math.Sin(float64(i)/9))
		s.Requests = append(s.Requests, requests)
		s.Failed = append(s.Failed, int64(i%40/39))
		s.PromptTokens = append(s.PromptTokens, 790*requests)
		s.CompletionTokens = append(s.CompletionTokens, 310*requests)
		s.LatencyP50Seconds = append(s.LatencyP50Seconds, new(12+math.Sin(float64(i)/20)))
		s.LatencyP99Seconds = append(s.LatencyP99Seconds, new(28+math.Sin(float64(i)/13)))
		s.InFlight = append(s.InFlight, new(int64(90)))
		s.Limit = append(s.Limit, new(int64(96)))
		s.MemoryUsedBytes = append(s.MemoryUsedBytes, nil)
	}

	return s
}
