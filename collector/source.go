package collector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// source reads the results stream in order, from a position on, each message at
// least once. It pulls with a consumer of its own that needs no acknowledgement; a
// gap in what that consumer delivers makes it start anew from the last message.
type source struct {
	js       jetstream.JetStream
	run      string
	at       journal.Position              // of the last message handled
	skipped  func(*jetstream.RawStreamMsg) // told of each message that cannot be delivered
	consumer jetstream.Consumer
	backlog  uint64    // the newest message when it began
	tries    int       // how often a consumer was to be made
	failed   int       // how often in a row it was not
	next     uint64    // the consumer's number for the next message
	heard    time.Time // when a message came last, or the consumer was asked how it is
}

// errGap says that messages were lost between server and client.
var errGap = errors.New("a gap in the messages delivered")

// fetch waits up to wait for messages and hands them to take, in order. It returns
// the number handled. After an error it may be called again.
func (s *source) fetch(ctx context.Context, wait time.Duration, take func(jetstream.Msg) error) (int, error) {
	if s.consumer == nil {
		if err := s.connect(ctx); err != nil {
			return 0, err
		}
	}

	batch, err := s.consumer.Fetch(256, jetstream.FetchMaxWait(wait),
		jetstream.FetchMaxBytes(max(32<<20, int(s.js.Conn().MaxPayload()))))
	if err != nil {
		s.consumer = nil
		return 0, fmt.Errorf("pull results: %w", err)
	}

	n := 0
	for msg := range batch.Messages() {
		if err != nil {
			continue // drain what comes after an error
		}

		var meta *jetstream.MsgMetadata
		if meta, err = msg.Metadata(); err != nil {
			continue
		}

		if meta.Sequence.Consumer != s.next {
			err = errGap
			continue
		}

		if err = take(msg); err != nil {
			continue
		}

		n++
		s.next++
		s.at.Sequence, s.at.Time = meta.Sequence.Stream, meta.Timestamp
	}
	if err == nil && !errors.Is(batch.Error(), jetstream.ErrBatchCompleted) { // as many as were asked for
		err = batch.Error()
	}

	switch {
	case n > 0:
		s.heard = time.Now()
	case err == nil && time.Since(s.heard) > maxSilence:
		err = s.alive(ctx)
	}
	if err != nil {
		s.consumer = nil
		return n, fmt.Errorf("pull results: %w", err)
	}

	return n, nil
}

// maxSilence is after how long without messages the consumer is asked how it is. It
// lives on one server, and is gone when that is: then a pull brings nothing, like one
// from a stream that is read to its end.
const maxSilence = 3 * time.Second

var errSilent = errors.New("the consumer has messages and does not deliver them")

func (s *source) alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, consumerTime)
	defer cancel()

	s.heard = time.Now()
	info, err := s.consumer.Info(ctx)
	switch {
	case err != nil:
		return err
	case info.NumPending > 0:
		return errSilent
	case info.Delivered.Consumer >= s.next: // into a connection that broke
		return errGap
	}

	return nil
}

// consumerTime is how long the server of the consumer may take to answer. A cluster may
// place a consumer on a node that is dead, as long as it has not noticed.
const consumerTime = 2 * time.Second

// connect makes the consumer, at the message after the position, or at the beginning
// when the stream is not the one that the position was in: then the bitmap drops what
// is known. The consumer has another name each time, since the one before may be on a node
// that is dead: nobody else answers for it.
func (s *source) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()

	stream, err := bus.FindStream(ctx, s.js, proto.ResultsStream(s.run))
	if err != nil {
		return err
	}

	info := stream.CachedInfo()
	known, err := s.known(ctx, info)
	if err != nil {
		return fmt.Errorf("look for message %d of stream %s: %w", s.at.Sequence, proto.ResultsStream(s.run), err)
	}

	if !known {
		s.at = journal.Position{Created: info.Created}
	}

	if err := s.stepOver(ctx); err != nil {
		return fmt.Errorf("look at stream %s: %w", proto.ResultsStream(s.run), err)
	}

	name := proto.CollectorConsumers[s.tries%len(proto.CollectorConsumers)]
	s.tries++
	making, stop := context.WithTimeout(ctx, consumerTime<<min(s.failed/2, 3))
	defer stop()

	if s.consumer, err = s.create(making, stream, name); err != nil {
		s.consumer = nil
		s.failed++
		return fmt.Errorf("read stream %s as %s: %w", proto.ResultsStream(s.run), name, err)
	}

	s.failed = 0
	if s.next == 0 {
		s.backlog = info.State.LastSeq
	}

	s.next, s.heard = 1, time.Now()

	return nil
}

// create makes the consumer under a name, in place of one of an earlier process.
func (s *source) create(ctx context.Context, stream jetstream.Stream, name string) (jetstream.Consumer, error) {
	if err := stream.DeleteConsumer(ctx, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, err
	}

	return stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Name:              name,
		AckPolicy:         jetstream.AckNonePolicy,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       s.at.Sequence + 1,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: time.Minute,
	})
}

// stepOver moves the position past messages that have no payload and the header with
// which a server says something itself. The library takes them for that, so no consumer
// ever delivers them.
func (s *source) stepOver(ctx context.Context) error {
	for {
		msg, err := bus.NextMessage(ctx, s.js, proto.ResultsStream(s.run), s.at.Sequence+1, proto.ResultsSubject(s.run, "*"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}

		if len(msg.Data) > 0 || msg.Header.Get("Status") == "" {
			return nil
		}

		s.skipped(msg)
		s.at.Sequence, s.at.Time = msg.Sequence, msg.Time
	}
}

// known reports whether the position's message is, or was, in the stream.
func (s *source) known(ctx context.Context, info *jetstream.StreamInfo) (bool, error) {
	if s.at.Sequence == 0 || !info.Created.Equal(s.at.Created) || info.State.LastSeq < s.at.Sequence {
		return false, nil
	}

	if s.at.Sequence < info.State.FirstSeq {
		return true, nil // purged, by ourselves
	}

	msg, err := bus.NextMessage(ctx, s.js, proto.ResultsStream(s.run), s.at.Sequence, proto.ResultsSubject(s.run, "*"))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}

	return msg.Sequence == s.at.Sequence && msg.Time.Equal(s.at.Time), nil
}
