package worker

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// connectAlone gives the worker a connection of its own.
func (b *testBed) connectAlone() *nats.Conn {
	b.t.Helper()

	closed := make(chan struct{})
	nc, err := nats.Connect("", nats.InProcessServer(b.node), nats.NoReconnect(),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		b.t.Fatal(err)
	}

	b.t.Cleanup(func() {
		nc.Close()
		<-closed
	})

	if b.cfg.JS, err = jetstream.New(nc); err != nil {
		b.t.Fatal(err)
	}

	return nc
}

// shortAckWait creates the run's streams with a consumer that redelivers shards soon.
func (b *testBed) shortAckWait(run, model string, wait time.Duration) {
	b.t.Helper()

	if _, err := b.js.CreateStream(
		b.t.Context(), bus.WorkStreamConfig(run, bus.Limits{WorkBytes: 64 << 20}),
	); err != nil {
		b.t.Fatal(err)
	}

	cfg := bus.ConsumerConfig(run, model)
	cfg.AckWait = wait
	if _, err := b.js.CreateConsumer(b.t.Context(), proto.WorkStream(run), cfg); err != nil {
		b.t.Fatal(err)
	}
}

// A redelivered shard is counted, although nothing is known of its first delivery. A shard that
// comes for the first time is not.
func TestWorkerCountsRedeliveries(t *testing.T) {
	t.Parallel()

	b := newTestBed(t, startServer(t, sim.New(sim.Config{})))
	b.addRun("r", 0, "m")
	b.publishRange("r", "m", 0, 8, 4)
	b.takeShard("r", "m").Nak()
	w, stop := b.startWorker()
	b.finishRun(w, stop, 8)
	if got := w.Stats().Redelivered.Load(); got != 1 {
		t.Errorf("%d shards were redelivered, want 1", got)
	}

	if got := w.jobs.usage.snapshot(nil, false)["r"]; got.Requests != 8 || got.Redeliveries != 1 {
		t.Errorf("the run's usage is %+v", got)
	}
}

// countNoted returns how many requests of a run workers have noted as sent.
func (b *testBed) countNoted(run string) int {
	b.t.Helper()

	noted := map[uint32]bool{}
	for _, msg := range b.resultMessages(run) {
		if !proto.IsDeliveryNote(msg.Header) {
			continue
		}

		note, err := proto.ParseDeliveryNote(msg.Header)
		if err != nil {
			b.t.Fatal(err)
		}

		for _, index := range note.Sent {
			noted[index] = true
		}
	}

	return len(noted)
}

// The requests that a worker had sent when it stopped do not count as run again: it returned them,
// and counts itself what its attempts at them cost.
func TestReturnedRequestsAreNoRerun(t *testing.T) {
	t.Parallel()

	const slots, n = 4, 8
	stuck := newGate(sim.New(sim.Config{}))
	b := newRunBed(t, startServer(t, stuck))
	b.cfg.Limiter, b.cfg.Grace = limit.Fixed(slots), time.Millisecond
	b.publishRange("r", "m", 0, n, n)
	stopping, stop := b.startWorker()

	prototest.Poll(t, patience, "the note of all requests that were sent", func() bool { return b.countNoted("r") == slots })
	stop()

	// What the server had was for nothing.
	if got := stopping.jobs.usage.snapshot(nil, false)["r"]; got.DiscardedAttempts != slots || got.DiscardedSeconds <= 0 ||
		got.Requests != 0 {
		t.Errorf("the usage of the worker that stopped is %+v", got)
	}

	other := b.withServer(startServer(t, sim.New(sim.Config{})))
	w, stop := other.startWorker()
	other.finishRun(w, stop, n)

	if got := w.jobs.usage.snapshot(nil, false)["r"]; got.Rerun != 0 || got.Redeliveries != 1 || got.Requests != n {
		t.Errorf("the usage of the other is %+v", got)
	}
}

// The shards of a lost worker are run by another one, except for requests that have a result.
func TestLostWorkersShardIsRunByAnother(t *testing.T) {
	t.Parallel()

	const slots, answered, n = 4, 3, 32
	stuck := newGate(sim.New(sim.Config{}))
	lost := newTestBed(t, startServer(t, stuck))
	lost.cfg.Name, lost.cfg.Limiter, lost.cfg.Grace = "lost", limit.Fixed(slots), time.Millisecond
	lost.shortAckWait("r", "m", time.Second)
	lost.addRun("r", 0, "m")
	lost.publishRange("r", "m", 0, n, 8)
	nc := lost.connectAlone()
	_, stop := lost.startWorker()

	for range answered {
		stuck.gate <- struct{}{}
	}

	prototest.Poll(t, patience, "all slots to be taken and the answers to be stored", func() bool {
		return stuck.countRun("r") >= slots+answered && len(lost.results()) == answered
	})

	// The worker notes what it has sent: those that are at the server when it is lost run again.
	prototest.Poll(t, patience, "the notes of all requests that were sent", func() bool {
		return lost.countNoted("r") == slots+answered
	})

	nc.Close()

	l := newLedger(sim.New(sim.Config{}))
	b := lost.withServer(startServer(t, l))
	w, stop2 := b.startWorker()
	b.awaitRun("r")
	stop2()
	b.checkIdle(w)
	stop()

	got, fromLost := b.results(), 0
	for index := range uint32(n) {
		if len(got[index]) == 0 {
			t.Errorf("request %d has no line", index)
			continue
		}

		if strings.Contains(got[index][0], `"worker":"lost"`) {
			fromLost++
			if slices.Contains(l.calls(), call{"r", index}) {
				t.Errorf("request %d was run again although it had its result", index)
			}
		}
	}

	if len(got) != n || fromLost != answered {
		t.Errorf("%d requests have lines, %d of them from the worker that was lost; want %d and %d",
			len(got), fromLost, n, answered)
	}

	rerun, counted := w.jobs.usage.snapshot(nil, false)["r"].Rerun, w.Stats().Rerun.Load()
	if rerun != slots || counted != slots {
		t.Errorf("%d requests were sent again, and %d by the stats; want the %d that were at the server",
			rerun, counted, slots)
	}

	if w.Stats().Redelivered.Load() == 0 {
		t.Error("no shard was redelivered with some of its results")
	}
}
