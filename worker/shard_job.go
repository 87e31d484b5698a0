package worker

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/answer"
)

// Results of a shard are published when this many lines or bytes are there, or after
// linger. Linger is short, since what is answered but not stored is done again after
// a crash: with 10 ms, a model of 3,000 answers a second lost more of them than it had
// in flight. A fast model still puts several lines into a message.
const (
	batchBytes = 1 << 20
	linger     = 2 * time.Millisecond
)

// shardJob is a shard that this worker works on. Its one goroutine gathers the results,
// stores them on the bus, and acknowledges the shard at the end.
type shardJob struct {
	w        *Worker
	run      *activeRun
	msg      jetstream.Msg
	beat     *heartbeat
	id       string
	model    string
	object   string       // the object that the shard came in, or empty
	outcomes chan outcome // one for each request that was queued

	batch     []outcome      // waiting to be published
	batchSize int            // of the batch, in bytes
	pending   []pendingBatch // published, not confirmed
}

// outcome is how one request of a shard ended: with an output line, or handed back.
type outcome struct {
	index   uint32
	line    []byte // nil: handed back
	crashes int    // of the model server, of one that is handed back
}

type pendingBatch struct {
	msg       *nats.Msg
	ack       jetstream.PubAckFuture
	firstSent time.Time // when it was sent for the first time
	lastSent  time.Time // and for the last
}

// runRequests works on the shard until each request has a stored result or was handed back.
func (h *shardJob) runRequests(ctx context.Context, requests []proto.Request) {
	defer h.beat.stop()

	todo, past, err := h.findMissing(ctx, requests)
	h.w.held.add(len(todo) - len(requests)) // what has its result already needs no room
	if err != nil {
		h.w.queue.noteOpened()
		h.w.held.add(-len(todo))

		if ctx.Err() == nil {
			h.w.cfg.Log.Warn().Err(err).Str("shard", h.id).Msg("hand shard back: cannot see which results it has")
		}

		h.w.returnShard(h.run.id, h.msg, h.id, nil, time.Second)

		return
	}

	h.queueRequests(todo, past)
	h.w.queue.noteOpened()
	handedBack, deaths := 0, map[uint32]int{}
	var flush <-chan time.Time
	for n := 0; n < len(todo); {
		select {
		case o := <-h.outcomes:
			n++
			h.w.held.add(-1)

			if o.line == nil {
				handedBack++
				if o.crashes > 0 {
					deaths[o.index] = o.crashes
				}
				continue
			}

			h.w.stats.Done.Add(1)
			h.batch = append(h.batch, o)
			h.batchSize += len(o.line)
			if len(h.batch) == proto.MaxBatch || h.batchSize >= batchBytes {
				h.publishBatch(ctx)
				flush = nil
			} else if flush == nil {
				flush = time.After(linger)
			}
		case <-flush:
			h.publishBatch(ctx)
			flush = nil
		}
	}

	h.publishBatch(ctx)
	if !h.awaitConfirmed(ctx) {
		return // the shard comes back after the ack wait, and then runs what is missing
	}

	if handedBack > 0 {
		h.w.returnShard(h.run.id, h.msg, h.id, deaths, 0)
		return
	}

	h.ackShard(ctx)
}

// withTimeout gives a question to the bus a deadline.
func withTimeout[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return ask(ctx)
}

// queueRequests queues the requests; those refused have their result at once.
func (h *shardJob) queueRequests(requests []proto.Request, past deliveryHistory) {
	h.outcomes = make(chan outcome, len(requests))
	now := time.Now()
	tasks := make([]*task, len(requests))
	for i, r := range requests {
		tasks[i] = &task{
			Request:      r,
			hash:         r.Hash(),
			single:       !answer.Counted(r.URL, r.Body),
			shard:        h,
			arrived:      now,
			firstAttempt: now,
			crashes:      past.crashCount(r.Index),
		}
	}

	if h.run.grouped {
		h.w.queue.register(tasks)
	}

	for _, t := range tasks {
		switch {
		case t.Refused != "":
			t.finish(proto.Result{Err: &proto.ResultError{Code: proto.CodeInvalidRequest, Message: t.Refused}}, 0)
		case past.isPoison(t.Index):
			t.failPoisoned("the worker", max(past.unacked, past.isolated[t.Index]))
		case t.crashes > 0:
			h.w.quarantined.add(t)
			h.w.queue.wake()
		case !h.w.queue.push(t):
			t.handBack()
		}
	}

	if h.run.paused.Load() { // perhaps since a moment, and nobody has seen these
		h.w.dropTasks(func(t *task) bool { return t.shard == h })
	}
}

