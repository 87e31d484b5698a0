package worker

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/sim"
)

// A worker takes the shards for the models of its server, and leaves the others.
func TestWorkersServeTheirModels(t *testing.T) {
	t.Parallel()

	const n = 64
	b := newTestBed(t, startServer(t, sim.New(sim.Config{Models: []string{"a"}})))
	b.cfg.Name = "of a"
	other := b.withServer(startServer(t, sim.New(sim.Config{Models: []string{"x", "b"}})))
	other.cfg.Name = "of b"
	b.addRun("r", 0, "a", "b")
	b.addRun("unserved", 0, "c")
	b.publishRange("unserved", "c", 0, 8, 8)
	b.publishRange("r", "a", 0, n/2, 8)
	b.publishRange("r", "b", n/2, n, 8)
	w, stop := b.startWorker()
	w2, stop2 := other.startWorker()
	b.awaitRun("r")
	stop()
	stop2()
	b.checkIdle(w)
	other.checkIdle(w2)

	for index, lines := range b.checkLines("r", n) {
		want := `"worker":"of a"`
		if index >= n/2 {
			want = `"worker":"of b"`
		}

		for _, line := range lines {
			if !strings.Contains(line, want) || !strings.Contains(line, `"status_code":200`) {
				t.Errorf("request %d, want %s: %s", index, want, line)
			}
		}
	}

	if got := b.deliveredShards("unserved", "c"); got != 0 {
		t.Errorf("%d shards were pulled that no server serves", got)
	}
}

// A server that lists no models, or has no list, gets the requests for all models.
func TestServerWithoutListServesAny(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		hide bool
	}{{"an empty list", false}, {"no list", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server := sim.New(sim.Config{})
			b := newTestBed(t, startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tt.hide && r.Method == http.MethodGet {
					http.NotFound(w, r)
					return
				}
				server.ServeHTTP(w, r)
			})))

			b.addRun("r", 0, "a", "b")
			b.publishRange("r", "a", 0, 8, 4)
			b.publishRange("r", "b", 8, 16, 4)
			w, stop := b.startWorker()
			b.finishRun(w, stop, 16)
		})
	}
}

// A run is served while the server lists its model, not before and not after.
func TestModelListChanges(t *testing.T) {
	t.Parallel()

	servers := []*sim.Server{sim.New(sim.Config{Models: []string{"a"}}), sim.New(sim.Config{Models: []string{"b"}})}
	var now atomic.Pointer[sim.Server]
	now.Store(servers[0])
	b := newTestBed(t, startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now.Load().ServeHTTP(w, r)
	})))

	b.addRun("r", 0, "a")
	b.addRun("s", 0, "b")
	b.publishRange("r", "a", 0, 8, 8)
	b.publishRange("s", "b", 0, 8, 8)
	w, stop := b.startWorker()
	b.awaitRun("r")

	if got := b.deliveredShards("s", "b"); got != 0 {
		t.Errorf("%d shards were pulled before the model was served", got)
	}

	now.Store(servers[1])
	w.server.health.probeServer(t.Context()) // as it does every ten seconds
	b.awaitRun("s")
	b.publishRange("r", "a", 8, 16, 8)
	b.publishRange("s", "b", 8, 16, 8)
	b.awaitRun("s")
	stop()
	b.checkIdle(w)
	b.checkLines("r", 8)
	b.checkLines("s", 16)

	if got := b.unackedShards("r"); got != 1 {
		t.Errorf("%d shards wait for the model that is served no longer, want 1", got)
	}
}

// A worker for one run leaves the others.
func TestWorkerOfOneRun(t *testing.T) {
	t.Parallel()

	b := newTestBed(t, startServer(t, sim.New(sim.Config{})))
	b.cfg.Run = "s"

	for run, priority := range map[string]int{"r": 1, "s": 0} {
		b.addRun(run, priority, "m")
		b.publishRange(run, "m", 0, 16, 4)
	}

	w, stop := b.startWorker()
	b.awaitRun("s")
	stop()
	b.checkIdle(w)
	b.checkLines("s", 16)

	if got := b.deliveredShards("r", "m"); got != 0 {
		t.Errorf("%d shards of another run were pulled", got)
	}
}

// A worker sees a new run at once.
func TestRunComesLater(t *testing.T) {
	t.Parallel()

	b := newTestBed(t, startServer(t, sim.New(sim.Config{})))
	b.addRun("r", 0, "m")
	b.publishRange("r", "m", 0, 8, 8)
	w, stop := b.startWorker()
	b.awaitRun("r")
	b.addRun("s", 0, "m")
	b.publishRange("s", "m", 0, 8, 8)
	b.awaitRun("s")
	prototest.Poll(t, patience, "the worker to hold nothing", func() bool { return w.jobs.held.load() == 0 })
	stop()
	b.checkLines("s", 8)
}

// A server that fails to list its models still serves those of its last list, and no others.
func TestFailedListKeepsModels(t *testing.T) {
	t.Parallel()

	server := sim.New(sim.Config{Models: []string{"a"}})
	var broken atomic.Bool
	b := newTestBed(t, startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() && r.Method == http.MethodGet {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		server.ServeHTTP(w, r)
	})))

	w, stop := b.startWorker()
	prototest.Poll(t, patience, "the list", func() bool { return w.fetch.servedModels() != nil })
	broken.Store(true)
	w.server.health.probeServer(t.Context())
	b.addRun("other", 0, "b")
	b.publishRange("other", "b", 0, 8, 8)
	b.addRun("ours", 0, "a")
	b.publishRange("ours", "a", 0, 8, 8)
	b.awaitRun("ours")
	stop()

	if got := len(b.resultsOf("other")); got > 0 {
		t.Errorf("%d requests for a model that it does not serve were run", got)
	}
}
