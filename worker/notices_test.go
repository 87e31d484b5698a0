package worker

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/sim"
)

// A notice about a server is logged once: not again after it was away, nor by its next worker.
func TestNoticesOnce(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		server sim.Config
		text   string
	}{
		{"Ollama's notes", sim.Config{Flavour: sim.Ollama, Models: []string{"m"}}, "OLLAMA_NUM_PARALLEL"},
		{"llama.cpp without --metrics", sim.Config{Flavour: sim.LlamaCPP, Models: []string{"m"}},
			"start llama.cpp with --metrics"},
		{"LM Studio, which has no gauges", sim.Config{Flavour: sim.LMStudio, Models: []string{"m"}},
			"tuning concurrency by throughput"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			const n = 16
			tt.server.TTFT, tt.server.Slots = 100*time.Millisecond, 2
			server := sim.New(tt.server)
			var away atomic.Bool
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if away.Load() {
					w.WriteHeader(http.StatusBadGateway)
					return
				}
				server.ServeHTTP(w, r)
			}))

			t.Cleanup(front.Close)
			logged := &logCounter{text: tt.text}
			kept := &Notices{}

			b := newRunBed(t, front.URL)
			for life := range uint32(2) {
				b = b.withServer(front.URL)
				b.cfg.Log, b.cfg.Notices, b.cfg.Run = zerolog.New(logged), kept, "r"
				b.publishRange("r", "m", life*2*n, life*2*n+n, 1)
				w, stop := b.startWorker()
				prototest.Poll(t, patience, "all to be done", func() bool { return w.Stats().Done.Load() == n })
				away.Store(true)
				w.server.health.probeServer(t.Context())
				away.Store(false)
				w.server.health.probeServer(t.Context())
				b.publishRange("r", "m", life*2*n+n, life*2*n+2*n, 1)
				b.awaitRun("r")
				stop()
			}

			if n := logged.n.Load(); n != 1 {
				t.Errorf("the notice was logged %d times", n)
			}
		})
	}
}
