package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/gpu"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/supervise"
)

// Config is what a worker needs. JS, Server and Limiter are required.
type Config struct {
	JS      jetstream.JetStream
	Run     string // the one run to work for; empty: all that need a model of the server
	Server  *modelserver.Server
	Limiter *limit.Limiter
	Memory  *limit.Memory      // of how many requests at once servers took before; nil: none
	Process *supervise.Process // of the model server, if it is ours
	Cards   func() []gpu.Card  // of the host, as they are now; nil: unknown
	Name    string             // in the results and in its announcement. Defaults to "worker".
	Host    string             // in its announcement
	Version string             // of the program, in its announcement
	// at most, for each request; refusals for too many requests count a quarter. Defaults to 5.
	Attempts int
	Timeout  time.Duration // of one attempt. Defaults to 30 minutes.
	Stall    time.Duration // without any progress, until the model server counts as hung. Defaults to 5 minutes.
	Grace    time.Duration // to finish what is in flight after a stop. Defaults to 30 s.
	Log      zerolog.Logger

	// Notices is kept for the next worker at the same server, so that nothing is said twice of it.
	// Defaults to one of the worker's own.
	Notices *Notices

	// StopRefused has Run return a [RefusedError] when the model server refuses all
	// requests and never took one, instead of waiting until it does.
	StopRefused bool
	// Samples are requests that a model server has answered before. They tell a server that
	// refuses all requests from one that refuses the last few of a run.
	Samples []proto.Request
}

// Worker runs requests at one model server.
type Worker struct {
	cfg    Config
	id     string // of this process
	runs   *bus.RunStore
	queue  *requestQueue
	active *activeRuns
	jobs   *shardJobs
	fetch  *fetcher
	server *serverSide
	stats  Stats
	stop   context.CancelCauseFunc // of Run

	usage     usage
	latency   latencyEstimate
	held      *heldCounter
	fetchWake signal // after something changed for the fetch loop
}

// New returns a worker.
func New(cfg Config) *Worker {
	cfg.Name = cmp.Or(cfg.Name, "worker")
	cfg.Attempts = cmp.Or(cfg.Attempts, 5)
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Minute)
	cfg.Stall = cmp.Or(cfg.Stall, 5*time.Minute)
	cfg.Grace = cmp.Or(cfg.Grace, 30*time.Second)
	w := &Worker{
		cfg:       cfg,
		id:        proto.NewWorkerID(),
		queue:     newRequestQueue(),
		fetchWake: newSignal(),
	}

	w.held = newHeldCounter(w.fetchWake)
	w.queue.prefixes.onPark = w.fetchWake.notify
	w.server = newServerSide(cfg, serverSideDeps{
		created:      time.Now(),
		queue:        w.queue,
		stats:        &w.stats,
		latency:      &w.latency,
		held:         w.held,
		fetchWake:    w.fetchWake,
		stop:         func(err error) { w.stop(err) },
		startAttempt: w.begin,
	})

	w.active = &activeRuns{
		js:              cfg.JS,
		log:             cfg.Log,
		usage:           &w.usage,
		budgets:         w.server.budgets,
		only:            cfg.Run,
		changed:         w.fetchWake,
		handBackWaiting: w.handBackWaiting,
		byID:            map[string]*activeRun{},
	}

	w.jobs = &shardJobs{
		js:         cfg.JS,
		log:        cfg.Log,
		workerName: cfg.Name,
		stats:      &w.stats,
		usage:      &w.usage,
		queue:      w.queue,
		held:       w.held,
		freed:      w.fetchWake,
		isolate: func(t *task) {
			w.server.quarantine.add(t)
			w.queue.wake()
		},
		handBackWaiting: w.handBackWaiting,
		taskEnded:       w.server.cutoffs.ended,
		lookups:         make(chan struct{}, maxLookups),
	}

	w.fetch = &fetcher{
		js:       cfg.JS,
		log:      cfg.Log,
		runs:     w.active,
		jobs:     w.jobs,
		queue:    w.queue,
		held:     w.held,
		limiter:  cfg.Limiter,
		stats:    &w.stats,
		latency:  &w.latency,
		isDown:   w.Down,
		info:     w.Info,
		setAside: func() int { return int(w.server.refusals.n.Load() + w.server.cutoffs.n.Load()) },
		changed:  w.fetchWake,
		longPull: longPull,
		peers:    peers{self: w.id},
	}
	w.fetch.turns = modelTurns{
		runs:         w.active,
		inHand:       &w.jobs.inHand,
		stats:        &w.stats,
		log:          cfg.Log,
		server:       cfg.Server.URL(),
		countPending: w.fetch.countPending,
		maxTurn:      maxTurn,
		minTurn:      minTurn,
	}

	return w
}

// ID is the worker's own, new with each start. Several may have its name.
func (w *Worker) ID() string { return w.id }

