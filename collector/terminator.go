package collector

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// terminator ends a run early: it gives each request without a line an error line with the
// reason. It publishes the lines as results, as a worker does. So they take the same way into
// the journal, a crash in between costs nothing, and readers downstream see them too.
type terminator struct {
	js      jetstream.JetStream
	answers *bus.AnswerStore
	run     string
	input   Input
	end     earlyEnd
	log     zerolog.Logger

	purged   time.Time // when the work stream was purged; zero: not yet
	batch    int       // messages published
	maxLines int       // in one message

	next      func() (proto.Request, error, bool)
	stopInput func() // ends the iteration of the input
}

// settleTime is the time that the terminator waits for results that are on their way. Workers
// learn of the end at once, and cut off their requests to the model servers.
const settleTime = 2 * time.Second

const (
	endLines    = 512     // in one message, at most
	endBytes    = 1 << 20 // of lines in one message, at most
	endMessages = 16      // between two looks at the results
)

// step publishes some lines. It is called when no results come. missing returns the
// requests that have no line.
func (t *terminator) step(ctx context.Context, missing func() *roaring.Bitmap) error {
	if t.purged.IsZero() {
		if err := t.purgeWork(ctx); err != nil {
			t.log.Warn().Err(err).Msg("failed to purge the work of the ended run; retrying")
			return bus.Sleep(ctx, time.Second)
		}
		t.purged = time.Now()
	}

	if time.Since(t.purged) < settleTime {
		return nil
	}

	if t.next == nil {
		t.next, t.stopInput = iter.Pull2(t.input.Requests(ctx, missing()))
	}

	for range endMessages {
		more, err := t.publishBatch(ctx)
		if err != nil {
			return err
		}

		if !more {
			// Lines that the bus has lost are published again.
			t.stop()
			t.purged = time.Now()

			return nil
		}
	}

	return nil
}

// stop ends the iteration of the input. t may be nil.
func (t *terminator) stop() {
	if t != nil && t.stopInput != nil {
		t.stopInput()
		t.next, t.stopInput = nil, nil
	}
}

// purgeWork deletes the shards that no worker has.
func (t *terminator) purgeWork(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	err := bus.PurgeStream(ctx, t.js, proto.WorkStream(t.run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}

	return err
}

// publishBatch stores one message of lines. It reports whether there may be more.
func (t *terminator) publishBatch(ctx context.Context) (more bool, err error) {
	indexes, lines, more, err := t.nextLines()
	if err != nil || len(indexes) == 0 {
		return false, err
	}

	t.batch++
	shard := proto.EndingShard(t.end.state, t.batch)

	for {
		msg := proto.EncodeResults(t.run, shard, indexes, lines)

		err := t.answers.Offload(ctx, msg, t.js.Conn().MaxPayload())
		if err == nil {
			_, err = t.js.PublishMsg(ctx, msg)
		}
		if err == nil {
			return more, nil
		}

		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}

		// A full stream has to be read first, and only this process can. The lines left out
		// are published in the next iteration.
		if bus.IsStreamFull(err) {
			t.maxLines = max(1, t.maxLines/2) // in case the stream is smaller than a message
			return false, nil
		}

		t.log.Warn().Err(err).Msg("failed to publish the lines of the ended run; retrying")

		if err := bus.Sleep(ctx, time.Second); err != nil {
			return false, err
		}
	}
}

// nextLines returns the lines of one message.
func (t *terminator) nextLines() (indexes []uint32, lines []byte, more bool, err error) {
	for more = true; more && len(indexes) < t.maxLines && len(lines) < endBytes; {
		var r proto.Request
		r, err, more = t.next()
		if err != nil {
			return nil, nil, false, fmt.Errorf("read the requests that were not executed: %w", err)
		}

		if more {
			indexes = append(indexes, r.Index)
			lines = proto.AppendResult(lines, proto.Result{
				Run:         t.run,
				Index:       r.Index,
				CustomID:    r.CustomID,
				RequestHash: r.Hash(),
				Err:         &proto.ResultError{Code: t.end.code, Message: t.end.message},
			})
		}
	}

	return indexes, lines, more, nil
}
