package producer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// rounder is the state of publishing one round.
type rounder struct {
	*Producer
	m      proto.Manifest
	in     *Reader
	skip   uint64          // shards that are stored already
	wanted *roaring.Bitmap // nil: all
	window *window         // nil: shards are cut in the order of the input
	cut    *cutter
	pub    *publisher
	limit  int64        // max_payload
	digest proto.Digest // of the requests that were read

	point proto.Checkpoint // the latest place between two shards
	noted time.Time        // when a point was last written to the manifest
}

func (r *rounder) publishAll(ctx context.Context) error {
	emit := func(c cut) error { return r.emit(ctx, c) }
	last := uint32(r.m.Input.Requests - 1)
	if r.wanted != nil && !r.wanted.IsEmpty() {
		last = r.wanted.Maximum()
	}

	for {
		item, err := r.in.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: it had %d requests and has %d now",
				proto.ErrInputChanged, r.m.Input.Requests, r.in.Checkpoint().Index)
		}
		if err != nil {
			return err
		}

		r.digest.Add(item.Index, item.CustomID, item.Hash())

		if r.wanted == nil || r.wanted.Contains(item.Index) {
			if err := r.add(item, emit); err != nil {
				return err
			}
			if err := r.note(ctx); err != nil {
				return err
			}
		}

		if item.Index == last {
			break
		}
	}

	if err := r.closeAll(emit); err != nil {
		return err
	}

	if err := r.pub.flush(ctx); err != nil {
		return err
	}

	return r.prove(last)
}

// prove holds what was published against what was validated. A round that did not read
// the whole input cannot know; then the collector finds lines of other requests at the end
// of the run.
func (r *rounder) prove(last uint32) error {
	if int(last) != r.m.Input.Requests-1 {
		return nil
	}

	if r.digest != r.m.Input.Digest {
		return proto.ErrInputChanged
	}

	item, err := r.in.Next()
	switch {
	case err == nil:
		return fmt.Errorf("%w: %s:%d comes after the last of its %d requests",
			proto.ErrInputChanged, item.File, item.Line, r.m.Input.Requests)
	case errors.Is(err, io.EOF):
		return nil
	}

	return err
}

func (r *rounder) add(item Item, emit func(cut) error) error {
	if item.Err != nil && !r.m.Settings.SkipInvalid {
		return fmt.Errorf("%w: %s:%d: %w", proto.ErrInputChanged, item.File, item.Line, item.Err)
	}

	model := item.Model
	if item.Err != nil {
		model = r.m.Models()[0] // any will do: nobody asks a model
	}

	if r.window == nil {
		return r.cut.add(copyRequest(item.Request), model, emit)
	}

	if r.window.add(copyRequest(item.Request), model); r.window.full() {
		return r.closeAll(emit)
	}

	return nil
}

// closeAll cuts what the window holds and closes all open shards.
func (r *rounder) closeAll(emit func(cut) error) error {
	if r.window != nil {
		err := r.window.drain(func(q proto.Request, model string) error { return r.cut.add(q, model, emit) })
		if err != nil {
			return err
		}
	}
	return r.cut.flush(emit)
}

// clean reports whether all requests that were read are in shards that are closed.
func (r *rounder) clean() bool { return r.cut.clean() && (r.window == nil || r.window.empty()) }

func (r *rounder) emit(ctx context.Context, c cut) error {
	if c.index >= r.skip {
		msg := proto.EncodeShard(r.m.Run, c.model, c.shard)
		if err := r.offload(ctx, msg, proto.ShardObject(c.shard.ID)); err != nil {
			return err
		}

		if err := r.pub.publish(ctx, msg); err != nil {
			return err
		}

		r.stats.Shards.Add(1)
	}

	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	return nil
}

// offload moves a big shard into the object store, whatever happens to the bus
// meanwhile.
func (r *rounder) offload(ctx context.Context, msg *nats.Msg, name string) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := r.objects.Offload(ctx, msg, name, r.limit)
		if err == nil || ctx.Err() != nil || r.cfg.JS.Conn().IsClosed() || errors.Is(err, jetstream.ErrBucketNotFound) {
			return err
		}

		r.cfg.Log.Warn().Err(err).Msg("store a big shard; trying on")
		if err := bus.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// note writes a point to go on from into the manifest, now and then.
func (r *rounder) note(ctx context.Context) error {
	if r.wanted != nil {
		return nil
	}

	if r.point.Shard > 0 && r.m.Publish.FirstSequence+r.point.Shard <= r.pub.stored() &&
		time.Since(r.noted) > r.noteEvery {
		r.noted = time.Now()
		err := r.runs.Update(ctx, r.m.Run, func(now *proto.Manifest) error {
			if now.Publish.Round != r.m.Publish.Round {
				return ErrSecondProducer
			}
			now.Publish.Checkpoint = r.point
			return nil
		})
		if err != nil {
			return err
		}

		r.point = proto.Checkpoint{}
	}

	if r.point.Shard == 0 && r.clean() {
		r.point = r.in.Checkpoint()
		r.point.Shard = r.cut.index
		r.point.Digest = r.digest
	}

	return nil
}
