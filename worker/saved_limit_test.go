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

// A worker that starts again begins with as many requests at once as its server took before.
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
	said := &tally{text: "the concurrency that this server took the last time"}
	b.cfg.Log = zerolog.New(said)
	b.publishRange("r", "m", 0, 20_000, 32)
	w, stop := b.startWorker()
	prototest.Poll(t, 3*time.Minute, "the number of requests at once to be found", func() bool {
		return b.cfg.Limiter.Found() > 0 && w.Stats().Done.Load() > 1000
	})

	stop()
	if said.n.Load() != 0 {
		t.Error("it began with a number of the last time at the first time")
	}

	b.cfg.Limiter = limit.New(limit.Config{})
	_, stop = b.startWorker()
	prototest.Poll(t, time.Minute, "the worker to begin as before", func() bool { return said.n.Load() == 1 })
	stop()

	b.cfg.Limiter = limit.Fixed(3)
	w, stop = b.startWorker()
	defer stop()

	prototest.Poll(t, time.Minute, "the server to say what it is", func() bool { _, known := w.Info(); return known })
	if got := b.cfg.Limiter.Limit(); got != 3 || said.n.Load() != 1 {
		t.Errorf("a fixed limit of 3 became %d", got)
	}
}

// What a server's few slots cost is said once, when the work waits for them.
func TestNoteSlots(t *testing.T) {
	t.Parallel()

	b := newRunBed(t, startServer(t, sim.New(sim.Config{
		Flavour: sim.LlamaCPP,
		Models:  []string{"m"},
		Slots:   2,
		TTFT:    200 * time.Millisecond,
	})))

	said := &tally{text: "runs 2 requests at once"}
	b.cfg.Log = zerolog.New(said)
	w := newWorker(t, b.cfg)
	w.server.load.noteSlots()
	if said.n.Load() != 0 {
		t.Error("it is said without any work")
	}

	b.cfg.Limiter = limit.New(limit.Config{})
	b.publishRange("r", "m", 0, 320, 32)
	w, stop := b.startWorker()
	defer stop()

	prototest.Poll(t, time.Minute, "it to be said", func() bool {
		w.server.load.noteSlots()
		return said.n.Load() == 1
	})

	w.server.load.noteSlots()
	if n := said.n.Load(); n != 1 {
		t.Errorf("it is said %d times", n)
	}
}
