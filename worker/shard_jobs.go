package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// maxLookups bounds how many shards' results are looked up at a time. Each lookup needs a
// subscription, and a bus limits those of a connection.
const maxLookups = 64

// shardJobs starts a job for each shard that the worker gets, and has the state that the jobs
// share.
type shardJobs struct {
	js         jetstream.JetStream
	log        zerolog.Logger
	workerName string
	stats      *Stats
	observer   Observer // nil: none
	usage      *usage
	costs      *departureCosts
	queue      *requestQueue
	held       *heldCounter
	latency    *latencyEstimate

	// freed wakes the fetch loop after a job has ended: the next model may have its turn.
	freed signal

	// isolate runs a request apart that was in flight when a model server or a worker crashed.
	isolate func(*task)

	// handBackWaiting hands back the waiting tasks for which gone is true.
	handBackWaiting func(gone func(*task) bool)

	// taskEnded is called for each task that got its result or goes back to the bus.
	taskEnded func(*task)

	// dropped counts the messages that do not fit their run.
	dropped proto.DropCounter

	// lookups has one element for each lookup under way.
	lookups chan struct{}

	inHand  shardCounter
	running sync.WaitGroup
}

// startJob begins to work on a shard and returns the number of its requests, or 0 if it cannot be
// read. An oversized shard is read by its own job, since that takes its time. ctx bounds the
// job's use of the bus.
func (s *shardJobs) startJob(ctx context.Context, run *activeRun, model string, msg jetstream.Msg) int {
	s.inHand.add(model, 1)
	s.queue.noteOpening()

	if msg.Headers().Get(proto.HeaderObject) == "" {
		j, requests := s.openShard(ctx, run, model, msg)
		if j == nil {
			s.queue.noteOpened()
			s.inHand.add(model, -1)
			return 0
		}

		s.running.Go(func() {
			defer s.endJob(model)
			j.runRequests(ctx, requests)
		})

		return len(requests)
	}

	const one = 1 // a request that does not fit into a message travels alone
	s.held.add(one)
	s.running.Go(func() {
		defer s.endJob(model)

		j, requests := s.openShard(ctx, run, model, msg)
		s.held.add(-one)
		if j == nil {
			s.queue.noteOpened()
			return
		}

		j.runRequests(ctx, requests)
	})

	return one
}

// endJob notes that the job of a shard has ended.
func (s *shardJobs) endJob(model string) {
	s.inHand.add(model, -1)
	s.freed.notify()
}

// openShard reads a shard and extends its ack wait from then on. It returns nil after it has
// returned the shard to the bus or given it up.
func (s *shardJobs) openShard(
	ctx context.Context, run *activeRun, model string, msg jetstream.Msg,
) (j *shardJob, requests []proto.Request) {
	id := msg.Headers().Get(proto.HeaderShard)
	log := s.log.With().Str("run", run.id).Str("shard", id).Logger()

	beat := startHeartbeat(msg.InProgress)
	defer func() {
		if j == nil {
			beat.stop()
		}
	}()

	payload, err := run.readPayload(ctx, msg)
	if bus.IsUnrecoverable(err) {
		log.Error().Err(err).Msg("dropped shard: its object is lost")
		msg.TermWithReason("its object is lost")
		return nil, nil
	}
	if err != nil {
		log.Warn().Err(err).Msg("failed to read oversized shard; returned it to the bus")
		s.returnShard(run.id, msg, id, nil, time.Second)
		return nil, nil
	}

	shard, err := run.bounds.ParseShard(model, msg.Subject(), msg.Headers(), payload)
	if err != nil {
		// No worker can ever run it. The collector finds its requests missing, and they are
		// published again.
		if s.dropped.Add(proto.ErrorField(err), run.id) {
			log.Error().Err(err).Str("subject", msg.Subject()).
				Msg("dropped a shard that does not fit its run; more of this kind are only counted")
		}
		msg.TermWithReason("does not fit its run: " + err.Error())
		return nil, nil
	}

	s.held.add(len(shard.Requests))

	return &shardJob{
		jobs:      s,
		run:       run,
		msg:       msg,
		heartbeat: beat,
		id:        shard.ID,
		model:     model,
		results: resultPublisher{
			js:     s.js,
			log:    s.log,
			stats:  s.stats,
			run:    run,
			shard:  shard.ID,
			object: msg.Headers().Get(proto.HeaderObject),
		},
	}, shard.Requests
}

// returnShard returns a shard to the bus after a wait. It also publishes a note that no worker
// died of it, with the crashes of model servers by request index. The note is a hint, and
// nothing waits for its confirmation. Without a shard id there is no note.
func (s *shardJobs) returnShard(
	run string, msg jetstream.Msg, shard string, crashes map[uint32]int, wait time.Duration,
) {
	if shard != "" {
		if _, err := s.js.PublishMsgAsync(proto.EncodeDeliveryNote(run, shard, proto.Returned(crashes))); err != nil {
			s.log.Debug().Err(err).Str("run", run).Str("shard", shard).
				Msg("failed to publish the note that a shard was returned")
		}
	}

	if wait > 0 {
		msg.NakWithDelay(wait)
	} else {
		msg.Nak()
	}
}

// endTask ends the part of a task in the counts of cut-off requests and in its prefix group.
func (s *shardJobs) endTask(t *task) {
	s.taskEnded(t)
	if t.prefixes != nil {
		s.queue.unregisterTask(t)
	}
}

// shardCounter counts the shards that are neither acknowledged nor returned, by model.
type shardCounter struct {
	total atomic.Int64

	// mu guards byModel.
	mu      sync.Mutex
	byModel map[string]int
}

// add adds n, which may be negative, to the shards of a model.
func (c *shardCounter) add(model string, n int) {
	c.total.Add(int64(n))

	c.mu.Lock()
	defer c.mu.Unlock()

	if c.byModel == nil {
		c.byModel = map[string]int{}
	}

	if c.byModel[model] += n; c.byModel[model] == 0 {
		delete(c.byModel, model)
	}
}

// has reports whether there are shards of a model, under any of its names.
func (c *shardCounter) has(model string, names modelNames) bool {
	c.mu.Lock()
	defer c.mu.Unlock()

	for name := range c.byModel {
		if names.resolve(name) == model {
			return true
		}
	}

	return false
}
