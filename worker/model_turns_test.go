package worker

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/sim"
)

// addWholeRun creates a run with all its shards on the bus. Each has one request, for the run's
// models in turn.
func (b *testBed) addWholeRun(run string, priority int, n uint32, models ...string) {
	b.t.Helper()
	m := b.createStreams(run, priority, models...)
	m.Publish.Done = true
	for index := range n {
		b.publishRange(run, models[int(index)%len(models)], index, index+1, 1)
	}
	b.createRun(m)
}

// mixed is a handler that records whether it has requests for several models at once.
type mixed struct {
	http.Handler
	mu  sync.Mutex
	now map[string]int
	saw bool
}

func (m *mixed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		m.Handler.ServeHTTP(w, r)
		return
	}

	body, _ := io.ReadAll(r.Body)
	_, model, _ := strings.Cut(string(body), `"model":"`)
	model, _, _ = strings.Cut(model, `"`)
	m.count(model, 1)
	defer m.count(model, -1)

	r.Body = io.NopCloser(bytes.NewReader(body))
	m.Handler.ServeHTTP(w, r)
}

func (m *mixed) count(model string, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()

	if m.now == nil {
		m.now = map[string]int{}
	}

	if m.now[model] += n; m.now[model] == 0 {
		delete(m.now, model)
	}

	m.saw = m.saw || len(m.now) > 1
}

// A server that holds one model at a time gets the work for its models one after the other.
func TestModelsTakeTurns(t *testing.T) {
	t.Parallel()

	for _, flavour := range []sim.Flavour{sim.LlamaCPP, sim.Ollama, sim.LMStudio} {
		t.Run(string(flavour), func(t *testing.T) {
			t.Parallel()

			const n = 200
			server := sim.New(sim.Config{
				Flavour:   flavour,
				Models:    []string{"a", "b"},
				Slots:     4,
				TTFT:      10 * time.Millisecond,
				MaxLoaded: 1,
				SwapTime:  300 * time.Millisecond,
				Metrics:   true,
			})

			m := &mixed{Handler: server}
			b := newTestBed(t, startServer(t, m))
			said := &logCounter{text: "this server holds 1 model at a time: the run's 2 models are worked on one after the other, 1 change"}
			b.cfg.Log = zerolog.New(said)
			b.addWholeRun("r", 0, n, "a", "b")

			w, stop := b.startWorker()
			b.awaitRun("r")
			stop()
			b.checkIdle(w)

			for index, lines := range b.checkLines("r", n) {
				if !strings.Contains(lines[0], `"status_code":200`) || !isFirstTry(lines[0]) {
					t.Errorf("request %d: %s", index, lines[0])
				}
			}

			if swaps, retries := server.Swaps(), w.Stats().Retries.Load(); swaps != 2 || retries > 0 || m.saw {
				t.Errorf("%d models were loaded, %d retries; two at once: %v", swaps, retries, m.saw)
			}

			if n := said.n.Load(); n != 1 {
				t.Errorf("the cost was logged %d times", n)
			}
		})
	}
}

// A server that has all its models, or a model of several names, has no turns.
func TestModelsWithoutTurns(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		server sim.Config
		models []string
		mix    bool
	}{
		{"vLLM with two names", sim.Config{Models: []string{"a", "b"}}, []string{"a", "b"}, true},
		{"a router that holds both", sim.Config{
			Flavour:   sim.LlamaCPP,
			Models:    []string{"a", "b"},
			MaxLoaded: 2,
			Metrics:   true,
		}, []string{"a", "b"}, true},
		{"Ollama's two names of a model",
			sim.Config{Flavour: sim.Ollama, Models: []string{"a:latest", "b"}, MaxLoaded: 1},
			[]string{"a", "a:latest"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			const n = 64
			tt.server.Slots, tt.server.TTFT = 8, 20*time.Millisecond
			m := &mixed{Handler: sim.New(tt.server)}
			b := newTestBed(t, startServer(t, m))
			said := &logCounter{text: "this server holds"}
			b.cfg.Log = zerolog.New(said)
			b.addWholeRun("r", 0, n, tt.models...)
			w, stop := b.startWorker()
			b.awaitRun("r")
			stop()
			b.checkIdle(w)
			b.checkLines("r", n)
			if n := said.n.Load(); m.saw != tt.mix || n > 0 {
				t.Errorf("two at once: %v; turns were logged %d times", m.saw, n)
			}
		})
	}
}

