package collector

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// ending is why a run ends before all its requests were run.
type ending struct {
	state   proto.State
	code    string // of the error in the lines of the rest, in OpenAI's words
	message string
}

var (
	cancelled = ending{
		proto.StateCancelled, proto.CodeCancelled, "This request was not executed before the run was cancelled.",
	}
	expired = ending{
		proto.StateExpired, proto.CodeExpired,
		"This request could not be executed before the completion window expired.",
	}
)

// ender gives each request that has no line one that says why. It does as a worker
// does, and publishes the lines as results: so they take the same way into the
// journal, a crash in between costs nothing, and readers downstream see them too.
type ender struct {
	c      *Collector
	ending ending
	begun  time.Time
	purged bool
	batch  int // of messages published
	lines  int // in each of them

	next func() (proto.Request, error, bool)
	end  func() // of the input's iterator
}

// settleTime is how long an ending waits for results that are on their way: workers
// hear of it at once, and cut off what is at the model servers.
const settleTime = 2 * time.Second

// Lines and bytes in one message, at most, and messages between two looks at what came.
const (
	endingLines    = 512
	endingBytes    = 1 << 20
	endingMessages = 16
)

func newEnder(c *Collector, e ending) *ender { return &ender{c: c, ending: e, lines: endingLines} }

// step is called when no results come. It publishes some lines.
func (e *ender) step(ctx context.Context) error {
	if !e.purged {
		if err := e.purge(ctx); err != nil {
			e.c.cfg.Log.Warn().Err(err).Msg("take the work of an ended run off the bus; trying on")
			return bus.Sleep(ctx, time.Second)
		}
		e.purged, e.begun = true, time.Now()
	}

	if time.Since(e.begun) < settleTime {
		return nil
	}

	if e.next == nil {
		e.next, e.end = iter.Pull2(e.c.cfg.Input.Requests(roaring.Flip(e.c.seen, 0, uint64(e.c.total))))
	}

	for range endingMessages {
		more, err := e.publish(ctx)
		if err != nil {
			return err
		}

		if !more {
			// Whatever is missing still, for the bus lost it, is published again.
			e.stop()
			e.begun = time.Now()
			return nil
		}
	}

	return nil
}

// stop ends the iteration of the input. e may be nil.
func (e *ender) stop() {
	if e != nil && e.end != nil {
		e.end()
		e.next, e.end = nil, nil
	}
}

// purge takes away the shards that nobody has.
func (e *ender) purge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := bus.PurgeStream(ctx, e.c.cfg.JS, proto.WorkStream(e.c.run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	return err
}

// publish stores one message of lines. It reports whether there may be more.
func (e *ender) publish(ctx context.Context) (more bool, err error) {
	var seqs []uint32
	var lines []byte
	for more = true; more && len(seqs) < e.lines && len(lines) < endingBytes; {
		var r proto.Request
		r, err, more = e.next()
		if err != nil {
			return false, fmt.Errorf("name the requests that were not executed: %w", err)
		}

		if more {
			seqs = append(seqs, r.Index)
			lines = proto.AppendResult(lines, proto.Result{
				Run:         e.c.run,
				Index:       r.Index,
				CustomID:    r.CustomID,
				RequestHash: r.Hash(),
				Err:         &proto.ResultError{Code: e.ending.code, Message: e.ending.message},
			})
		}
	}

	if len(seqs) == 0 {
		return false, nil
	}

	e.batch++
	shard := proto.EndingShard(e.ending.state, e.batch)
	for {
		msg := proto.EncodeResults(e.c.run, shard, seqs, lines)
		err := bus.New(e.c.cfg.JS).Answers(e.c.run).Offload(ctx, msg, e.c.cfg.JS.Conn().MaxPayload())
		if err == nil {
			_, err = e.c.cfg.JS.PublishMsg(ctx, msg)
		}
		if err == nil {
			return more, nil
		}

		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}

		// A full stream has to be read first; nobody is there who could, but us. The
		// lines left out are published in the next iteration.
		if bus.IsStreamFull(err) {
			e.lines = max(1, e.lines/2) // should the stream be smaller than a message
			return false, nil
		}

		e.c.cfg.Log.Warn().Err(err).Msg("publish the lines of an ended run; trying on")
		if err := bus.Sleep(ctx, time.Second); err != nil {
			return false, err
		}
	}
}