// Stats is what the worker does.
func (w *Worker) Stats() *Stats { return &w.stats }

// Run works until ctx ends. Then it takes no more work, finishes what is in flight
// within the grace period, hands back the rest and returns nil. It returns an error
// when it cannot begin, and as Config.StopRefused says.
func (w *Worker) Run(ctx context.Context) error {
	ctx, w.stop = context.WithCancelCause(ctx)
	defer w.stop(nil)

	b, err := w.openBus(ctx)
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}

	if ctx.Err() != nil {
		return nil
	}

	// Three ends, one after the other: of taking work (ctx), of requests in flight
	// (calls), and of talking to the bus (bus).
	calls, cutCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer cutCalls()

	busCtx, cutBus := context.WithCancel(context.WithoutCancel(ctx))
	defer cutBus()

	w.runs, w.fetch.peers.heartbeats = b.Runs, b.Heartbeats
	w.server.health.recordProgress(time.Now()) // from now on it must make some
	w.server.health.probe(ctx)
	var loops sync.WaitGroup
	loops.Go(func() { w.server.run(ctx) })
	loops.Go(func() { w.dispatch(ctx) })
	loops.Go(func() { w.fetch.run(ctx, busCtx) })
	loops.Go(func() { w.announce(ctx, b.Heartbeats) })
	loops.Go(func() { w.active.follow(ctx, calls, w.runs) })
	<-ctx.Done()

	for _, t := range w.queue.close() {
		t.handBack()
	}

	loops.Wait()
	grace := time.AfterFunc(w.cfg.Grace, cutCalls)
	w.server.close()
	grace.Stop()

	last := time.AfterFunc(5*time.Second, cutBus)
	w.jobs.running.Wait()
	last.Stop()

	if refused, ok := errors.AsType[*RefusedError](context.Cause(ctx)); ok {
		return refused
	}

	return nil
}

// openBus opens the buckets that all runs share, waiting for somebody to make them.
func (w *Worker) openBus(ctx context.Context) (b *bus.Bus, err error) {
	for said := false; ctx.Err() == nil; said = true {
		b, err = withTimeout(ctx, func(ctx context.Context) (*bus.Bus, error) {
			return bus.Open(ctx, w.cfg.JS)
		})
		if err == nil {
			return b, nil
		}

		if w.cfg.JS.Conn().IsClosed() {
			return nil, err
		}

		if !said {
			w.cfg.Log.Warn().Err(err).Msg("the bus has no runs yet; waiting")
		}

		bus.Sleep(ctx, time.Second)
	}

	return nil, nil
}

// dispatch gives each task a slot, in order; suspects first.
func (w *Worker) dispatch(ctx context.Context) {
	for {
		if !w.server.quarantine.isEmpty() && !w.Down() {
			w.server.quarantine.run(ctx)
		}

		t, ok := w.queue.pop(ctx)
		if !ok {
			return
		}

		if t == nil { // somebody wants to be looked at
			continue
		}

		w.begin(ctx, t)
	}
}

// begin runs a task as soon as there is a slot. While the model server is down the task waits for
// it, and goes to other workers if that takes too long.
func (w *Worker) begin(ctx context.Context, t *task) {
	for w.server.gate.await(ctx) {
		if t.prefixes != nil && !w.queue.awaitSlot(ctx) {
			break
		}

		slot, err := w.cfg.Limiter.Acquire(ctx)
		if err != nil {
			break
		}

		if t.prefixes != nil && t.crashes == 0 {
			t = w.queue.pickForSlot(ctx, t)
		}

		// The epoch first: if the server hangs from now on, that ends it.
		epoch := w.server.health.epoch()

		if t.shard.run.paused.Load() {
			w.cfg.Limiter.Release(slot, limit.Outcome{})
			t.handBack()
			return
		}

		if !w.server.gate.isOpen() { // it may have been closed while there was no slot
			w.cfg.Limiter.Release(slot, limit.Outcome{})
			continue
		}

		if t.prefixes != nil {
			w.queue.markSent(t)
		}

		w.server.attempts.begin(attemptJob{epoch, t, slot})

		return
	}

	t.handBack()
}

// Waiting returns why the model server gets no requests, and since when; "" if it gets them.
func (w *Worker) Waiting() (problem string, since time.Time) { return w.server.health.status() }

// Down reports whether the model server gets no requests.
func (w *Worker) Down() bool { return w.server.health.isDown() }

// Info returns what the model server reports about itself; false if it has reported nothing yet.
func (w *Worker) Info() (modelserver.Info, bool) { return w.server.health.latestInfo() }

// handBackWaiting hands back the tasks that wait and for which gone returns true.
func (w *Worker) handBackWaiting(gone func(*task) bool) {
	handBackAll(slices.Concat(w.queue.remove(gone), w.server.take(gone)))
}