// A run whose model is not loaded gets its turn after some time, although there is work left for
// the loaded model, and at once if there is none.
func TestTurnEndsForAnotherRun(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name         string
		priority     int // of the other run
		long, urgent time.Duration
		waits        bool // until the first run is done
	}{
		{"as urgent, after long", 0, 200 * time.Millisecond, 100 * time.Millisecond, false},
		{"as urgent, before that", 0, time.Hour, 100 * time.Millisecond, true},
		{"more urgent", 1, time.Hour, 100 * time.Millisecond, false},
		{"less urgent", -1, 200 * time.Millisecond, 100 * time.Millisecond, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			const n = 300
			server := sim.New(sim.Config{
				Flavour:   sim.Ollama,
				Models:    []string{"a", "b"},
				Slots:     4,
				TTFT:      20 * time.Millisecond,
				MaxLoaded: 1,
				SwapTime:  50 * time.Millisecond,
			})

			l := newGate(server)
			b := newTestBed(t, startServer(t, l))
			b.longPull = patience / 4 // however slow this machine is
			b.addWholeRun("long", 0, n, "a")
			w, stop := b.startWorker(func(w *Worker) {
				w.fetch.turns.maxTurn, w.fetch.turns.minTurn = tt.long, tt.urgent
			})

			l.gate <- struct{}{}
			prototest.Poll(t, patience, "the first run's work", func() bool { return w.Stats().Done.Load() > 0 })
			b.addWholeRun("other", tt.priority, 4, "b")
			b.awaitKnown(w, "other")
			close(l.gate)
			b.awaitRun("other")

			if left := b.unackedShards("long"); (left == 0) != tt.waits {
				t.Errorf("%d shards of the first run were left when the other was done", left)
			}

			b.awaitRun("long")
			stop()
			b.checkIdle(w)
			b.checkLines("long", n)
			b.checkLines("other", 4)

			if swaps, most := server.Swaps(), map[bool]int64{true: 2, false: 3}[tt.waits]; swaps != most {
				t.Errorf("%d models were loaded, want %d", swaps, most)
			}
		})
	}
}

// Several workers may have different models loaded, and none loads a model more often than needed.
func TestTurnsOfSeveralWorkers(t *testing.T) {
	t.Parallel()

	const n = 120
	cfg := sim.Config{
		Flavour:   sim.LlamaCPP,
		Models:    []string{"a", "b", "c"},
		Slots:     4,
		TTFT:      10 * time.Millisecond,
		MaxLoaded: 1,
		SwapTime:  100 * time.Millisecond,
	}

	first, second := sim.New(cfg), sim.New(cfg)
	b := newTestBed(t, startServer(t, first))
	other := b.withServer(startServer(t, second))
	b.addWholeRun("r", 0, n, "a", "b", "c")
	w, stop := b.startWorker()
	w2, stop2 := other.startWorker()
	b.awaitRun("r")
	stop()
	stop2()
	b.checkIdle(w)
	other.checkIdle(w2)
	b.checkLines("r", n)
	if one, two := first.Swaps(), second.Swaps(); one > 3 || two > 3 {
		t.Errorf("%d and %d models were loaded, 3 at each are enough", one, two)
	}

	if retries := w.Stats().Retries.Load() + w2.Stats().Retries.Load(); retries > 0 {
		t.Errorf("%d retries", retries)
	}
}

// A router loads a model for another client meanwhile. Its refusals cost no attempt.
func TestLoadingCostsNoAttempt(t *testing.T) {
	t.Parallel()

	var mu sync.Mutex
	answers := []string{
		"500 proxy error: Could not establish connection",
		`400 {"error":{"code":400,"message":"model name=m is not running","type":"invalid_request_error"}}`,
		`503 {"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`,
	}

	b := newRunBed(t, startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.NotFound(w, r)
			return
		}

		mu.Lock()
		defer mu.Unlock()

		if len(answers) == 0 {
			io.WriteString(w, answered)
			return
		}

		status, body, _ := strings.Cut(answers[0], " ")
		answers = answers[1:]
		w.WriteHeader(map[string]int{"500": 500, "400": 400, "503": 503}[status])
		io.WriteString(w, body)
	})))

	b.cfg.Attempts = 1
	b.publishShard("0-0", chatRequests(0, 0)...)
	w, stop := b.startWorker()
	got := b.finishRun(w, stop, 1)
	if !strings.Contains(got[0][0], `"status_code":200`) || !isFirstTry(got[0][0]) ||
		w.Stats().Retries.Load() > 0 {
		t.Errorf("line %s", got[0][0])
	}
}

