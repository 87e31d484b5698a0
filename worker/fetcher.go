package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/answer"
)

// activeRun is a run that needs a model of ours.
type activeRun struct {
	id         string
	bounds     proto.Bounds
	priority   int
	models     []string         // of the run
	largest    int              // requests in a shard of it, at most
	grouped    bool             // those that begin alike share a prompt cache
	objects    *bus.ObjectStore // of its requests
	answers    *bus.AnswerStore
	results    jetstream.Stream // looked up before the first pull
	sources    map[string]*shardSource
	schema     *answer.Schema // that answers must match; nil: any
	moreTokens float64        // times the tokens, for an answer that was cut off; 0: it stays as it is
	budget     retryBudget    // of further attempts

	requests      context.Context // of its requests at the model server; ends with the run
	cut           context.CancelFunc
	inEpoch       atomic.Pointer[epochRequests]
	published     atomic.Bool // all its shards are on the bus
	paused        atomic.Bool
	ended         atomic.Bool // it has ended, or was deleted
	requestsTaken int64       // requests pulled, for its turn among the others; the fetch loop's
	swapsWarned   bool        // it was said what its models cost, if they do; the fetch loop's
	listed        bool        // it had a source to pull from at the last look; the fetch loop's
}

// shardSource is where a run's shards for one model come from.
type shardSource struct {
	model         string
	consumer      jetstream.Consumer
	shardRequests int       // of the largest shard of late, in requests; 0: not known
	shardBytes    int       // of its message, of late
	waiting       int       // requests that nobody had when the latest came, about
	retryAt       time.Time // until then it is not asked again
	lastPull      time.Time // when shards were last asked for
}

// activeRuns are the runs that can be worked for now.
type activeRuns struct {
	mu   sync.Mutex
	runs map[string]*activeRun
}

// epochRequests is the parent of a feed's requests at the model server in an era.
type epochRequests struct {
	era   context.Context
	calls context.Context // ends with the era, or with the run
}

// requestsIn returns the parent of requests in an era. It is kept for the next request, since
// to watch the era for each of them costs more than all else that starts an attempt.
func (f *activeRun) requestsIn(era context.Context) context.Context {
	if kept := f.inEpoch.Load(); kept != nil && kept.era == era {
		return kept.calls
	}

	calls, cut := context.WithCancel(f.requests)
	stop := context.AfterFunc(era, cut) // a hung server answers nobody
	context.AfterFunc(f.requests, func() { stop() })
	f.inEpoch.Store(&epochRequests{era, calls})

	return calls
}

// followRuns keeps the feeds as the manifests are, until ctx ends. calls is the parent of
// all requests at the model server.
func (w *Worker) followRuns(ctx, calls context.Context) error {
	return w.runs.FollowAll(ctx, func(all map[string]proto.Manifest) {
		w.active.mu.Lock()
		defer w.active.mu.Unlock()

		for run, f := range w.active.runs {
			m, there := all[run]
			switch {
			case there && m.State == proto.StateInProgress:
				continue
			case there && m.State == proto.StatePaused:
				f.paused.Store(true)
			default: // it has ended, or is gone: nobody needs the answers
				f.paused.Store(true)
				f.ended.Store(true)
				f.cut()
				delete(w.active.runs, run)
			}

			w.dropTasks(func(t *task) bool { return t.shard.run == f })
			w.dropStalled(func(t *task) bool { return t.shard.run == f })
		}

		// While its files are written, the collector waits to hear what the run has cost.
		w.usage.retain(func(run string) bool { m, there := all[run]; return there && !m.State.Ended() })
		for run, m := range all {
			if m.State != proto.StateInProgress || w.cfg.Run != "" && w.cfg.Run != run {
				continue
			}

			f := w.active.runs[run]
			if f == nil {
				f = w.newActiveRun(m)
				f.requests, f.cut = context.WithCancel(calls)
				w.active.runs[run] = f
				w.cfg.Log.Debug().Str("run", run).Msg("a run to work for")
			}

			f.priority = m.Policy.Priority
			f.paused.Store(false)
			f.published.Store(m.Publish.Done)
		}

		w.fetchWake.notify()
	})
}