// finish ends a task with its result.
func (t *task) finish(r proto.Result, latency time.Duration) {
	w := t.shard.w
	w.cutoffs.ended(t)

	if t.prefixes != nil {
		w.queue.unregister(t)
	}

	r.Run, r.Index, r.CustomID, r.RequestHash = t.shard.run.id, t.Index, t.CustomID, t.hash
	r.Worker, r.Attempts, r.Reasons = w.cfg.Name, t.attempts, t.reasons
	r.Queued, r.Latency = t.firstAttempt.Sub(t.arrived), latency

	if r.Err != nil || r.Status < 200 || r.Status >= 300 {
		w.stats.Failed.Add(1)
	}

	if t.attempts > 0 || t.crashes > 0 {
		w.usage.countRequest(t.shard.run.id)
	}

	size := len(r.Body) + len(r.CustomID) + len(r.Run) + len(r.RequestID) + len(r.Worker) + 256
	t.shard.outcomes <- outcome{index: t.Index, line: proto.AppendResult(make([]byte, 0, size), r)}
}

// handBack ends a task without a result, so that another worker runs it.
func (t *task) handBack() {
	t.shard.w.cutoffs.ended(t)
	if t.prefixes != nil {
		t.shard.w.queue.unregister(t)
	}
	t.shard.outcomes <- outcome{index: t.Index, crashes: t.crashes}
}

// publishBatch sends the batch to the results stream without waiting.
func (h *shardJob) publishBatch(ctx context.Context) {
	if len(h.batch) == 0 {
		return
	}

	slices.SortFunc(h.batch, func(a, b outcome) int { return cmp.Compare(a.index, b.index) })
	seqs := make([]uint32, len(h.batch))
	lines := make([]byte, 0, h.batchSize)
	for i, o := range h.batch {
		seqs[i] = o.index
		lines = append(lines, o.line...)
	}

	clear(h.batch)
	h.batch, h.batchSize = h.batch[:0], 0

	msg := proto.EncodeResults(h.run.id, h.id, seqs, lines)
	if h.object != "" {
		msg.Header.Set(proto.HeaderSource, h.object)
	}

	s := pendingBatch{msg: msg}
	h.sendBatch(ctx, &s)
	h.pending = append(slices.DeleteFunc(h.pending, isConfirmed), s)
}

// isConfirmed reports whether the server has confirmed a batch, which then is let go.
func isConfirmed(s pendingBatch) bool {
	if s.ack == nil {
		return false
	}

	select {
	case <-s.ack.Ok():
		return true
	default:
		return false
	}
}

func (h *shardJob) sendBatch(ctx context.Context, s *pendingBatch) {
	s.ack = nil
	if err := h.run.answers.Offload(ctx, s.msg, h.w.cfg.JS.Conn().MaxPayload()); err != nil {
		h.w.cfg.Log.Warn().Err(err).Str("shard", h.id).Msg("store big results")
		return
	}

	again := nats.NewMsg(s.msg.Subject) // the client sets a reply subject and keeps it
	again.Header, again.Data = s.msg.Header, s.msg.Data
	if ack, err := h.w.cfg.JS.PublishMsgAsync(again); err == nil {
		s.ack, s.lastSent = ack, time.Now()
		if s.firstSent.IsZero() {
			s.firstSent = s.lastSent
		}
	}
}

// awaitConfirmed waits until all results are stored, sending again what is not. A full
// stream, a server that is away: both pass. It returns false when ctx ends first.
func (h *shardJob) awaitConfirmed(ctx context.Context) bool {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		var failed []pendingBatch
		for _, s := range h.pending {
			if err := h.awaitAck(ctx, s); err != nil {
				h.w.cfg.Log.Debug().Err(err).Str("shard", h.id).Msg("publish results again")
				failed = append(failed, s)
			}
		}

		h.pending = failed
		if len(failed) == 0 {
			return true
		}

		if h.run.ended.Load() { // its streams may be gone, too
			return false
		}

		h.w.stats.Stalled.Store(true)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}

		h.w.stats.Stalled.Store(false)
		for i := range h.pending {
			h.sendBatch(ctx, &h.pending[i])
		}
	}
}

var errNoAck = errors.New("no confirmation from the server")

func (h *shardJob) awaitAck(ctx context.Context, s pendingBatch) error {
	if s.ack == nil {
		return errNoAck
	}

	timeout := time.NewTimer(time.Until(s.lastSent.Add(bus.AckTimeout(len(s.msg.Data), s.lastSent.Sub(s.firstSent)))))
	defer timeout.Stop()

	select {
	case <-s.ack.Ok():
		return nil
	case err := <-s.ack.Err():
		return err
	case <-timeout.C:
		return errNoAck
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ackShard removes the shard from the bus, and waits until that is certain. If it
// does not succeed, the shard comes back and is acknowledged by who gets it then.
func (h *shardJob) ackShard(ctx context.Context) {
	_, err := withTimeout(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, h.msg.DoubleAck(ctx)
	})
	if err != nil {
		h.w.cfg.Log.Debug().Err(err).Str("shard", h.id).Msg("acknowledge shard")
		return
	}

	h.w.stats.Shards.Add(1)
}
