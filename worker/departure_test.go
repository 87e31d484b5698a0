package worker

import (
	"math"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// runWorker runs a worker and returns what gets the error of its end.
func runWorker(t *testing.T, w *Worker) <-chan error {
	t.Helper()

	done := make(chan error, 1)
	go func() { done <- w.Run(t.Context()) }()

	return done
}

// awaitEnd waits until a worker has ended by itself, without an error.
func awaitEnd(t *testing.T, done <-chan error) {
	t.Helper()

	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("the worker does not end")
	}
}

// A worker that leaves begins requests until nothing more fits, ends by itself, and gives the rest
// back at once.
func TestLeaveUsesTheTime(t *testing.T) {
	t.Parallel()

	const slots, latency, notice = 8, 200 * time.Millisecond, 3 * time.Second

	b := newRunBed(t, startServer(t, sim.New(sim.Config{TTFT: latency})))
	b.cfg.Limiter = limit.Fixed(slots)
	b.publishRange("r", "m", 0, 1600, 4)

	w := newWorker(t, b.cfg)
	done := runWorker(t, w)

	prototest.Poll(t, patience, "some answers", func() bool { return w.Stats().Done.Load() >= 3*slots })
	before := w.Stats().Done.Load()
	w.Leave(Departure{Deadline: time.Now().Add(notice), Reason: "the test asks for it"})

	awaitEnd(t, done)

	// The first round after the notice fits by far, however slow this machine is.
	if ended := w.Stats().Done.Load() - before; ended < 2*slots {
		t.Errorf("%d requests ended after the notice", ended)
	}

	b.checkReturned(w, 1)
}

// checkReturned checks that a worker that has left has nothing any more: all shards that are left, at
// least some, can be had at once, long before an ack wait is over.
func (b *testBed) checkReturned(w *Worker, least int) {
	b.t.Helper()
	b.checkIdle(w)

	left := int(b.unackedShards("r"))
	batch, err := b.workConsumer("r", "m").Fetch(left, jetstream.FetchMaxWait(bus.AckWait/3))
	if err != nil {
		b.t.Fatal(err)
	}

	got := 0
	for range batch.Messages() {
		got++
	}

	if got != left || got < least {
		b.t.Errorf("of %d shards %d can be had at once, want at least %d", left, got, least)
	}
}

// A departure whose deadline has passed ends the worker at once, with what is in flight.
func TestLeaveAtOnce(t *testing.T) {
	t.Parallel()

	l := newGate(sim.New(sim.Config{}))
	b := newRunBed(t, startServer(t, l))
	b.publishRange("r", "m", 0, 8, 4)

	w := newWorker(t, b.cfg)
	done := runWorker(t, w)

	prototest.Poll(t, patience, "requests in flight", func() bool { return w.Stats().InFlight.Load() == 8 })
	w.Leave(Departure{})

	awaitEnd(t, done)

	b.checkReturned(w, 2)
}

// A deadline ends what waits for a bus that is away: answers that cannot be stored, and a pull.
func TestLeaveWithoutBus(t *testing.T) {
	t.Parallel()

	l := newGate(sim.New(sim.Config{}))
	b := newRunBed(t, startServer(t, l))
	b.publishRange("r", "m", 0, 8, 4)

	w := newWorker(t, b.cfg)
	w.busGrace = time.Hour // the deadline has to end the wait

	done := runWorker(t, w)

	prototest.Poll(t, patience, "requests in flight", func() bool { return w.Stats().InFlight.Load() == 8 })
	b.node.(*server.Server).Shutdown()
	close(l.gate)
	prototest.Poll(t, patience, "answers", func() bool { return w.Stats().Done.Load() == 8 })
	w.Leave(Departure{Deadline: time.Now().Add(time.Second)})

	awaitEnd(t, done)
}

// A worker that never found a bus leaves at once, and not at its deadline.
func TestLeaveBeforeBus(t *testing.T) {
	t.Parallel()

	b := newEmptyBed(t).withServer(startServer(t, sim.New(sim.Config{})))
	waits := messageWatch{"waiting", make(chan struct{})}
	b.cfg.Log = zerolog.New(waits)

	w := newWorker(t, b.cfg)
	done := runWorker(t, w)

	<-waits.seen
	w.Leave(Departure{Deadline: time.Now().Add(time.Hour)})

	awaitEnd(t, done)
}

// A worker that is asked to leave before any request has ended learns from those in flight how long they take, and
// then goes on.
func TestLeaveLearnsLatency(t *testing.T) {
	t.Parallel()

	l := newGate(sim.New(sim.Config{}))
	b := newRunBed(t, startServer(t, l))
	b.cfg.Limiter = limit.Fixed(4)
	b.publishRange("r", "m", 0, 40, 4)

	w := newWorker(t, b.cfg)
	done := runWorker(t, w)

	prototest.Poll(t, patience, "requests in flight", func() bool { return w.Stats().InFlight.Load() == 4 })
	w.Leave(Departure{Deadline: time.Now().Add(unknownLatency - 5*time.Second)})
	prototest.Poll(t, patience, "the return of the others", func() bool { return w.jobs.held.load() == 4 })

	select {
	case <-done:
		t.Fatal("the worker ends with requests in flight")
	case <-time.After(3 * longPull): // for which it finds that nothing fits
	}

	close(l.gate)
	awaitEnd(t, done)

	if n := w.Stats().Done.Load(); n != 40 {
		t.Errorf("%d of 40 requests ended in the time that was left", n)
	}
}

