package worker

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/limit"
)

// maxPullBytes bounds the bytes of one pull, so that a slow link does not make the server
// drop the connection.
const maxPullBytes = 32 << 20

const (
	// shortPull is the wait of a pull where another source may have something.
	shortPull = 50 * time.Millisecond

	// longPull is the wait of a pull where shards must come, or where there is no other source.
	longPull = 500 * time.Millisecond
)

// fetcher pulls shards from the bus whenever the worker has room for them, and starts their
// jobs. It decides which run is next, how much to take of it, and how much to leave to others.
type fetcher struct {
	js      jetstream.JetStream
	log     zerolog.Logger
	runs    *activeRuns
	jobs    *shardJobs
	limiter *limit.Limiter
	health  *serverHealth
	state   *serverState
	latency *latencyEstimate
	plan    *departurePlan

	// leave ends the intake of a worker that has nothing more to take before it leaves.
	leave func()

	// setAside returns the number of requests held that wait until the meaning of the model
	// server's answers is known.
	setAside func() int

	// changed wakes the loop after something has changed for it.
	changed signal

	// longPull is the constant of that name, except in tests.
	longPull time.Duration

	// The loop alone uses the fields below.

	rate  prefetchRate
	peers peers
	turns modelTurns
}

func newFetcher(
	cfg Config, workerID string, runs *activeRuns, jobs *shardJobs, server *serverSide, latency *latencyEstimate,
) *fetcher {
	f := &fetcher{
		js:       cfg.JS,
		log:      cfg.Log,
		runs:     runs,
		jobs:     jobs,
		limiter:  cfg.Limiter,
		health:   server.health,
		state:    server.state,
		setAside: server.setAsideCount,
		latency:  latency,
		changed:  jobs.freed,
		longPull: longPull,
		peers:    peers{self: workerID},
	}

	f.turns = modelTurns{
		runs:         runs,
		inHand:       &jobs.inHand,
		stats:        jobs.stats,
		log:          cfg.Log,
		server:       cfg.Server.URL(),
		countPending: f.countPending,
		maxTurn:      maxTurn,
		minTurn:      minTurn,
	}

	return f
}

// fetchState is the state of the fetch loop for one run.
type fetchState struct {
	// results is the run's results stream. It is looked up before the first pull: without it a
	// shard must not be taken.
	results jetstream.Stream

	// sources are the run's shards by model.
	sources map[string]*shardSource

	// requestsTaken is the number of requests pulled, for the run's place among the others.
	requestsTaken int64

	// swapsWarned is true once the cost of the changes of the run's models was logged.
	swapsWarned bool

	// listed is set if the run had a source to pull from in the latest list.
	listed bool
}

// shardSource is a run's shards for one model.
type shardSource struct {
	model    string
	consumer jetstream.Consumer

	// shardRequests is the number of requests in the largest of the latest shards; 0: not known.
	// shardBytes is the size of the largest of the latest messages.
	shardRequests int
	shardBytes    int

	// waiting is about how many requests waited on the bus when the latest shard came.
	waiting int

	// retryAt is the time until which nothing is pulled.
	retryAt time.Time

	lastPull time.Time

	// lastEmpty is the latest time at which there was nothing for this worker.
	lastEmpty time.Time
}

// pauseFor lets nothing be pulled from the source for a while.
func (s *shardSource) pauseFor(d time.Duration) { s.retryAt = time.Now().Add(d) }

// run pulls shards until the intake ends. The pull loop is our own, and asks for just as much
// as fits: nats.go's prefetching hoards shards that other workers could run.
func (f *fetcher) run(l lifetimes) {
	ctx := l.intake
	for ctx.Err() == nil {
		if f.plan.isLeaving() && f.hasLeft() {
			f.leave()
			return
		}

		parks := f.jobs.queue.parkCount()
		if parks > 0 {
			f.peers.refresh(ctx)
		}

		if f.state.isDown() || f.capacity() < max(1, f.rate.requests/4) {
			f.jobs.queue.noteFull(parks)
			f.awaitChange(ctx, time.Second) // a delayed task may have come back, or the server
			continue
		}

		list, all := f.listCandidates(ctx)
		if len(list) == 0 {
			f.jobs.queue.noteFetched(false)
			f.awaitChange(ctx, idleWait(all))
			continue
		}

		f.pullFirst(l, list, all)
	}
}

