package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/gpu"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// busGrace is the time that is left to store results, and to return shards, after the last
// request has ended. A worker that leaves has it at most, see departurePlan.
const busGrace = 5 * time.Second

// Worker runs requests at one model server. The package comment describes its parts.
type Worker struct {
	cfg   Config
	id    string
	stats Stats

	// stop ends Run's context with an error that Run returns.
	stop context.CancelCauseFunc

	runs     *activeRuns
	fetch    *fetcher
	jobs     *shardJobs
	queue    *requestQueue
	dispatch *dispatcher
	server   *serverSide
	announce *announcer
	plan     *departurePlan
	costs    *departureCosts

	busGrace time.Duration // the constant of that name, except in tests
}

// lifetimes are the contexts of a worker's work. They end one after the other.
type lifetimes struct {
	// intake ends first. After it no more work is taken.
	intake context.Context

	// requests ends the requests in flight at the model server.
	requests context.Context

	// bus ends the worker's activity on the bus.
	bus context.Context
}

// New returns a worker. It returns an error that names the field of cfg which cannot work.
func New(cfg Config) (*Worker, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}

	cfg = cfg.withDefaults()
	w := &Worker{
		cfg:      cfg,
		id:       proto.NewWorkerID(),
		queue:    newRequestQueue(),
		busGrace: busGrace,
	}

	shared := newSharedParts(cfg)
	w.queue.prefixes.onPark = shared.wakeFetch.notify

	w.plan = &departurePlan{latencies: shared.latencies, limiter: cfg.Limiter}
	w.costs = &departureCosts{plan: w.plan}

	w.addServer(shared)
	w.addJobs(shared)
	w.addFetcher(shared)
	w.announce = &announcer{
		log:      cfg.Log,
		stats:    &w.stats,
		drained:  shared.held.drained,
		plan:     w.plan,
		load:     shared.sampler,
		describe: w.describe,
	}

	return w, nil
}

// ID returns the worker's id. It is new with each start, while several workers may have the same
// name.
func (w *Worker) ID() string { return w.id }

// Stats returns the worker's counters.
func (w *Worker) Stats() *Stats { return &w.stats }

// Waiting returns why the model server gets no requests, and since when; "" if it gets them.
func (w *Worker) Waiting() (problem string, since time.Time) { return w.server.state.status() }

// Refused returns why the model server has answered no request for 20 s or more, although it gets
// them, and since when; "" if it answers, or is known to get none (see [Worker.Waiting]). The text
// is one line of at most 300 bytes with the server's own words: "status 503 Service Unavailable: the
// engine died". The attempts go on, so the server may answer the next one. Where all failures are
// of status 429, it takes 75 s, since many quotas are for a minute.
func (w *Worker) Refused() (text string, since time.Time) { return w.server.failures.current() }

// Down reports whether the model server gets no requests.
func (w *Worker) Down() bool { return w.server.state.isDown() }

// Info returns the model server's report about itself; false if it has reported nothing yet.
func (w *Worker) Info() (modelserver.Info, bool) { return w.server.health.latestInfo() }

// Cards returns the GPUs of the worker's host as they are now; nil: unknown.
func (w *Worker) Cards() []gpu.Card {
	if w.cfg.Cards == nil {
		return nil
	}
	return w.cfg.Cards()
}

// Run works until ctx ends, or until the worker has left (see [Worker.Leave]). Then it takes no more
// work, finishes the requests in flight within the grace period, returns the rest to the bus and
// returns nil. It returns an error if it cannot begin, and a [RefusedError] as Config.StopRefused
// says.
func (w *Worker) Run(ctx context.Context) error {
	intake, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	w.stop = stop

	b, err := w.openBus(intake)
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}

	if b == nil { // ctx has ended, or the worker leaves
		return nil
	}

	w.runParts(ctx, intake, b)

	if refused, ok := errors.AsType[*RefusedError](context.Cause(intake)); ok {
		return refused
	}

	return nil
}

