package producer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto/bus"
)

// The bounds of shards published but not confirmed. They are counted in bytes too,
// since a server refuses messages when more than 128 MiB wait for a stream.
const (
	maxPendingShards = 256
	maxPendingBytes  = 16 << 20
)

// ErrSecondProducer is returned when another producer publishes the same run.
var ErrSecondProducer = errors.New("another producer is publishing this run")

// errLostShards ends a round's publishing, which starts again from the shards that are stored.
var errLostShards = errors.New("the bus has lost confirmed shards")

// shardPublisher stores shards in the work stream in order, each exactly once: every
// message names the sequence that the stream must be at. After any failure (a lost
// confirmation, a full stream, a server that came back with less), the stream's last
// sequence shows which shards are stored, and the others are sent again.
type shardPublisher struct {
	js     jetstream.JetStream
	stream string
	log    zerolog.Logger
	// setFull, unless it is nil, is called when the stream becomes full or has room again.
	setFull func(bool)

	// last is the stream's sequence once all pending shards are stored.
	last    uint64
	pending []pendingShard
	// bytes is the size of the pending shards.
	bytes int
}

// pendingShard is a shard that was sent and is not confirmed yet.
type pendingShard struct {
	sequence uint64
	msg      *nats.Msg
	// ack is nil if the shard could not be sent.
	ack       jetstream.PubAckFuture
	firstSent time.Time
}

// publish sends a shard, after waiting for room among the pending ones.
func (p *shardPublisher) publish(ctx context.Context, msg *nats.Msg) error {
	for len(p.pending) > 0 && (len(p.pending) >= maxPendingShards || p.bytes+len(msg.Data) > maxPendingBytes) {
		if err := p.awaitFirst(ctx); err != nil {
			return err
		}
	}

	p.last++
	s := pendingShard{sequence: p.last, msg: msg, firstSent: time.Now()}
	p.send(&s)

	p.bytes += len(msg.Data)
	p.pending = append(p.pending, s)

	return nil
}

// flush waits until all shards are stored.
func (p *shardPublisher) flush(ctx context.Context) error {
	for len(p.pending) > 0 {
		if err := p.awaitFirst(ctx); err != nil {
			return err
		}
	}

	return nil
}

// storedSequence is the sequence of the last shard that is known to be stored.
func (p *shardPublisher) storedSequence() uint64 { return p.last - uint64(len(p.pending)) }

// send sends a shard, for the first time or again.
func (p *shardPublisher) send(s *pendingShard) {
	// A new message each time: the client sets a reply subject and keeps it.
	msg := nats.NewMsg(s.msg.Subject)
	msg.Data = s.msg.Data

	for name, values := range s.msg.Header {
		msg.Header[name] = values
	}

	msg.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(s.sequence-1, 10))

	ack, err := p.js.PublishMsgAsync(msg)
	if err != nil {
		ack = nil // it is never confirmed, and so sent again
	}

	s.ack = ack
}

// awaitFirst waits for the oldest pending shard.
func (p *shardPublisher) awaitFirst(ctx context.Context) error {
	err := p.pending[0].awaitAck(ctx)
	if err == nil {
		p.drop(1)
		return nil
	}

	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	return p.resend(ctx, err)
}

// drop forgets the n oldest pending shards, which are stored.
func (p *shardPublisher) drop(n int) {
	for _, s := range p.pending[:n] {
		p.bytes -= len(s.msg.Data)
	}

	p.pending = append(p.pending[:0], p.pending[n:]...)
}

// awaitAck waits for a shard's confirmation. If none comes in time, the stream is asked instead.
func (s pendingShard) awaitAck(ctx context.Context) error {
	return bus.AwaitAck(ctx, s.ack, bus.AckTimeout(len(s.msg.Data), time.Since(s.firstSent)))
}

// resend asks the stream which of the pending shards are stored, and sends the others again as
// soon as there is room for them.
func (p *shardPublisher) resend(ctx context.Context, cause error) error {
	p.log.Debug().Err(cause).Int("pending", len(p.pending)).Msg("sending shards again")

	// The others fail too, or are stored, and then they are not sent twice. If the confirmation
	// of the first did not come, the others had as much time.
	if !errors.Is(cause, bus.ErrNoAck) {
		others, cancel := context.WithTimeout(ctx, bus.AckTimeout(p.bytes, 0))
		defer cancel()

		for _, s := range p.pending[1:] {
			s.awaitAck(others)
		}
	}

	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if err := bus.Sleep(ctx, pause); err != nil {
			return err
		}

		stream, err := bus.FindStream(ctx, p.js, p.stream)
		if err != nil {
			if err := p.checkLookup(ctx, err); err != nil {
				return err
			}
			continue
		}

		info := stream.CachedInfo()
		if err := p.dropStored(info.State.LastSeq); err != nil || len(p.pending) == 0 {
			return err
		}

		hasRoom, err := p.checkRoom(info)
		if err != nil {
			return err
		}

		if !hasRoom {
			continue
		}

		for i := range p.pending {
			p.send(&p.pending[i])
		}

		return nil
	}
}

// checkLookup returns the error that ends publishing when the stream was not found, or nil if it
// is to be looked for again.
func (p *shardPublisher) checkLookup(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case p.js.Conn().IsClosed():
		return err
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return fmt.Errorf("%w: stream %s is gone", errLostShards, p.stream)
	}

	p.log.Warn().Err(err).Msg("the bus does not answer; retrying")

	return nil
}

// dropStored forgets the pending shards that a stream at this sequence has.
func (p *shardPublisher) dropStored(sequence uint64) error {
	if sequence > p.last {
		return ErrSecondProducer
	}

	stored := 0
	for stored < len(p.pending) && p.pending[stored].sequence <= sequence {
		stored++
	}

	p.drop(stored)

	if len(p.pending) > 0 && p.pending[0].sequence != sequence+1 {
		// The server came back with less than it had confirmed.
		return fmt.Errorf("publish shards: %w: stream %s is at %d, expected at least %d",
			errLostShards, p.stream, sequence, p.pending[0].sequence-1)
	}

	return nil
}

// checkRoom reports whether the stream has room for the first pending shard. It fails if the
// stream never will.
func (p *shardPublisher) checkRoom(info *jetstream.StreamInfo) (bool, error) {
	const overhead = 1024 // of a message in the store

	need, most := int64(len(p.pending[0].msg.Data))+overhead, info.Config.MaxBytes
	isFull := most > 0 && int64(info.State.Bytes)+need > most*3/4
	if isFull && info.State.Msgs > 0 {
		p.reportFull(true)
		return false, nil
	}

	if isFull && need > most {
		return false, fmt.Errorf("publish shards: a shard of %d bytes does not fit into stream %s of %d bytes; "+
			"give the bus more room", need-overhead, p.stream, most)
	}

	p.reportFull(false)

	return true, nil
}

func (p *shardPublisher) reportFull(full bool) {
	if p.setFull != nil {
		p.setFull(full)
	}
}
