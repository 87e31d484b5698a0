package collector

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// rounds finds requests that ended nowhere (their shard or their result was lost with
// a broker's storage, purged, or could not be read; or their shard is out and nobody has it)
// and has them published again.
type rounds struct {
	c        *Collector
	checked  time.Time
	fruitful int       // requests missing when the latest round began
	vain     int       // rounds since then that brought nothing
	nobody   time.Time // since when shards are out and nobody has one; zero: it is not so
}

// maxVain is after how many rounds without a single new result a run is given up.
const maxVain = 3

// check is called when no results come. Once a second it looks whether any can come
// still, and if not, starts a round of publishing for what is missing.
func (r *rounds) check(ctx context.Context) error {
	if time.Since(r.checked) < time.Second {
		return nil
	}

	r.checked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	err := r.look(ctx)
	if errors.Is(err, errInVain) {
		return err
	}
	if err != nil && ctx.Err() == nil {
		r.c.cfg.Log.Warn().Err(err).Msg("look for lost requests")
	}

	return nil
}

func (r *rounds) look(ctx context.Context) error {
	c := r.c
	m, err := c.runs.Get(ctx, c.run)
	if err != nil {
		return err
	}

	base, lost, err := r.drained(ctx, m)
	if err != nil || !lost {
		return err
	}

	missing := roaring.Flip(c.seen, 0, uint64(c.total))
	if n := c.missing(); n == r.fruitful {
		if r.vain++; r.vain >= maxVain {
			return fmt.Errorf("%d requests, the first of them number %d, %w", n, missing.Minimum(), errInVain)
		}
	} else {
		r.fruitful, r.vain = n, 0
	}

	c.cfg.Log.Warn().Int("requests", c.missing()).Msg("publishing requests again that the bus has lost")
	r.nobody = time.Time{}

	return StartRound(ctx, c.cfg.JS, c.runs, c.run, base, missing)
}

var errInVain = fmt.Errorf("got no result although they were published %d times", maxVain)

// drained reports whether no more results can come: all shards are published, none is
// waiting or out with a worker, and the results stream is read to its end. The order
// matters: a worker stores results before it acknowledges a shard. base is the work
// stream's sequence.
func (r *rounds) drained(ctx context.Context, m proto.Manifest) (base uint64, yes bool, err error) {
	c := r.c
	work, err := bus.FindStream(ctx, c.cfg.JS, proto.WorkStream(c.run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, true, bus.EnsureStreams(ctx, c.cfg.JS, m, c.cfg.Limits)
	}
	if err != nil {
		return 0, false, err
	}

	state := work.CachedInfo().State
	if !m.Publish.Done {
		return 0, false, r.consumers(ctx, m)
	}

	if state.Msgs > 0 {
		stray, err := r.stray(ctx, m)
		if err != nil || !stray {
			return 0, false, errors.Join(err, r.consumers(ctx, m))
		}
	}

	results, err := bus.FindStream(ctx, c.cfg.JS, proto.ResultsStream(c.run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, false, bus.EnsureStreams(ctx, c.cfg.JS, m, c.cfg.Limits)
	}
	if err != nil {
		return 0, false, err
	}

	info := results.CachedInfo()
	read := c.source.at.Created.Equal(info.Created) && c.source.at.Sequence >= info.State.LastSeq

	return state.LastSeq, read || info.State.Msgs == 0, nil
}

// strayTime is for how long nobody may have a shard that is out, until it counts as lost on
// its way: all workers have announced themselves again since then.
const strayTime = 2 * proto.PresenceTTL / 5

// stray reports whether shards are out with nobody. What a node sends to a worker just before
// it dies, or into a connection that breaks, reaches no one, and is delivered again only
// after the ack wait. A worker that vanished may be at work still, and a shard that killed
// it has to count its deliveries: so the ack wait is waited for then. So it is where a
// worker does not say what it has.
func (r *rounds) stray(ctx context.Context, m proto.Manifest) (bool, error) {
	nobody, err := r.withNobody(ctx, m)
	switch {
	case err != nil || !nobody:
		r.nobody = time.Time{}
		return false, err
	case r.nobody.IsZero():
		r.nobody = time.Now()
	}

	now := time.Now()
	r.c.clock.blind(r.nobody, now) // there is work, and the bus has not brought it

	return now.Sub(r.nobody) > strayTime, nil
}

// noteResults notes that results have come: a worker got a shard since it announced itself, so
// the time in which nobody has one begins again.
func (r *rounds) noteResults() { r.nobody = time.Time{} }

// withNobody reports whether all shards are out, and no worker has any, though each is able
// to work.
func (r *rounds) withNobody(ctx context.Context, m proto.Manifest) (bool, error) {
	c := r.c
	if m.State != proto.StateInProgress || c.fleet.vanished(time.Now().Add(-bus.AckWait-proto.PresenceTTL)) {
		return false, nil
	}

	workers, err := c.heartbeats.Workers(ctx)
	if err != nil {
		return false, err
	}

	for _, w := range workers {
		if w.Shards == nil || *w.Shards > 0 || !w.Ready || w.Problem != "" {
			return false, nil
		}
	}

	out := false
	for _, model := range m.Models() {
		consumer, err := bus.FindConsumer(ctx, c.cfg.JS, proto.WorkStream(c.run), proto.ConsumerName(model))
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return false, nil // it is made
		}
		if err != nil {
			return false, err
		}

		info := consumer.CachedInfo()
		served := slices.ContainsFunc(workers, func(w proto.WorkerInfo) bool {
			return model == "" || proto.Serves(w.Models, model)
		})
		if info.NumPending > 0 || info.NumAckPending > 0 && !served {
			return false, nil // a worker takes them, or comes for them
		}

		out = out || info.NumAckPending > 0
	}

	return out, nil
}

// consumers makes the consumers and the results stream again if somebody removed them.
func (r *rounds) consumers(ctx context.Context, m proto.Manifest) error {
	if _, err := bus.FindStream(ctx, r.c.cfg.JS, proto.ResultsStream(r.c.run)); errors.Is(err,
		jetstream.ErrStreamNotFound) {
		return bus.EnsureStreams(ctx, r.c.cfg.JS, m, r.c.cfg.Limits)
	}

	for _, model := range m.Models() {
		_, err := bus.FindConsumer(ctx, r.c.cfg.JS, proto.WorkStream(r.c.run), proto.ConsumerName(model))
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return bus.EnsureStreams(ctx, r.c.cfg.JS, m, r.c.cfg.Limits)
		}
	}

	return nil
}

// StartRound tells the producer of a run to publish the missing requests. base is the
// sequence that the work stream is at.
func StartRound(
	ctx context.Context, js jetstream.JetStream, runs *bus.RunStore, run string, base uint64, missing *roaring.Bitmap,
) error {
	m, err := runs.Get(ctx, run)
	if err != nil {
		return err
	}

	data, err := missing.ToBytes()
	if err != nil {
		return fmt.Errorf("list of missing requests: %w", err)
	}

	round := m.Publish.Round + 1
	name := proto.MissingObject(round, rand.Text())
	if err := bus.New(js).Objects(run).Put(ctx, name, data); err != nil {
		return err
	}

	return runs.Update(ctx, run, func(now *proto.Manifest) error {
		if now.Publish.Round != round-1 {
			return proto.ErrConflict
		}
		now.State = proto.StateInProgress
		now.Publish = proto.PublishState{Round: round, FirstSequence: base, Missing: name}
		return nil
	})
}