func (w *Worker) newActiveRun(m proto.Manifest) *activeRun {
	f := &activeRun{
		id:         m.Run,
		bounds:     m.Bounds(),
		models:     m.Models(),
		largest:    m.Settings.ShardSize,
		moreTokens: m.Settings.RetryTruncated,
		grouped:    m.Settings.GroupByPrefix,
		objects:    bus.NewObjectStore(w.cfg.JS, m.Run),
		answers:    bus.NewAnswerStore(w.cfg.JS, m.Run),
		sources:    map[string]*shardSource{},
	}
	if len(m.Settings.Schema) > 0 {
		var err error
		if f.schema, err = answer.NewSchema(m.Settings.Schema); err != nil { // who made the run has checked it
			w.cfg.Log.Error().Err(err).Str("run", m.Run).
				Msg("the run's schema cannot be used; its answers are not checked")
		}
	}

	return f
}

// dropTasks hands back the tasks that wait, for a slot or for what a refusal means, and of
// which gone is true.
func (w *Worker) dropTasks(gone func(*task) bool) {
	for _, t := range slices.Concat(w.queue.remove(gone), w.quarantined.take(gone), w.cutoffs.take(gone)) {
		t.handBack()
	}
	for _, a := range w.refusals.take(func(a refusal) bool { return gone(a.task) }) {
		a.task.handBack()
	}
}

// listCandidates returns the sources to pull from, the most urgent first, each with its feed.
// Among runs of equal priority the one goes first of which the fewest requests were taken.
// all is how many there are, those included that had nothing a moment ago.
func (w *Worker) listCandidates() (list []pullCandidate, all int) {
	models := w.servedModels()
	w.active.mu.Lock()
	defer w.active.mu.Unlock()

	now := time.Now()
	for _, f := range w.active.runs {
		if f.paused.Load() {
			continue
		}

		for _, model := range f.models {
			// Refused lines have no model: nobody is asked for them.
			if model != "" && !proto.Serves(models, model) {
				continue
			}

			s := f.sources[model]
			if s == nil {
				s = &shardSource{model: model}
				f.sources[model] = s
			}

			all++
			if now.After(s.retryAt) {
				list = append(list, pullCandidate{f, s, f.priority, 0})
			}
		}
	}

	w.active.rankRuns(list)
	slices.SortFunc(list, func(a, b pullCandidate) int {
		return cmp.Or(-cmp.Compare(a.priority, b.priority), cmp.Compare(a.requestsTaken, b.requestsTaken),
			a.source.lastPull.Compare(b.source.lastPull), cmp.Compare(a.source.model, b.source.model))
	})

	return list, all
}

// rankRuns sets the place of each source's run. A run that comes, or comes again, begins
// where the others are, so that it has no time to make up for.
func (f *activeRuns) rankRuns(list []pullCandidate) {
	least := map[int]int64{} // by priority
	for _, p := range list {
		if now, ok := least[p.priority]; p.run.listed && (!ok || p.run.requestsTaken < now) {
			least[p.priority] = p.run.requestsTaken
		}
	}

	for i, p := range list {
		if !p.run.listed {
			p.run.requestsTaken = max(p.run.requestsTaken, least[p.priority])
		}
		list[i].requestsTaken = p.run.requestsTaken
	}

	for _, feed := range f.runs {
		feed.listed = false
	}

	for _, p := range list {
		p.run.listed = true
	}
}

// pullCandidate is a source with what decides its place among the others.
type pullCandidate struct {
	run           *activeRun
	source        *shardSource
	priority      int
	requestsTaken int64
}