// idleWait returns how long to wait at most when there is no source to pull from, of all that there
// are. Without any source, the loop is woken when one comes.
func idleWait(all int) time.Duration {
	if all == 0 {
		return time.Second
	}
	return 50 * time.Millisecond
}

// listCandidates returns the sources to pull from, the next one first. It leaves out those that
// faster workers will empty, and those whose model does not have its turn. all is the number of
// sources, including those that had nothing a moment ago.
func (f *fetcher) listCandidates(ctx context.Context) (list []pullCandidate, all int) {
	list, all = f.runs.listCandidates(f.servedModels(), time.Now())
	list = slices.DeleteFunc(list, func(c pullCandidate) bool {
		if f.plan.isLeaving() && f.countFitting(c.run.id, c.source.model) < 1 {
			return true
		}

		yield := f.yieldToFaster(ctx, c)
		if yield {
			c.source.lastEmpty = time.Now()
			c.source.pauseFor(250 * time.Millisecond)
		}

		return yield
	})

	info, _ := f.health.latestInfo()

	return f.turns.limitToTurns(ctx, list, info), all
}

// countFitting returns about how many more requests of a run for a model a worker that leaves can
// begin in time.
func (f *fetcher) countFitting(run, model string) int {
	inFlight := int(f.jobs.stats.InFlight.Load())
	waiting := int(f.jobs.held.load()) - inFlight

	return f.plan.countFitting(requestKind{run, model}, time.Now(), waiting, inFlight)
}

// hasLeft reports whether a worker that leaves has nothing more to begin: it holds no request, and no more of them
// fit. Unless the worker stays, it has nothing more either if the bus is away, or has had nothing since the worker was
// asked to leave; or if no request waits for a slot and there is no run, or the model server is down.
func (f *fetcher) hasLeft() bool {
	held := f.jobs.held.load()
	if held > f.jobs.stats.InFlight.Load() {
		return false
	}

	stays := f.plan.stays()
	if f.state.isDown() {
		return !stays
	}

	now, noticed, isAway := time.Now(), f.plan.noticedAt(), !f.js.Conn().IsConnected()
	sources := f.runs.listSources(f.servedModels())
	switch {
	case len(sources) == 0:
		return !stays
	case held > 0: // their ends may show that more fit
		return false
	}

	f.plan.forgetForecasts() // the last one that ended may have made them better

	return !slices.ContainsFunc(sources, func(c pullCandidate) bool {
		isEmpty := (isAway || c.source.lastEmpty.After(noticed)) && !stays
		return !isEmpty && f.plan.fits(requestKind{c.run.id, c.source.model}, now, f.limiter.Pause())
	})
}

// servedModels returns the names of the models that the server lists; nil: it does not list
// them, and requests for any model are tried.
func (f *fetcher) servedModels() []string {
	info, known := f.health.latestInfo()
	if !known {
		return nil
	}
	return info.ModelNames()
}

// pullFirst pulls from the first source of the list. There is one pull at a time: its
// shards decide which source is next.
func (f *fetcher) pullFirst(l lifetimes, list []pullCandidate, all int) {
	first := list[0]
	requests, wait := fairShare(list, f.capacity()), shortPull
	if f.plan.isLeaving() {
		requests = min(requests, f.countFitting(first.run.id, first.source.model))
	}

	switch known := first.source.waiting; {
	case all == 1:
		wait = f.longPull
	case known > 0:
		// A bus that is slow for a moment does not let the less urgent go first. For more
		// than there is the pull would wait to its end.
		requests, wait = min(requests, known), f.longPull
	}

	n, err := f.pullShards(l, first, requests, wait)
	f.jobs.queue.noteFetched(n > 0 && first.source.waiting > 0)

	switch {
	case isGone(err):
		first.source.pauseFor(time.Second) // the run has ended, as its manifest will say
	case err != nil && l.intake.Err() == nil:
		f.log.Warn().Err(err).Str("run", first.run.id).Msg("failed to pull shards; retrying")
		first.source.pauseFor(time.Second)
	case err == nil && n == 0 && all > 1:
		first.source.pauseFor(100 * time.Millisecond)
	}
}

// isGone reports whether an error says that the streams of a run were deleted.
func isGone(err error) bool {
	return errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrConsumerNotFound) ||
		errors.Is(err, jetstream.ErrStreamNotFound)
}

// awaitChange waits until something has changed for the loop, at most for a time.
func (f *fetcher) awaitChange(ctx context.Context, most time.Duration) {
	t := time.NewTimer(most)
	defer t.Stop()

	select {
	case <-f.changed:
	case <-t.C:
	case <-ctx.Done():
	}
}

