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
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// republisher finds requests from which no result can come any more, and has them published
// again. Their shard or their result was lost with a server's storage, purged, or could not
// be read; or their shard is in flight and no worker has it.
type republisher struct {
	js       jetstream.JetStream
	bus      *bus.Bus
	run      string
	limits   bus.Limits
	activity *activityTimer
	workers  *workerRegistry
	log      zerolog.Logger

	checked       time.Time
	lastMissing   int       // requests missing when the latest round began
	stalledRounds int       // rounds since then that brought nothing
	strayingSince time.Time // shards are in flight and no worker has one; zero: it is not so
}

// maxStalledRounds is the number of rounds without a single new result after which a run is
// given up.
const maxStalledRounds = 3

var errStalled = fmt.Errorf("got no result although they were published %d times", maxStalledRounds)

// check is called when no results come. Once a second it looks whether any can still come,
// and if not, starts a round of publishing for the missing requests. at is the position up to
// which results were read.
func (r *republisher) check(ctx context.Context, at journal.Position, missing func() *roaring.Bitmap) error {
	if time.Since(r.checked) < time.Second {
		return nil
	}

	r.checked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	err := r.republishLost(ctx, at, missing)
	if errors.Is(err, errStalled) {
		return err
	}
	if errors.Is(err, proto.ErrNoRun) {
		return nil // the run is deleted: the sync loop ends the session
	}
	if err != nil && ctx.Err() == nil {
		r.log.Warn().Err(err).Msg("failed to look for lost requests; retrying")
	}

	return nil
}

// noteResults notes that results have come: a worker got a shard since it announced itself,
// so the time in which no worker has one begins again.
func (r *republisher) noteResults() { r.strayingSince = time.Time{} }

// republishLost starts a round of publishing if no more results can come.
func (r *republisher) republishLost(
	ctx context.Context, at journal.Position, missing func() *roaring.Bitmap,
) error {
	m, err := r.bus.Runs.Get(ctx, r.run)
	if err != nil {
		return err
	}

	workSequence, drained, err := r.checkDrained(ctx, m, at)
	if err != nil || !drained {
		return err
	}

	lost := missing()
	if n := int(lost.GetCardinality()); n != r.lastMissing {
		r.lastMissing, r.stalledRounds = n, 0
	} else if r.stalledRounds++; r.stalledRounds >= maxStalledRounds {
		return fmt.Errorf("%d requests, the first of them number %d, %w", n, lost.Minimum(), errStalled)
	}

	if m.Publish.Retry {
		r.log.Info().Int("requests", r.lastMissing).Msg("publishing the failed requests again")
	} else {
		r.log.Warn().Int("requests", r.lastMissing).Msg("publishing requests again that have no result on the bus")
	}

	r.strayingSince = time.Time{}

	return RepublishMissing(ctx, r.js, r.bus.Runs, r.run, workSequence, lost)
}

// checkDrained reports whether no more results can come: all shards are published, none is
// waiting or in flight with a worker, and the results stream is read to its end. The order
// matters: a worker stores results before it acknowledges a shard. sequence is the last one
// of the work stream.
func (r *republisher) checkDrained(
	ctx context.Context, m proto.Manifest, at journal.Position,
) (sequence uint64, drained bool, err error) {
	work, err := bus.FindStream(ctx, r.js, proto.WorkStream(r.run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, true, bus.EnsureStreams(ctx, r.js, m, r.limits)
	}
	if err != nil {
		return 0, false, err
	}

	state := work.CachedInfo().State
	if !m.Publish.Done {
		return 0, false, r.restoreConsumers(ctx, m)
	}

	if state.Msgs > 0 {
		stray, err := r.areStray(ctx, m)
		if err != nil || !stray {
			return 0, false, errors.Join(err, r.restoreConsumers(ctx, m))
		}
	}

	results, err := bus.FindStream(ctx, r.js, proto.ResultsStream(r.run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, false, bus.EnsureStreams(ctx, r.js, m, r.limits)
	}
	if err != nil {
		return 0, false, err
	}

	info := results.CachedInfo()
	read := at.Created.Equal(info.Created) && at.Sequence >= info.State.LastSeq

	return state.LastSeq, read || info.State.Msgs == 0, nil
}

// strayTime is the time without a worker after which a shard in flight counts as lost on its
// way: all workers have announced themselves again since then.
const strayTime = 2 * proto.PresenceTTL / 5

// areStray reports whether shards are in flight and no worker has them. What a server sends
// to a worker just before it dies, or into a connection that breaks, reaches no one, and is
// delivered again only after the ack wait. A worker that vanished may still be at work, and
// a shard that crashed it has to count its deliveries: then the ack wait is waited for. The
// same holds if a worker does not report its shards.
func (r *republisher) areStray(ctx context.Context, m proto.Manifest) (bool, error) {
	unheld, err := r.areUnheld(ctx, m)
	switch {
	case err != nil || !unheld:
		r.strayingSince = time.Time{}
		return false, err
	case r.strayingSince.IsZero():
		r.strayingSince = time.Now()
	}

	now := time.Now()
	r.activity.noteBlind(r.strayingSince, now) // there is work, and the bus has not brought it

	return now.Sub(r.strayingSince) > strayTime, nil
}

// areUnheld reports whether all shards are in flight, and no worker has any, though each is
// able to work.
func (r *republisher) areUnheld(ctx context.Context, m proto.Manifest) (bool, error) {
	if m.State != proto.StateInProgress || r.workers.hasVanished(time.Now().Add(-bus.AckWait-proto.PresenceTTL)) {
		return false, nil
	}

	workers, err := r.bus.Heartbeats.Workers(ctx)
	if err != nil {
		return false, err
	}

	for _, w := range workers {
		if w.Shards == nil || *w.Shards > 0 || !w.Ready || w.Problem != "" {
			return false, nil
		}
	}

	inFlight := false
	for _, model := range m.Models() {
		consumer, err := bus.FindConsumer(ctx, r.js, proto.WorkStream(r.run), proto.ConsumerName(model))
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return false, nil // restoreConsumers creates it
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

		inFlight = inFlight || info.NumAckPending > 0
	}

	return inFlight, nil
}

// restoreConsumers creates the consumers and the results stream again if they were deleted.
func (r *republisher) restoreConsumers(ctx context.Context, m proto.Manifest) error {
	_, err := bus.FindStream(ctx, r.js, proto.ResultsStream(r.run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return bus.EnsureStreams(ctx, r.js, m, r.limits)
	}

	for _, model := range m.Models() {
		_, err := bus.FindConsumer(ctx, r.js, proto.WorkStream(r.run), proto.ConsumerName(model))
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return bus.EnsureStreams(ctx, r.js, m, r.limits)
		}
	}

	return nil
}

// RepublishMissing has the producer of a run publish the missing requests. workSequence is
// the last sequence of the work stream.
func RepublishMissing(
	ctx context.Context, js jetstream.JetStream, runs *bus.RunStore, run string, workSequence uint64,
	missing *roaring.Bitmap,
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

		if now.State != proto.StatePaused {
			now.State = proto.StateInProgress
		}

		now.Publish = proto.PublishState{
			Round:         round,
			FirstSequence: workSequence,
			Missing:       name,
		}

		return nil
	})
}
