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

// held is a shard that this worker works on. Its one goroutine gathers the results,
// stores them on the bus, and acknowledges the shard at the end.
type held struct {
	w      *Worker
	feed   *feed
	msg    jetstream.Msg
	beat   *heartbeat
	id     string
	model  string
	source string       // the object that the shard came in, or empty
	lines  chan outcome // one for each request that was queued

	batch []outcome // waiting to be published
	size  int       // of the batch, in bytes
	sent  []stored  // published, not confirmed
}

// outcome is how one request of a shard ended: with an output line, or handed back.
type outcome struct {
	seq    uint32
	line   []byte // nil: handed back
	deaths int    // of the model server, of one that is handed back
}

type stored struct {
	msg   *nats.Msg
	ack   jetstream.PubAckFuture
	first time.Time // when it was sent for the first time
	last  time.Time // and for the last
}

// run works on the shard until each request has a stored result or was handed back.
func (h *held) run(ctx context.Context, requests []proto.Request) {
	defer h.beat.stop()

	todo, past, err := h.missing(ctx, requests)
	h.w.credit(len(todo) - len(requests)) // what has its result already needs no room
	if err != nil {
		h.w.queue.opened()
		h.w.credit(-len(todo))

		if ctx.Err() == nil {
			h.w.cfg.Log.Warn().Err(err).Str("shard", h.id).Msg("hand shard back: cannot see which results it has")
		}

		h.w.giveBack(h.feed.run, h.msg, h.id, nil, time.Second)

		return
	}

	h.start(todo, past)
	h.w.queue.opened()
	handedBack, deaths := 0, map[uint32]int{}
	var flush <-chan time.Time
	for n := 0; n < len(todo); {
		select {
		case o := <-h.lines:
			n++
			h.w.credit(-1)

			if o.line == nil {
				handedBack++
				if o.deaths > 0 {
					deaths[o.seq] = o.deaths
				}
				continue
			}

			h.w.stats.Done.Add(1)
			h.batch = append(h.batch, o)
			h.size += len(o.line)
			if len(h.batch) == proto.MaxBatch || h.size >= batchBytes {
				h.publish(ctx)
				flush = nil
			} else if flush == nil {
				flush = time.After(linger)
			}
		case <-flush:
			h.publish(ctx)
			flush = nil
		}
	}

	h.publish(ctx)
	if !h.confirm(ctx) {
		return // the shard comes back after the ack wait, and then runs what is missing
	}

	if handedBack > 0 {
		h.w.giveBack(h.feed.run, h.msg, h.id, deaths, 0)
		return
	}

	h.acknowledge(ctx)
}

// credit adds to the number of requests held.
func (w *Worker) credit(n int) {
	if w.held.Add(int64(n)) == 0 {
		select {
		case w.idle <- struct{}{}:
		default:
		}
	}

	if n < 0 {
		w.wake()
	}
}

// withTimeout gives a question to the bus a deadline.
func withTimeout[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return ask(ctx)
}

// start queues the requests; those refused have their result at once.
func (h *held) start(requests []proto.Request, past past) {
	h.lines = make(chan outcome, len(requests))
	now := time.Now()
	tasks := make([]*task, len(requests))
	for i, r := range requests {
		tasks[i] = &task{
			Request: r,
			hash:    r.Hash(),
			single:  !answer.Counted(r.URL, r.Body),
			shard:   h,
			arrived: now,
			first:   now,
			deaths:  past.deathsOf(r.Index),
		}
	}

	if h.feed.grouped {
		h.w.queue.enter(tasks)
	}

	for _, t := range tasks {
		switch {
		case t.Refused != "":
			t.finish(proto.Result{Err: &proto.ResultError{Code: proto.CodeInvalidRequest, Message: t.Refused}}, 0)
		case past.poison(t.Index):
			t.failPoisoned("the worker", max(past.lost, past.alone[t.Index]))
		case t.deaths > 0:
			h.w.quarantined.add(t)
			h.w.queue.nudge()
		case !h.w.queue.push(t):
			t.handBack()
		}
	}

	if h.feed.paused.Load() { // perhaps since a moment, and nobody has seen these
		h.w.dropTasks(func(t *task) bool { return t.shard == h })
	}
}

