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
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// roundPublisher publishes one round of a run: it reads the input, cuts it into shards and stores
// the shards that are not stored yet.
type roundPublisher struct {
	manifest proto.Manifest
	runs     *bus.RunStore
	objects  *bus.ObjectStore
	conn     *nats.Conn
	log      zerolog.Logger
	stats    *Stats

	in *Reader
	// wanted has the indexes of the round's requests; nil: all.
	wanted *roaring.Bitmap
	// window groups the requests; nil: shards are cut in the order of the input.
	window *window
	cutter *cutter
	shards *shardPublisher
	// stored counts the shards of the round that were stored before.
	stored uint64
	// digest is the digest of the requests that were read.
	digest proto.Digest

	// checkpoint is the latest place between two shards; its Shard is 0 if there is none. It is
	// saved once its shards are stored.
	checkpoint      proto.Checkpoint
	checkpointEvery time.Duration
	checkpointSaved time.Time
}

// run publishes the round, and fails if the input is not the one that was validated.
func (r *roundPublisher) run(ctx context.Context) error {
	last := uint32(r.manifest.Input.Requests - 1)
	if r.wanted != nil && !r.wanted.IsEmpty() {
		last = r.wanted.Maximum()
	}

	for index := uint32(0); ; {
		item, err := r.in.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: it had %d requests and has %d now",
				proto.ErrInputChanged, r.manifest.Input.Requests, r.in.Checkpoint().Index)
		}
		if err != nil {
			return err
		}

		index = item.Index
		r.digest.Add(index, item.CustomID, item.Hash())

		if r.wanted == nil || r.wanted.Contains(index) {
			if err := r.publishItem(ctx, item); err != nil {
				return err
			}
		}

		if index == last {
			break
		}
	}

	if err := r.publishShards(ctx, r.cutAll()); err != nil {
		return err
	}

	if err := r.shards.flush(ctx); err != nil {
		return err
	}

	return r.verifyInput(last)
}

// publishItem takes the next request of the round, and publishes the shards that it completes.
func (r *roundPublisher) publishItem(ctx context.Context, item Item) error {
	shards, err := r.cutItem(item)
	if err != nil {
		return err
	}

	if err := r.publishShards(ctx, shards); err != nil {
		return err
	}

	return r.saveCheckpoint(ctx)
}

// cutItem takes the next request of the round, and returns the shards that it completes.
func (r *roundPublisher) cutItem(item Item) ([]modelShard, error) {
	if item.Err != nil && !r.manifest.Settings.SkipInvalid {
		return nil, fmt.Errorf("%w: %s: %w", proto.ErrInputChanged, item.Place(), item.Err)
	}

	model := item.Model
	if item.Err != nil {
		model = r.manifest.Models()[0] // any: it is not sent to a model
	}

	if r.window == nil {
		r.cutter.add(copyRequest(item.Request), model)
		return r.cutter.takeClosed(), nil
	}

	if r.window.add(copyRequest(item.Request), model); r.window.isFull() {
		return r.cutAll(), nil
	}

	return nil, nil
}

// cutAll cuts the requests that the window holds, and closes and returns all open shards.
func (r *roundPublisher) cutAll() []modelShard {
	if r.window != nil {
		for _, p := range r.window.sorted() {
			r.cutter.add(p.Request, p.model)
		}
		r.window.reset()
	}

	r.cutter.closeAll()

	return r.cutter.takeClosed()
}

// isBetweenShards reports whether all requests that were read are in shards that are closed.
func (r *roundPublisher) isBetweenShards() bool {
	return r.cutter.isEmpty() && (r.window == nil || r.window.isEmpty())
}

// publishShards sends shards to the bus, except the shards that were stored before.
func (r *roundPublisher) publishShards(ctx context.Context, shards []modelShard) error {
	for _, s := range shards {
		if s.index >= r.stored {
			s.shard.Encoding = r.manifest.Settings.ShardEncoding
			msg := proto.EncodeShard(r.manifest.Run, s.model, s.shard)
			if err := r.offload(ctx, msg, proto.ShardObject(s.shard.ID)); err != nil {
				return err
			}

			if err := r.shards.publish(ctx, msg); err != nil {
				return err
			}

			r.stats.Shards.Add(1)
		}

		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}

	return nil
}

// offload moves an oversized shard into the object store, and retries until the bus answers.
func (r *roundPublisher) offload(ctx context.Context, msg *nats.Msg, name string) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := r.objects.Offload(ctx, msg, name, r.conn.MaxPayload())
		if err == nil || ctx.Err() != nil || r.conn.IsClosed() || errors.Is(err, jetstream.ErrBucketNotFound) {
			return err
		}

		r.log.Warn().Err(err).Str("shard", msg.Header.Get(proto.HeaderShard)).
			Msg("failed to store oversized shard; retrying")

		if err := bus.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// saveCheckpoint writes a checkpoint to the manifest once in a while, when its shards are stored.
func (r *roundPublisher) saveCheckpoint(ctx context.Context) error {
	if r.wanted != nil {
		return nil
	}

	if r.checkpoint.Shard > 0 && r.manifest.Publish.FirstSequence+r.checkpoint.Shard <= r.shards.storedSequence() &&
		time.Since(r.checkpointSaved) > r.checkpointEvery {
		r.checkpointSaved = time.Now()

		err := r.runs.Update(ctx, r.manifest.Run, func(now *proto.Manifest) error {
			if now.Publish.Round != r.manifest.Publish.Round {
				return ErrSecondProducer
			}
			now.Publish.Checkpoint = r.checkpoint
			return nil
		})
		if err != nil {
			return err
		}

		r.checkpoint = proto.Checkpoint{}
	}

	if r.checkpoint.Shard == 0 && r.isBetweenShards() {
		r.checkpoint = r.in.Checkpoint()
		r.checkpoint.Shard = r.cutter.index
		r.checkpoint.Digest = r.digest
	}

	return nil
}

// verifyInput compares the requests that were read, up to last, with the validated requests. A
// round that did not read the whole input cannot compare them; then the collector finds lines of
// other requests at the end of the run.
func (r *roundPublisher) verifyInput(last uint32) error {
	if int(last) != r.manifest.Input.Requests-1 {
		return nil
	}

	if r.digest != r.manifest.Input.Digest {
		return proto.ErrInputChanged
	}

	item, err := r.in.Next()
	switch {
	case err == nil:
		return fmt.Errorf("%w: %s comes after the last of its %d requests",
			proto.ErrInputChanged, item.Place(), r.manifest.Input.Requests)
	case errors.Is(err, io.EOF):
		return nil
	}

	return err
}
