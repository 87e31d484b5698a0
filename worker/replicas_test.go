package worker

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// roundRobin passes each request to the next server, as a load balancer does.
type roundRobin struct {
	servers []http.Handler
	n       atomic.Int64
}

func (b *roundRobin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.servers[int(b.n.Add(1))%len(b.servers)].ServeHTTP(w, r)
}

// logCounter counts the log lines that contain a text.
type logCounter struct {
	text string
	n    atomic.Int64
}

func (l *logCounter) Write(p []byte) (int, error) {
	l.n.Add(int64(strings.Count(string(p), l.text)))
	return len(p), nil
}

// The worker notices that there are several servers behind one URL. It logs that once, and ignores
// the figures that a single one reports about itself: its gauges and its slots.
func TestReplicas(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name    string
		flavour sim.Flavour
		metrics bool
	}{
		{"vLLM", sim.VLLM, true},
		{"SGLang", sim.SGLang, true},
		{"llama.cpp", sim.LlamaCPP, true},
		{"llama.cpp without --metrics", sim.LlamaCPP, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			cfg := sim.Config{
				Flavour: tt.flavour,
				Models:  []string{"m"},
				Slots:   4,
				TTFT:    100 * time.Millisecond,
				TPOT:    2 * time.Millisecond,
				Tokens:  20,
				Metrics: tt.metrics,
			}

			b := newRunBed(t, startServer(t, &roundRobin{servers: []http.Handler{sim.New(cfg), sim.New(cfg)}}))
			b.cfg.Limiter = limit.New(limit.Config{})
			logged := &logCounter{text: "come from more than one server"}
			b.cfg.Log = zerolog.New(logged)
			const n = 5000
			b.publishRange("r", "m", 0, n, 32)
			w, stop := b.startWorker()
			prototest.Poll(t, time.Minute, "the servers to be seen as several", func() bool {
				return logged.n.Load() == 1
			})

			prototest.Poll(t, time.Minute, "the reports of one of them to be ignored", func() bool {
				info, _ := w.Info()
				return b.cfg.Limiter.Limit() >= 8 && info.Slots == 0 && info.WeightBytes == 0 &&
					info.GPUMemoryUtilization == 0
			})

			if a := w.describe(); !a.SeveralServers || a.Slots != 0 || a.Waiting != nil ||
				a.MemoryBytes != (proto.ServerMemory{}) {
				t.Errorf("it is announced that there are several servers: %t; that %v wait in one with %d slots and %+v",
					a.SeveralServers, a.Waiting, a.Slots, a.MemoryBytes)
			}

			stop()
			if logged.n.Load() != 1 {
				t.Errorf("it is logged %d times", logged.n.Load())
			}
		})
	}
}

// With one llama.cpp without --metrics, the slots are the limit.
func TestSlotsOfOneServer(t *testing.T) {
	t.Parallel()

	// Answers are long, so a slot is free for a small part of the time only: until the worker, on a
	// machine with much else to do, sends the next request.
	cfg := sim.Config{
		Flavour: sim.LlamaCPP,
		Models:  []string{"m"},
		Slots:   4,
		TTFT:    100 * time.Millisecond,
		TPOT:    25 * time.Millisecond,
		Tokens:  20,
	}

	server := sim.New(cfg)
	var looks atomic.Int64
	b := newRunBed(t, startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slots" {
			looks.Add(1)
		}
		server.ServeHTTP(w, r)
	})))

	b.cfg.Limiter = limit.New(limit.Config{})
	logged := &logCounter{text: "come from more than one server"}
	b.cfg.Log = zerolog.New(logged)
	const n = 80
	b.publishRange("r", "m", 0, n, 32)
	w, stop := b.startWorker()
	b.finishRun(w, stop, n)
	if got := b.cfg.Limiter.Limit(); got < 4 || got > 5 || logged.n.Load() != 0 {
		t.Errorf("limit %d for 4 slots; it is logged %d times that there are several servers", got, logged.n.Load())
	}

	if got := w.describe().Slots; got != 4 {
		t.Errorf("%d slots are announced, want 4", got)
	}

	if n := looks.Load(); n < 5 || n > 40 {
		t.Errorf("it got %d questions for its slots", n)
	}
}

// If several servers all hang, their counters alternate. That is no progress.
func TestCounted(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name     string
		readings []float64
		want     string // + for each that is progress
	}{
		{"one server", []float64{0, 10, 10, 20}, "++-+"},
		{"one that does not count", []float64{-1, -1}, "--"},
		{"one that restarts", []float64{500, 0, 20}, "+++"},
		{"two that work", []float64{500, 90, 510, 95}, "++++"},
		{"two that hang", []float64{500, 90, 500, 90, 90, 500}, "++----"},
		{"one of two hangs", []float64{500, 90, 500, 95, 500}, "++-+-"},
	} {
		var tokens tokenReadings
		got := ""
		for _, reading := range tt.readings {
			if tokens.isNew(reading) {
				got += "+"
			} else {
				got += "-"
			}
		}

		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