// finish ends a task with its result.
func (t *task) finish(r proto.Result, latency time.Duration) {
	w := t.shard.w
	w.cutoffs.ended(t)

	if t.path != nil {
		w.queue.leave(t)
	}

	r.Run, r.Index, r.CustomID, r.RequestHash = t.shard.feed.run, t.Index, t.CustomID, t.hash
	r.Worker, r.Attempts, r.Reasons = w.cfg.Name, t.attempts, t.reasons
	r.Queued, r.Latency = t.first.Sub(t.arrived), latency

	if r.Err != nil || r.Status < 200 || r.Status >= 300 {
		w.stats.Failed.Add(1)
	}

	if t.attempts > 0 || t.deaths > 0 {
		w.shares.ended(t.shard.feed.run)
	}

	size := len(r.Body) + len(r.CustomID) + len(r.Run) + len(r.RequestID) + len(r.Worker) + 256
	t.shard.lines <- outcome{seq: t.Index, line: proto.AppendResult(make([]byte, 0, size), r)}
}

// handBack ends a task without a result, so that another worker runs it.
func (t *task) handBack() {
	t.shard.w.cutoffs.ended(t)
	if t.path != nil {
		t.shard.w.queue.leave(t)
	}
	t.shard.lines <- outcome{seq: t.Index, deaths: t.deaths}
}

// publish sends the batch to the results stream without waiting.
func (h *held) publish(ctx context.Context) {
	if len(h.batch) == 0 {
		return
	}

	slices.SortFunc(h.batch, func(a, b outcome) int { return cmp.Compare(a.seq, b.seq) })
	seqs := make([]uint32, len(h.batch))
	lines := make([]byte, 0, h.size)
	for i, o := range h.batch {
		seqs[i] = o.seq
		lines = append(lines, o.line...)
	}

	clear(h.batch)
	h.batch, h.size = h.batch[:0], 0

	msg := proto.EncodeResults(h.feed.run, h.id, seqs, lines)
	if h.source != "" {
		msg.Header.Set(proto.HeaderSource, h.source)
	}

	s := stored{msg: msg}
	h.send(ctx, &s)
	h.sent = append(slices.DeleteFunc(h.sent, isStored), s)
}

// isStored reports whether the server has confirmed a batch, which then is let go.
func isStored(s stored) bool {
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

func (h *held) send(ctx context.Context, s *stored) {
	s.ack = nil
	if err := h.feed.answers.Offload(ctx, s.msg, h.w.cfg.JS.Conn().MaxPayload()); err != nil {
		h.w.cfg.Log.Warn().Err(err).Str("shard", h.id).Msg("store big results")
		return
	}

	again := nats.NewMsg(s.msg.Subject) // the client sets a reply subject and keeps it
	again.Header, again.Data = s.msg.Header, s.msg.Data
	if ack, err := h.w.cfg.JS.PublishMsgAsync(again); err == nil {
		s.ack, s.last = ack, time.Now()
		if s.first.IsZero() {
			s.first = s.last
		}
	}
}

// confirm waits until all results are stored, sending again what is not. A full
// stream, a server that is away: both pass. It returns false when ctx ends first.
func (h *held) confirm(ctx context.Context) bool {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		var failed []stored
		for _, s := range h.sent {
			if err := h.await(ctx, s); err != nil {
				h.w.cfg.Log.Debug().Err(err).Str("shard", h.id).Msg("publish results again")
				failed = append(failed, s)
			}
		}

		h.sent = failed
		if len(failed) == 0 {
			return true
		}

		if h.feed.gone.Load() { // its streams may be gone, too
			return false
		}

		h.w.stats.Stalled.Store(true)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}

		h.w.stats.Stalled.Store(false)
		for i := range h.sent {
			h.send(ctx, &h.sent[i])
		}
	}
}

var errNoAck = errors.New("no confirmation from the server")

func (h *held) await(ctx context.Context, s stored) error {
	if s.ack == nil {
		return errNoAck
	}

	timeout := time.NewTimer(time.Until(s.last.Add(bus.AckTimeout(len(s.msg.Data), s.last.Sub(s.first)))))
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

// acknowledge removes the shard from the bus, and waits until that is certain. If it
// does not succeed, the shard comes back and is acknowledged by who gets it then.
func (h *held) acknowledge(ctx context.Context) {
	_, err := withTimeout(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, h.msg.DoubleAck(ctx)
	})
	if err != nil {
		h.w.cfg.Log.Debug().Err(err).Str("shard", h.id).Msg("acknowledge shard")
		return
	}

	h.w.stats.Shards.Add(1)
}