// A model that is never loaded costs attempts in the end.
func TestLoadingForever(t *testing.T) {
	t.Parallel()

	b := newRunBed(t, startServer(t, sim.New(sim.Config{Models: []string{"m"}})))
	w, long := newWorker(t, b.cfg), &task{shard: &shardJob{run: &activeRun{}}}
	if !w.server.attempts.awaitModel(long, classification{}) {
		t.Error("the first refusal costs an attempt")
	}

	long.loadingSince = long.loadingSince.Add(-maxLoadingTime)
	if w.server.attempts.awaitModel(long, classification{}) {
		t.Error("a refusal after long costs no attempt")
	}

	for _, rest := range w.queue.close() {
		if rest != long {
			t.Error("another task is in the queue")
		}
	}
}

// A turn lasts for a moment without work while its run is being published, and ends when only
// requests are left that wait for another attempt.
func TestTurnIsOver(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, tt := range []struct {
		name      string
		turn      modelTurn
		held      bool
		listed    bool // there may be more work
		published bool
		want      bool
	}{
		{"it had no work yet", modelTurn{model: "a"}, false, true, true, false},
		{"it gets no work", modelTurn{model: "a"}, false, false, false, true},
		{"it works", modelTurn{model: "a", began: ago(time.Hour), lastInFlight: ago(time.Second)}, true,
			false, true, false},
		{"only other attempts are waited for",
			modelTurn{model: "a", began: ago(time.Hour), lastInFlight: ago(time.Minute)},
			true, false, true, true},
		{"likewise, with more work", modelTurn{model: "a", began: ago(time.Hour), lastInFlight: ago(time.Minute)}, true,
			true, true, false},
		{"all is done", modelTurn{model: "a", began: ago(time.Hour), lastActive: ago(time.Millisecond)}, false,
			false, true, true},
		{"all that there is yet is done",
			modelTurn{model: "a", began: ago(time.Hour), lastActive: ago(time.Millisecond)},
			false, false, false, false},
		{"nothing has come for a while",
			modelTurn{model: "a", began: ago(time.Hour), lastActive: ago(time.Minute)}, false,
			false, false, true},
		{"there is more", modelTurn{model: "a", began: ago(time.Hour), lastActive: ago(time.Minute)}, false,
			true, true, false},
		{"others wait, and it is done", modelTurn{model: "a", began: ago(time.Hour), ending: true}, false,
			true, true, true},
		{"others wait, and it is not", modelTurn{
			model:        "a",
			began:        ago(time.Hour),
			lastInFlight: ago(time.Second),
			ending:       true,
		}, true, true, true, false},
	} {
		names := modelNames{{ID: "a"}, {ID: "alias", AliasOf: "a"}}
		run := &activeRun{id: "r", models: []string{"alias"}}
		run.published.Store(tt.published)

		turns := modelTurns{
			runs:   &activeRuns{byID: map[string]*activeRun{"r": run}},
			inHand: &shardCounter{},
			stats:  &Stats{},
		}
		if tt.held {
			turns.inHand.add("alias", 1)
		}

		var list []pullCandidate
		if tt.listed {
			list = []pullCandidate{{run: run, source: &shardSource{model: "alias"}}}
		}

		if got := turns.isOver(&tt.turn, list, names, now); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestSwapsText(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		holds, models int
		want          string
	}{
		{1, 3, "this server holds 1 model at a time: the run's 3 models are worked on one after the other, 2 changes"},
		{2, 3, "this server holds 2 models at a time: the run's 3 models are worked on one after the other, 1 change"},
	} {
		if got := modelSwapsText(tt.holds, tt.models); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
