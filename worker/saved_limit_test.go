package worker

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// A worker that starts again begins with the concurrency that its server took before.
func TestRemember(t *testing.T) {
	t.Parallel()

	server := sim.New(sim.Config{
		Models: []string{"m"},
		Slots:  32,
		TTFT:   100 * time.Millisecond,
		TPOT:   5 * time.Millisecond,
		Tokens: 20,
	})

	b := newRunBed(t, startServer(t, server))
	b.cfg.Memory = limit.NewMemory(filepath.Join(t.TempDir(), "servers.json"))
	b.cfg.Limiter = limit.New(limit.Config{})
	logged := &logCounter{text: "the concurrency that this server took the last time"}
	b.cfg.Log = zerolog.New(logged)
	b.publishRange("r", "m", 0, 20_000, 32)
	w, stop := b.startWorker()
	prototest.Poll(t, 3*time.Minute, "the concurrency limit to be found", func() bool {
		return b.cfg.Limiter.Found() > 0 && w.Stats().Done.Load() > 1000
	})

	stop()
	if logged.n.Load() != 0 {
		t.Error("the first start used a saved limit")
	}

	b.cfg.Limiter = limit.New(limit.Config{})
	_, stop = b.startWorker()
	prototest.Poll(t, time.Minute, "the worker to use the saved limit", func() bool { return logged.n.Load() == 1 })
	stop()

	b.cfg.Limiter = limit.Fixed(3)
	w, stop = b.startWorker()
	defer stop()

	prototest.Poll(t, time.Minute, "the first report of the server", func() bool { _, known := w.Info(); return known })
	if got := b.cfg.Limiter.Limit(); got != 3 || logged.n.Load() != 1 {
		t.Errorf("a fixed limit of 3 became %d", got)
	}
}

// A notice about a server's few slots is logged once, when requests wait for them.
func TestNoteSlots(t *testing.T) {
	t.Parallel()

	b := newRunBed(t, startServer(t, sim.New(sim.Config{
		Flavour: sim.LlamaCPP,
		Models:  []string{"m"},
		Slots:   2,
		TTFT:    200 * time.Millisecond,
	})))

	logged := &logCounter{text: "runs 2 requests at once"}
	b.cfg.Log = zerolog.New(logged)
	w := newWorker(t, b.cfg)
	w.server.load.noteSlots()
	if logged.n.Load() != 0 {
		t.Error("the notice is logged without any request")
	}

	b.cfg.Limiter = limit.New(limit.Config{})
	b.publishRange("r", "m", 0, 320, 32)
	w, stop := b.startWorker()
	defer stop()

	prototest.Poll(t, time.Minute, "the notice", func() bool {
		w.server.load.noteSlots()
		return logged.n.Load() == 1
	})

	w.server.load.noteSlots()
	if n := logged.n.Load(); n != 1 {
		t.Errorf("the notice is logged %d times", n)
	}
}