// fetchLoop pulls shards whenever there is room. The pull loop is our own, and asks for
// just what fits: nats.go's prefetching hoards what other workers could run.
func (w *Worker) fetchLoop(ctx, busCtx context.Context) {
	for ctx.Err() == nil {
		parks := w.queue.parkCount()
		if parks > 0 {
			w.refreshPeers(ctx)
		}

		if w.Down() || w.capacity() < max(1, w.rate.requests/4) {
			w.queue.noteFull(parks)
			w.awaitChange(ctx, time.Second) // a delayed task may have come back, or the server
			continue
		}

		list, all := w.listCandidates()
		list = slices.DeleteFunc(list, func(from pullCandidate) bool {
			leave := w.yieldToFaster(ctx, from)
			if leave {
				from.source.retryAt = time.Now().Add(250 * time.Millisecond)
			}
			return leave
		})

		list = w.limitToTurns(ctx, list)
		if len(list) == 0 {
			w.queue.noteFetched(false)
			w.awaitChange(ctx, 50*time.Millisecond)
			continue
		}

		// One pull at a time: what it brings decides who is next.
		from, size, wait := list[0], fairShare(list, w.capacity()), 50*time.Millisecond // the next may have something
		switch known := from.source.waiting; {
		case all == 1:
			wait = w.longPull
		case known > 0:
			// A bus that is slow for a moment does not let the less urgent go first. For more
			// than there is the pull would wait to its end.
			size, wait = min(size, known), w.longPull
		}

		n, err := w.pullShards(ctx, busCtx, from, size, wait)
		w.queue.noteFetched(n > 0 && from.source.waiting > 0)
		if errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrConsumerNotFound) ||
			errors.Is(err, jetstream.ErrStreamNotFound) {
			from.source.retryAt = time.Now().Add(time.Second) // the run has ended, as we shall hear
		} else if err != nil && ctx.Err() == nil {
			w.cfg.Log.Warn().Err(err).Str("run", from.run.id).Msg("pull shards; trying on")
			from.source.retryAt = time.Now().Add(time.Second)
		} else if n == 0 && all > 1 {
			from.source.retryAt = time.Now().Add(100 * time.Millisecond)
		}
	}
}

// fairShare is how many requests the first of the list may take of the room: what the next
// run of its priority has had more than it, and an equal part of the rest.
func fairShare(list []pullCandidate, room int) int {
	first, equals, lead := list[0], 1, 0
	for _, other := range list[1:] {
		if other.priority == first.priority && other.run != first.run {
			if equals++; equals == 2 {
				lead = int(other.requestsTaken - first.requestsTaken)
			}
		}
	}

	if lead >= room {
		return room
	}

	return lead + (room-lead+equals-1)/equals
}

// awaitChange waits until something has changed for the fetch loop.
func (w *Worker) awaitChange(ctx context.Context, most time.Duration) {
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-w.fetchWake:
	case <-t.C:
	case <-ctx.Done():
	}
}

// maxPullBytes bounds the bytes of one pull, so that a slow link does not make the server
// drop the connection.
const maxPullBytes = 32 << 20

// pullShards asks for shards with about n requests and starts them. It returns the number
// of shards that came.
func (w *Worker) pullShards(ctx, busCtx context.Context, from pullCandidate, n int, wait time.Duration) (int, error) {
	f, s := from.run, from.source
	s.lastPull = time.Now()
	if err := w.bindSource(ctx, f, s); err != nil {
		return 0, err
	}

	shards := 1 // until it is known how large they are
	if s.shardRequests > 0 {
		shards = max(1, min((n+s.shardRequests-1)/s.shardRequests, 256, maxPullBytes/max(1, s.shardBytes)))
	}
	if s.shardRequests < f.largest/2 {
		shards = min(shards, 4) // the next may be larger: another round of publishing begins with large ones
	}

	// Without FetchMaxBytes, and not FetchNoWait: on a replicated stream the server says
	// that a batch is complete, or that there is no more, before it sends the messages,
	// which then reach nobody until the ack wait is over (nats-server 2.15.2, consumer.go,
	// Batch Completed).
	batch, err := s.consumer.Fetch(shards, jetstream.FetchMaxWait(wait))
	if err != nil {
		s.consumer = nil
		return 0, fmt.Errorf("pull from %s: %w", proto.WorkStream(f.id), err)
	}

	got := 0
	for msg := range batch.Messages() {
		if ctx.Err() != nil || f.paused.Load() {
			w.returnShard(f.id, msg, msg.Headers().Get(proto.HeaderShard), nil, 0)
			continue
		}

		got++
		if size := w.startShard(busCtx, f, s.model, msg); size > 0 {
			// The largest, with a short memory: shards shrink toward the end of a run, and a
			// worker that takes them for smaller than they are hoards.
			s.shardRequests = max(size, s.shardRequests-1)
			s.shardBytes = max(len(msg.Data()), s.shardBytes-s.shardBytes/8)
		}

		if meta, err := msg.Metadata(); err == nil {
			s.waiting = int(meta.NumPending) * s.shardRequests
		}
	}

	if err := batch.Error(); err != nil {
		s.consumer = nil
		return got, fmt.Errorf("pull from %s: %w", proto.WorkStream(f.id), err)
	}

	if got == 0 {
		s.waiting = 0 // others have it
	}

	return got, nil
}