// refuseRequests returns a model server that refuses its first requests, and asks to wait ten minutes.
func refuseRequests(status int, first int64) http.Handler {
	server := sim.New(sim.Config{})
	var requests atomic.Int64

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || requests.Add(1) > first {
			server.ServeHTTP(w, r)
			return
		}

		w.Header().Set("Retry-After", "600")
		w.WriteHeader(status)
	})
}

// A request whose next attempt comes too late goes back at once, and the worker ends when it has nothing else.
func TestLeaveReturnsLateRetry(t *testing.T) {
	t.Parallel()

	b := newRunBed(t, startServer(t, refuseRequests(http.StatusServiceUnavailable, 1)))
	b.publishRange("r", "m", 0, 8, 4)

	w := newWorker(t, b.cfg)
	done := runWorker(t, w)

	prototest.Poll(t, patience, "all other answers, and a refusal", func() bool {
		return w.Stats().Done.Load() == 7 && w.queue.delayedCount() == 1
	})
	w.Leave(Departure{Deadline: time.Now().Add(9 * time.Minute)})

	awaitEnd(t, done)

	b.checkReturned(w, 1)
}

// While the server refuses everything, and asks for a wait that does not fit, a worker that leaves holds nothing.
func TestLeaveWhileServerRefuses(t *testing.T) {
	t.Parallel()

	const notice = 50 * time.Second // less than a minute, which is the longest wait

	b := newRunBed(t, startServer(t, refuseRequests(http.StatusTooManyRequests, math.MaxInt64)))
	b.publishRange("r", "m", 0, 80, 4)

	w := newWorker(t, b.cfg)
	done := runWorker(t, w)

	prototest.Poll(t, patience, "a pause", func() bool { return w.cfg.Limiter.Pause() > notice })
	w.Leave(Departure{Deadline: time.Now().Add(notice)})
	left := time.Now()

	awaitEnd(t, done)

	if took := time.Since(left); took > notice/2 {
		t.Errorf("the worker ends after %s", took)
	}
	b.checkReturned(w, 1)
}

// A worker that may stay waits for its bus, too, until its deadline.
func TestLeaveStaysBeforeBus(t *testing.T) {
	t.Parallel()

	b := newEmptyBed(t).withServer(startServer(t, sim.New(sim.Config{})))
	waits := messageWatch{"waiting", make(chan struct{})}
	b.cfg.Log = zerolog.New(waits)

	w := newWorker(t, b.cfg)
	w.Leave(Departure{Deadline: time.Now().Add(time.Hour), Stay: true})
	done := runWorker(t, w)

	<-waits.seen
	b.createBuckets()
	b.addRun("r", 0, "m")
	b.publishRange("r", "m", 0, 8, 4)
	prototest.Poll(t, patience, "answers", func() bool { return w.Stats().Done.Load() == 8 })
	w.Leave(Departure{Deadline: time.Now()})

	awaitEnd(t, done)
}

// A worker that has nothing leaves at once when its bus is away, too: it has nothing to hand over.
func TestLeaveIdleWithoutBus(t *testing.T) {
	t.Parallel()

	b := newRunBed(t, startServer(t, sim.New(sim.Config{})))
	b.publishRange("r", "m", 0, 8, 4)

	w := newWorker(t, b.cfg)
	done := runWorker(t, w)

	b.awaitRun("r")
	b.node.(*server.Server).Shutdown()
	w.Leave(Departure{Deadline: time.Now().Add(time.Hour)})

	awaitEnd(t, done)
}

// A worker that may stay outlives a bus without work, and takes what comes before its deadline.
func TestLeaveStays(t *testing.T) {
	t.Parallel()

	b := newRunBed(t, startServer(t, sim.New(sim.Config{})))
	b.publishRange("r", "m", 0, 8, 4)

	w := newWorker(t, b.cfg)
	done := runWorker(t, w)

	prototest.Poll(t, patience, "answers", func() bool { return w.Stats().Done.Load() == 8 })
	w.Leave(Departure{Deadline: time.Now().Add(time.Hour), Stay: true})

	select {
	case <-done:
		t.Fatal("the worker ends an hour before its deadline")
	case <-time.After(3 * longPull): // for which it finds that the bus has nothing
	}

	b.publishRange("r", "m", 8, 16, 4)
	prototest.Poll(t, patience, "answers to what came later", func() bool { return w.Stats().Done.Load() == 16 })
	w.Leave(Departure{Deadline: time.Now()})

	awaitEnd(t, done)
}