// pullShards asks for shards with about n requests and starts their jobs. It returns the number of
// shards that came.
func (f *fetcher) pullShards(l lifetimes, from pullCandidate, n int, wait time.Duration) (int, error) {
	run, s := from.run, from.source
	s.lastPull = time.Now()
	if err := f.bindSource(l.intake, run, s); err != nil {
		return 0, err
	}

	// Without FetchMaxBytes, and not FetchNoWait: on a replicated stream the server says
	// that a batch is complete, or that there is no more, before it sends the messages,
	// which then reach no worker until the ack wait is over (nats-server 2.15.2, consumer.go,
	// Batch Completed).
	batch, err := s.consumer.Fetch(s.shardsFor(n, run.maxShardRequests), jetstream.FetchMaxWait(wait))
	if err != nil {
		s.consumer = nil
		return 0, fmt.Errorf("pull from %s: %w", proto.WorkStream(run.id), err)
	}

	got := 0
	for msg := range receiveUntil(l.bus, batch.Messages()) {
		if l.intake.Err() != nil || run.paused.Load() {
			f.jobs.returnShard(run.id, msg, msg.Headers().Get(proto.HeaderShard), nil, 0)
			continue
		}

		got++
		if requests := f.jobs.startJob(l.bus, run, s.model, msg); requests > 0 {
			run.fetch.requestsTaken += int64(requests)
			s.recordShard(requests, len(msg.Data()))
		}

		if meta, err := msg.Metadata(); err == nil {
			s.waiting = int(meta.NumPending) * s.shardRequests
		}
	}

	if err := batch.Error(); err != nil {
		s.consumer = nil
		return got, fmt.Errorf("pull from %s: %w", proto.WorkStream(run.id), err)
	}

	if got == 0 {
		s.waiting, s.lastEmpty = 0, time.Now() // other workers have it
	}

	return got, nil
}

// receiveUntil returns what comes from a channel until it is closed, or ctx ends. The client waits a
// second more than the bus does for the end of a pull, so that one from a bus that is away is long.
func receiveUntil[T any](ctx context.Context, from <-chan T) iter.Seq[T] {
	return func(yield func(T) bool) {
		for {
			select {
			case v, ok := <-from:
				if !ok || !yield(v) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// shardsFor returns how many shards to pull for about n requests. largest is the most requests
// in a shard of the run.
func (s *shardSource) shardsFor(n, largest int) int {
	shards := 1 // until it is known how large they are
	if s.shardRequests > 0 {
		shards = max(1, min((n+s.shardRequests-1)/s.shardRequests, 256, maxPullBytes/max(1, s.shardBytes)))
	}

	if s.shardRequests < largest/2 {
		shards = min(shards, 4) // the next may be larger: another round of publishing begins with large ones
	}

	return shards
}

// recordShard takes in the size of a shard. The largest counts, with a short memory: shards
// shrink toward the end of a run, and a worker that takes them for smaller than they are
// hoards.
func (s *shardSource) recordShard(requests, size int) {
	s.shardRequests = max(requests, s.shardRequests-1)
	s.shardBytes = max(size, s.shardBytes-s.shardBytes/8)
}

// bindSource looks up the streams and the consumer of a source, unless they are known.
func (f *fetcher) bindSource(ctx context.Context, run *activeRun, s *shardSource) (err error) {
	if run.fetch.results == nil {
		run.fetch.results, err = withTimeout(ctx, func(ctx context.Context) (jetstream.Stream, error) {
			return bus.FindStream(ctx, f.js, proto.ResultsStream(run.id))
		})
		if err != nil {
			run.fetch.results = nil
			return err
		}
	}

	if s.consumer == nil {
		s.consumer, err = withTimeout(ctx, func(ctx context.Context) (jetstream.Consumer, error) {
			return bus.FindConsumer(ctx, f.js, proto.WorkStream(run.id), proto.ConsumerName(s.model))
		})
		if err != nil {
			s.consumer = nil
			return err
		}
	}

	return nil
}

// countPending asks the bus how many shards of a source no worker has.
func (f *fetcher) countPending(ctx context.Context, from pullCandidate) (int, error) {
	if err := f.bindSource(ctx, from.run, from.source); err != nil {
		return 0, err
	}

	info, err := from.source.consumer.Info(ctx)
	if err != nil {
		return 0, err
	}

	return int(info.NumPending), nil
}