// bindSource looks up what a source needs.
func (w *Worker) bindSource(ctx context.Context, f *activeRun, s *shardSource) (err error) {
	if f.results == nil {
		f.results, err = withTimeout(ctx, func(ctx context.Context) (jetstream.Stream, error) {
			return bus.FindStream(ctx, w.cfg.JS, proto.ResultsStream(f.id))
		})
		if err != nil {
			f.results = nil
			return err
		}
	}

	if s.consumer == nil {
		s.consumer, err = withTimeout(ctx, func(ctx context.Context) (jetstream.Consumer, error) {
			return bus.FindConsumer(ctx, w.cfg.JS, proto.WorkStream(f.id), proto.ConsumerName(s.model))
		})
		if err != nil {
			s.consumer = nil
			return err
		}
	}

	return nil
}

// startShard starts to work on a shard and returns the number of its requests. A large one is
// read beside the others, since that takes its time.
func (w *Worker) startShard(busCtx context.Context, f *activeRun, model string, msg jetstream.Msg) int {
	w.shardsInHand.Add(1)
	w.queue.prefixes.opening.Add(1)

	if msg.Headers().Get(proto.HeaderObject) == "" {
		h, requests := w.openShard(busCtx, f, model, msg)
		if h == nil {
			w.queue.noteOpened()
			w.shardsInHand.Add(-1)
			return 0
		}

		f.requestsTaken += int64(len(requests))
		w.turns.addShards(model, 1)
		w.shards.Go(func() {
			defer w.endShard(model)
			h.runRequests(busCtx, requests)
		})

		return len(requests)
	}

	const one = 1 // what does not fit into a message travels alone
	f.requestsTaken += one
	w.held.add(one)
	w.turns.addShards(model, 1)
	w.shards.Go(func() {
		defer w.endShard(model)

		h, requests := w.openShard(busCtx, f, model, msg)
		w.held.add(-one)
		if h == nil {
			w.queue.noteOpened()
			return
		}

		h.runRequests(busCtx, requests)
	})

	return one
}

// endShard ends what take began with a shard of a model.
func (w *Worker) endShard(model string) {
	w.shardsInHand.Add(-1)
	w.turns.addShards(model, -1)
	w.fetchWake.notify() // the next model may have its turn
}

// readPayload is a shard's payload. Only the shard's own object is read for it.
func (f *activeRun) readPayload(ctx context.Context, msg jetstream.Msg) ([]byte, error) {
	name := msg.Headers().Get(proto.HeaderObject)
	if name == "" || name != proto.ShardObject(msg.Headers().Get(proto.HeaderShard)) {
		return msg.Data(), nil // of another name, it is refused when it is read
	}
	return f.objects.Get(ctx, name)
}

// openShard reads a shard and keeps it alive from then on, or returns nil, after it has given
// it back or up.
func (w *Worker) openShard(
	busCtx context.Context, f *activeRun, model string, msg jetstream.Msg,
) (h *shardJob, requests []proto.Request) {
	log := w.cfg.Log.With().Str("subject", msg.Subject()).Logger()
	beat := startHeartbeat(msg.InProgress)
	defer func() {
		if h == nil {
			beat.stop()
		}
	}()

	payload, err := f.readPayload(busCtx, msg)
	if bus.IsUnrecoverable(err) {
		log.Error().Err(err).Msg("drop a shard whose object is lost")
		msg.TermWithReason("its object is lost")
		return nil, nil
	}
	if err != nil {
		log.Warn().Err(err).Msg("hand shard back: cannot read its object")
		w.returnShard(f.id, msg, msg.Headers().Get(proto.HeaderShard), nil, time.Second)
		return nil, nil
	}

	shard, err := f.bounds.ParseShard(model, msg.Subject(), msg.Headers(), payload)
	if err != nil {
		// Nobody can ever run it. Its requests are found missing, and published again.
		if w.dropped.Add(proto.ErrorField(err), f.id) {
			log.Error().Err(err).Msg("dropped a shard that does not fit its run; more of this kind are only counted")
		}
		msg.TermWithReason("does not fit its run: " + err.Error())
		return nil, nil
	}

	w.held.add(len(shard.Requests))

	return &shardJob{
		w:      w,
		run:    f,
		msg:    msg,
		beat:   beat,
		id:     shard.ID,
		model:  model,
		object: msg.Headers().Get(proto.HeaderObject),
	}, shard.Requests
}
