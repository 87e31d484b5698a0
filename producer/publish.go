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

// The window of shards published but not confirmed. It is counted in bytes too,
// since a server refuses what waits beyond 128 MiB for a stream.
const (
	windowMessages = 256
	windowBytes    = 16 << 20
)

// ErrSecondProducer is returned when somebody else publishes the same run.
var ErrSecondProducer = errors.New("another producer is publishing this run")

// publisher stores shards in the work stream in order, each exactly once: every
// message names the sequence that the stream must be at. Whatever happened (a lost
// confirmation, a full stream, a server that came back with less), the stream's last
// sequence then says which shards are there, and the others are sent again.
type publisher struct {
	js      jetstream.JetStream
	stream  string
	log     zerolog.Logger
	last    uint64 // the stream's sequence once all in the window is stored
	window  []sent
	bytes   int
	stalled func(bool) // told when the stream is full, and when it is not any more
}

type sent struct {
	seq   uint64
	msg   *nats.Msg
	ack   jetstream.PubAckFuture
	first time.Time // when it was sent for the first time
}

// publish sends a shard, after waiting for room in the window.
func (p *publisher) publish(ctx context.Context, msg *nats.Msg) error {
	for len(p.window) > 0 && (len(p.window) >= windowMessages || p.bytes+len(msg.Data) > windowBytes) {
		if err := p.settle(ctx); err != nil {
			return err
		}
	}

	p.last++
	s := sent{seq: p.last, msg: msg, first: time.Now()}
	p.bytes += len(msg.Data)
	if err := p.send(&s); err != nil {
		s.ack = nil
	}

	p.window = append(p.window, s)

	return nil
}

// flush waits until all shards are stored.
func (p *publisher) flush(ctx context.Context) error {
	for len(p.window) > 0 {
		if err := p.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stored is the number of shards that are known to be stored in the stream.
func (p *publisher) stored() uint64 { return p.last - uint64(len(p.window)) }

func (p *publisher) send(s *sent) error {
	// A fresh message each time: the client sets a reply subject and keeps it.
	msg := nats.NewMsg(s.msg.Subject)
	msg.Data = s.msg.Data

	for name, values := range s.msg.Header {
		msg.Header[name] = values
	}

	msg.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(s.seq-1, 10))
	var err error
	s.ack, err = p.js.PublishMsgAsync(msg)

	return err
}

// settle waits for the oldest shard of the window.
func (p *publisher) settle(ctx context.Context) error {
	err := awaitAck(ctx, p.window[0])
	if err == nil {
		p.drop(1)
		return nil
	}

	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	return p.recover(ctx, err)
}

func (p *publisher) drop(n int) {
	for _, s := range p.window[:n] {
		p.bytes -= len(s.msg.Data)
	}
	p.window = append(p.window[:0], p.window[n:]...)
}

// awaitAck waits for a shard's confirmation. After some time the stream is asked instead.
func awaitAck(ctx context.Context, s sent) error {
	return bus.AwaitAck(ctx, s.ack, bus.AckTimeout(len(s.msg.Data), time.Since(s.first)))
}

// recover finds out what of the window is stored and sends the rest again.
func (p *publisher) recover(ctx context.Context, cause error) error {
	p.log.Debug().Err(cause).Int("window", len(p.window)).Msg("publish again")
	// The others fail too, or are stored, and then they are not sent twice. Where the first
	// was waited for in vain, they had as much time.
	if !errors.Is(cause, bus.ErrNoAck) {
		others, cancel := context.WithTimeout(ctx, bus.AckTimeout(p.bytes, 0))
		defer cancel()
		for _, s := range p.window[1:] {
			awaitAck(others, s)
		}
	}

	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if err := bus.Sleep(ctx, pause); err != nil {
			return err
		}

		stream, err := bus.FindStream(ctx, p.js, p.stream)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}

			if p.js.Conn().IsClosed() {
				return err
			}

			if errors.Is(err, jetstream.ErrStreamNotFound) {
				return fmt.Errorf("%w: stream %s is gone", errLostShards, p.stream)
			}

			p.log.Warn().Err(err).Msg("the bus does not answer; trying on")

			continue
		}

		info := stream.CachedInfo()
		if info.State.LastSeq > p.last {
			return ErrSecondProducer
		}

		stored := 0
		for stored < len(p.window) && p.window[stored].seq <= info.State.LastSeq {
			stored++
		}

		p.drop(stored)
		if len(p.window) == 0 {
			return nil
		}

		if p.window[0].seq != info.State.LastSeq+1 {
			// The server came back with less than it had confirmed.
			return fmt.Errorf("publish shards: %w: stream %s is at %d, expected at least %d",
				errLostShards, p.stream, info.State.LastSeq, p.window[0].seq-1)
		}

		full := info.Config.MaxBytes > 0 &&
			int64(info.State.Bytes)+int64(len(p.window[0].msg.Data))+1024 > info.Config.MaxBytes*3/4
		if full && info.State.Msgs > 0 {
			p.tell(true)
			continue
		}

		if full && int64(len(p.window[0].msg.Data))+1024 > info.Config.MaxBytes {
			return fmt.Errorf("publish shards: a shard of %d bytes does not fit into stream %s of %d bytes; give the bus more room",
				len(p.window[0].msg.Data), p.stream, info.Config.MaxBytes)
		}

		p.tell(false)
		for i := range p.window {
			if err := p.send(&p.window[i]); err != nil {
				p.window[i].ack = nil
			}
		}

		return nil
	}
}

// errLostShards ends a round's publishing; it is begun again from what is stored.
var errLostShards = errors.New("the bus has lost confirmed shards")

func (p *publisher) tell(full bool) {
	if p.stalled != nil {
		p.stalled(full)
	}
}
