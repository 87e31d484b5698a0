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

// source reads the results stream in order, from a position on, each message at least once.
// It has its own pull consumer, which needs no acknowledgement. After a gap in the
// messages of the consumer, it starts again at the last message.
type source struct {
	js  jetstream.JetStream
	run string
	// at is the last message that was handled.
	at journal.Position
	// skipped is called with each message that cannot be delivered.
	skipped func(*jetstream.RawStreamMsg)

	consumer jetstream.Consumer // nil: to be created
	next     uint64             // the consumer's sequence of the next message; 0: none was created yet
	heard    time.Time          // when a message came last, or the state of the consumer was read
	backlog  uint64             // the newest message when reading began
	attempts int                // to create a consumer
	failures int                // of these in a row
}

// errGap reports that messages were lost between server and client.
var errGap = errors.New("a gap in the messages delivered")

// fetchMessages waits up to wait for messages and passes them to handle, in order. It returns the
// number of messages that were handled. After an error it may be called again.
func (s *source) fetchMessages(ctx context.Context, wait time.Duration, handle func(jetstream.Msg) error) (int, error) {
	if s.consumer == nil {
		if err := s.connectConsumer(ctx); err != nil {
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
			continue // drain the messages after an error
		}

		var meta *jetstream.MsgMetadata
		if meta, err = msg.Metadata(); err != nil {
			continue
		}

		if meta.Sequence.Consumer != s.next {
			err = errGap
			continue
		}

		if err = handle(msg); err != nil {
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
		err = s.checkConsumer(ctx)
	}
	if err != nil {
		s.consumer = nil
		return n, fmt.Errorf("pull results: %w", err)
	}

	return n, nil
}

// maxSilence is the time without messages after which the consumer is checked. It lives on
// one server, and is gone when the server is: then a pull brings nothing, like one from a
// stream that is read to its end.
const maxSilence = 3 * time.Second

var errSilent = errors.New("the consumer has messages and does not deliver them")

// checkConsumer returns an error if the consumer should have delivered more.
func (s *source) checkConsumer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, consumerTimeout)
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

// consumerTimeout is the limit for an answer of the consumer's server. A cluster may
// place a consumer on a dead server until it notices.
const consumerTimeout = 2 * time.Second

// connectConsumer creates the consumer at the message after the position, or at the beginning when
// the stream is another one than that of the position: then the bitmap drops known lines. The
// consumer has another name each time, since the one before may be on a dead server, and no
// other server answers for it.
func (s *source) connectConsumer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()

	stream, err := bus.FindStream(ctx, s.js, proto.ResultsStream(s.run))
	if err != nil {
		return err
	}

	info := stream.CachedInfo()

	valid, err := s.isPositionValid(ctx, info)
	if err != nil {
		return fmt.Errorf("find message %d of stream %s: %w", s.at.Sequence, proto.ResultsStream(s.run), err)
	}

	if !valid {
		s.at = journal.Position{Created: info.Created}
	}

	if err := s.skipUndeliverable(ctx); err != nil {
		return fmt.Errorf("skip undeliverable messages of stream %s: %w", proto.ResultsStream(s.run), err)
	}

	name := proto.CollectorConsumers[s.attempts%len(proto.CollectorConsumers)]
	s.attempts++

	creating, stop := context.WithTimeout(ctx, consumerTimeout<<min(s.failures/2, 3))
	defer stop()

	if s.consumer, err = s.createConsumer(creating, stream, name); err != nil {
		s.consumer = nil
		s.failures++
		return fmt.Errorf("read stream %s as %s: %w", proto.ResultsStream(s.run), name, err)
	}

	s.failures = 0
	if s.next == 0 {
		s.backlog = info.State.LastSeq
	}

	s.next, s.heard = 1, time.Now()

	return nil
}

// createConsumer creates the consumer under a name. It replaces one of an earlier process.
func (s *source) createConsumer(
	ctx context.Context, stream jetstream.Stream, name string,
) (jetstream.Consumer, error) {
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

// skipUndeliverable moves the position past messages that have no payload and the header of
// a server's own messages. The library takes them for such, so no consumer ever delivers
// them.
func (s *source) skipUndeliverable(ctx context.Context) error {
	for {
		msg, err := s.nextMessage(ctx, s.at.Sequence+1)
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

// nextMessage returns the first message from a sequence on.
func (s *source) nextMessage(ctx context.Context, sequence uint64) (*jetstream.RawStreamMsg, error) {
	return bus.NextMessage(ctx, s.js, proto.ResultsStream(s.run), sequence, proto.ResultsSubject(s.run, "*"))
}

// isPositionValid reports whether the position's message is, or was, in the stream.
func (s *source) isPositionValid(ctx context.Context, info *jetstream.StreamInfo) (bool, error) {
	if s.at.Sequence == 0 || !info.Created.Equal(s.at.Created) || info.State.LastSeq < s.at.Sequence {
		return false, nil
	}

	if s.at.Sequence < info.State.FirstSeq {
		return true, nil // purged by a collector
	}

	msg, err := s.nextMessage(ctx, s.at.Sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}

	return msg.Sequence == s.at.Sequence && msg.Time.Equal(s.at.Time), nil
}
