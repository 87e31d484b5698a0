package worker

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// maxBatchBytes is the number of bytes of lines after which a batch is published.
const maxBatchBytes = 1 << 20

// Results of a shard that are not a full batch are published after a linger. A request that is
// answered but not stored is run again after a crash. By Little's law, a linger of a part of the
// latency adds that part of the requests in flight to them: with 10 ms, a model of 3,000 answers a
// second lost more than it had in flight.
const (
	minLinger  = 2 * time.Millisecond
	maxLinger  = 200 * time.Millisecond
	lingerPart = 16 // of the latency
)

// lingerFor returns the linger for requests of a latency; 0: unknown.
func lingerFor(latency time.Duration) time.Duration {
	return min(max(latency/lingerPart, minLinger), maxLinger)
}

// resultPublisher stores the output lines of one shard on the bus, in batches. The job of the
// shard is its only user.
type resultPublisher struct {
	js    jetstream.JetStream
	log   zerolog.Logger
	stats *Stats
	run   *activeRun
	shard string

	// object is the object in which the shard came, or empty.
	object string

	// batch waits to be published, and has batchBytes.
	batch      []outcome
	batchBytes int

	// pending are the batches that were published and are not confirmed.
	pending []pendingBatch
}

// pendingBatch is a batch that was published and is not known to be stored.
type pendingBatch struct {
	msg *nats.Msg

	// ack confirms the batch; nil: the last try to publish it failed.
	ack jetstream.PubAckFuture

	firstSent time.Time
	lastSent  time.Time
}

// addLine adds a line to the batch, and reports whether the batch is full.
func (p *resultPublisher) addLine(o outcome) bool {
	p.batch = append(p.batch, o)
	p.batchBytes += len(o.line)
	return len(p.batch) == proto.MaxBatch || p.batchBytes >= maxBatchBytes
}

// flushBatch publishes the batch to the results stream without waiting for its confirmation.
func (p *resultPublisher) flushBatch(ctx context.Context) {
	if len(p.batch) == 0 {
		return
	}

	slices.SortFunc(p.batch, func(a, b outcome) int { return cmp.Compare(a.index, b.index) })
	indexes := make([]uint32, len(p.batch))
	lines := make([]byte, 0, p.batchBytes)
	for i, o := range p.batch {
		indexes[i] = o.index
		lines = append(lines, o.line...)
	}

	clear(p.batch)
	p.batch, p.batchBytes = p.batch[:0], 0

	msg := proto.EncodeResults(p.run.id, p.shard, indexes, lines)
	if p.object != "" {
		msg.Header.Set(proto.HeaderSource, p.object)
	}

	b := pendingBatch{msg: msg}
	p.sendBatch(ctx, &b)
	p.pending = append(slices.DeleteFunc(p.pending, isConfirmed), b)
}

// isConfirmed reports whether the bus has confirmed that it stored a batch.
func isConfirmed(b pendingBatch) bool {
	if b.ack == nil {
		return false
	}

	select {
	case <-b.ack.Ok():
		return true
	default:
		return false
	}
}

// sendBatch publishes a batch. If that fails, awaitStored publishes it again.
func (p *resultPublisher) sendBatch(ctx context.Context, b *pendingBatch) {
	b.ack = nil
	if err := p.run.answers.Offload(ctx, b.msg, p.js.Conn().MaxPayload()); err != nil {
		p.log.Warn().Err(err).Str("run", p.run.id).Str("shard", p.shard).
			Msg("failed to store oversized results; retrying")
		return
	}

	msg := nats.NewMsg(b.msg.Subject) // a new one: the client sets a reply subject and keeps it
	msg.Header, msg.Data = b.msg.Header, b.msg.Data
	if ack, err := p.js.PublishMsgAsync(msg); err == nil {
		b.ack, b.lastSent = ack, time.Now()
		if b.firstSent.IsZero() {
			b.firstSent = b.lastSent
		}
	}
}

// awaitStored waits until all batches are stored, and publishes the others again. A full
// stream and a server that is away both pass. It returns false if ctx or the run ends first.
func (p *resultPublisher) awaitStored(ctx context.Context) bool {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		var failed []pendingBatch
		for _, b := range p.pending {
			if err := b.awaitAck(ctx); err != nil {
				p.log.Debug().Err(err).Str("run", p.run.id).Str("shard", p.shard).
					Msg("failed to publish results; retrying")
				failed = append(failed, b)
			}
		}

		p.pending = failed
		if len(failed) == 0 {
			return true
		}

		if p.run.ended.Load() { // its streams may be gone, too
			return false
		}

		p.stats.Stalled.Store(true)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}

		p.stats.Stalled.Store(false)
		for i := range p.pending {
			p.sendBatch(ctx, &p.pending[i])
		}
	}
}

// awaitAck waits for the confirmation that the batch is stored.
func (b *pendingBatch) awaitAck(ctx context.Context) error {
	return bus.AwaitAck(ctx, b.ack,
		time.Until(b.lastSent.Add(bus.AckTimeout(len(b.msg.Data), b.lastSent.Sub(b.firstSent)))))
}
