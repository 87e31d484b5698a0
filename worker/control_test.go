package worker

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// runBystander lets the workers finish another run. A worker that has begun nothing of the first
// run by then does not begin any of it.
func (b *testBed) runBystander() {
	b.t.Helper()
	b.addRun("bystander", 0, "m")
	b.publishRange("bystander", "m", 0, 16, 4)
	b.awaitRun("bystander")
	b.checkLines("bystander", 16)
}

// A pause returns the queued requests to the bus, and lets those at the server end.
func TestPauseAndResume(t *testing.T) {
	t.Parallel()

	const slots, n = 4, 24
	l := newGate(sim.New(sim.Config{TTFT: undoubtedTime}))
	b := newTestBed(t, startServer(t, l))
	b.cfg.Limiter, b.cfg.Grace = limit.Fixed(slots), time.Second
	b.addRun("r", 0, "m")
	b.publishRange("r", "m", 0, n, 12)
	w, stop := b.startWorker()
	prototest.Poll(t, patience, "all slots to be taken", func() bool { return l.countRun("r") == slots })
	if err := b.runs.Pause(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}

	prototest.Poll(t, patience, "the queued requests to be handed back", func() bool {
		return w.jobs.held.load() <= slots+1
	})

	close(l.gate)

	// Another worker would get all shards now.
	batch, err := b.workConsumer("r", "m").Fetch(n/12, jetstream.FetchMaxWait(patience/3))
	if err != nil {
		t.Fatal(err)
	}

	var shards []jetstream.Msg
	for msg := range batch.Messages() {
		shards = append(shards, msg)
	}

	if len(shards) != n/12 || batch.Error() != nil {
		t.Fatalf("%d shards are back on the bus, %v", len(shards), batch.Error())
	}

	begun := l.countRun("r")
	if begun > slots {
		t.Errorf("%d requests began, the worker has %d slots", begun, slots)
	}

	if stored := len(b.resultsOf("r")); stored != begun {
		t.Errorf("%d results are stored of %d requests that were at the server", stored, begun)
	}

	for _, msg := range shards {
		if err := msg.Nak(); err != nil {
			t.Fatal(err)
		}
	}

	b.runBystander()
	if got := l.countRun("r"); got != begun {
		t.Errorf("%d requests began during the pause", got-begun)
	}

	if err := b.runs.Resume(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}

	b.finishRun(w, stop, n)
	l.checkOnce(t, "r", n)
}

// The answers of a run that has ended have no reader: its requests are cut off.
func TestEndOfRunCutsRequests(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		end  func(ctx context.Context, b *testBed) error
	}{
		{"cancelled", func(ctx context.Context, b *testBed) error { return b.runs.Cancel(ctx, "r") }},
		{"deleted", func(ctx context.Context, b *testBed) error { return b.runs.Delete(ctx, "r") }},
		{"paused and cancelled", func(ctx context.Context, b *testBed) error {
			if err := b.runs.Pause(ctx, "r"); err != nil {
				return err
			}
			return b.runs.Cancel(ctx, "r")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			const slots, answered = 4, 3
			l := newGate(sim.New(sim.Config{}))
			b := newTestBed(t, startServer(t, l))
			b.cfg.Limiter, b.cfg.Grace = limit.Fixed(slots), time.Second
			b.addRun("r", 0, "m")
			b.publishRange("r", "m", 0, 32, 8)
			w, stop := b.startWorker()

			for range answered {
				l.gate <- struct{}{}
			}

			prototest.Poll(t, patience, "all slots to be taken and the answers to be stored", func() bool {
				return l.countRun("r") == slots+answered && len(b.resultsOf("r")) == answered
			})

			if err := tt.end(t.Context(), b); err != nil {
				t.Fatal(err)
			}

			prototest.Poll(t, patience, "the requests to be cut off", func() bool {
				return l.cutCount() == slots && w.jobs.held.load() == 0
			})

			close(l.gate)
			b.runBystander()
			stop()
			b.checkIdle(w)

			if got := l.countRun("r"); got != slots+answered {
				t.Errorf("%d requests began after the end", got-slots-answered)
			}

			if got := len(b.resultsOf("r")); got != answered {
				t.Errorf("results of %d requests are stored, want %d", got, answered)
			}
		})
	}
}