// openBus opens the buckets that all runs share, and waits until they have been made. It returns nil
// if ctx ends first, or if the worker leaves, and does not stay until its deadline.
func (w *Worker) openBus(ctx context.Context) (*bus.Bus, error) {
	ctx, cancel := context.WithCancel(ctx)
	var notice sync.WaitGroup
	notice.Go(func() { w.plan.awaitIdleEnd(ctx, cancel) })
	defer notice.Wait()
	defer cancel()

	for warned := false; ctx.Err() == nil; warned = true {
		b, err := withTimeout(ctx, func(ctx context.Context) (*bus.Bus, error) {
			return bus.Open(ctx, w.cfg.JS)
		})
		if err == nil {
			return b, nil
		}

		if w.cfg.JS.Conn().IsClosed() {
			return nil, err
		}

		switch {
		case warned, ctx.Err() != nil:
		case errors.Is(err, jetstream.ErrBucketNotFound):
			w.cfg.Log.Warn().Msg("the bus has no runs yet; waiting")
		default:
			w.cfg.Log.Warn().Err(err).Msg("failed to open the bus; retrying")
		}

		bus.Sleep(ctx, time.Second)
	}

	return nil, nil
}

// runParts runs all parts of the worker until intake ends, and then stops them one after the other.
// intake ends with ctx, by stop, or once the worker has left.
func (w *Worker) runParts(ctx, intake context.Context, b *bus.Bus) {
	requests, cancelRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelRequests()

	busCtx, cancelBus := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelBus()

	l := lifetimes{intake: intake, requests: requests, bus: busCtx}

	w.server.progress.record(time.Now()) // the server has to make some from now on
	w.server.health.probeServer(intake)
	w.fetch.peers.heartbeats = b.Heartbeats

	var loops sync.WaitGroup
	loops.Go(func() { w.runs.followManifests(l, b.Runs) })
	loops.Go(func() { w.fetch.run(l) })
	loops.Go(func() { w.dispatch.run(intake) })
	loops.Go(func() { w.server.run(intake) })
	loops.Go(func() { w.returnLate(intake) })

	announceCtx, endAnnounce := context.WithCancel(context.WithoutCancel(ctx))
	defer endAnnounce()

	var reports sync.WaitGroup
	reports.Go(func() { w.announce.load.run(announceCtx) })
	reports.Go(func() { w.announce.run(intake, announceCtx, b.Heartbeats) })
	reports.Go(func() {
		w.plan.awaitCutoff(announceCtx, func() {
			w.stop(nil)
			cancelRequests()
		})
	})
	reports.Go(func() { w.plan.awaitBusEnd(announceCtx, cancelBus) })
	<-intake.Done()

	handBackAll(w.queue.close())
	loops.Wait()

	endGrace := w.beginGrace(ctx, cancelRequests)
	w.server.close()
	endGrace()

	grace := time.AfterFunc(w.busGrace, cancelBus)
	w.jobs.running.Wait()
	grace.Stop()

	endAnnounce()
	reports.Wait()
}

// beginGrace cancels the requests in flight after Config.Grace, until the returned function is called.
// A worker that has left by itself gives them the time until its deadline, unless ctx ends before.
func (w *Worker) beginGrace(ctx context.Context, cancelRequests func()) (end func() bool) {
	if !w.plan.isLeaving() {
		return time.AfterFunc(w.cfg.Grace, cancelRequests).Stop
	}
	return context.AfterFunc(ctx, func() { time.AfterFunc(w.cfg.Grace, cancelRequests) })
}

// returnLate hands back the requests that wait and will not end before the worker has left, again
// and again until ctx ends.
func (w *Worker) returnLate(ctx context.Context) {
	for w.plan.changes.await(ctx, planEvery, w.plan.isLeaving) {
		now := time.Now()
		w.plan.noteSlots(now)

		late := w.plan.selectLate(now, int(w.stats.InFlight.Load()))
		if w.server.state.isDown() { // perhaps for longer than there is
			late = anyTask
		}

		w.dispatch.returnWaiting(late)
		for _, t := range w.queue.removeTasks(late) {
			t.handBackAfter(min(maxReturnWait, t.notBefore.Sub(now)))
		}

		handBackAll(w.server.take(func(t *task) bool { return !w.plan.fits(t.kind(), now, 0) }))
		w.fetch.changed.notify()
	}
}

// handBackWaiting hands back the tasks that wait and for which gone returns true.
func (w *Worker) handBackWaiting(gone func(*task) bool) {
	handBackAll(slices.Concat(w.queue.removeTasks(gone), w.server.take(gone)))
}
