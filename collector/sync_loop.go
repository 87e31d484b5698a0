package collector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// syncLoop exchanges state with the bus once a second. It writes the synced counts into the
// manifest, purges synced results, renews the lease, reads the workers' announcements, and
// looks whether the run was cancelled or deleted, or its time is over. A run that has reached a
// limit is paused at once.
type syncLoop struct {
	js       jetstream.JetStream
	bus      *bus.Bus
	run      string
	lease    *lease
	activity *activityTimer
	workers  *workerRegistry
	ledger   *ledger
	ends     *endWatcher
	limits   *limitJudge
	log      zerolog.Logger

	doneAtStart int          // requests whose lines were synced before
	savedCounts proto.Counts // in the manifest
	polled      time.Time    // when the workers were asked last
}

// runUntil runs until done is closed or ctx ends. It returns an error when collecting has to
// end: the run is deleted, or another process collects it.
func (s *syncLoop) runUntil(ctx context.Context, done <-chan struct{}) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()

	for {
		select {
		case <-tick.C:
		case <-s.limits.wake:
		case <-done:
			return nil
		case <-ctx.Done():
			return nil
		}

		s.activity.noteAsk(time.Now())
		err := s.exchange(ctx)
		s.activity.noteAnswer(time.Now(), err)
		s.sampleWork(err)

		switch {
		case errors.Is(err, proto.ErrLeaseHeld) || errors.Is(err, ErrDeleted):
			return err
		case err != nil && ctx.Err() == nil:
			s.log.Warn().Err(err).Msg("failed to sync the run with the bus; retrying")
		}
	}
}

// sampleWork adds the state of the run to what its remaining time is estimated by. failure is the error of
// the exchange with the bus, whose results do not come then.
func (s *syncLoop) sampleWork(failure error) {
	load := s.workers.currentLoad()
	working := failure == nil && load.ready > 0 && s.limits.isWorking() && s.ends.pending() == nil
	s.ledger.sampleWork(time.Now(), s.ends.total, load, working)
}

// exchange is one round. A step that fails does not keep the others from being made.
func (s *syncLoop) exchange(ctx context.Context) error {
	err := s.limits.pause(ctx)
	defer s.limits.report() // it may end this process, and the counts are to be saved before

	counts, synced, sources := s.ledger.takeSynced()

	err = errors.Join(err, s.purgeResults(ctx, synced), s.deleteObjects(ctx, sources))
	if counts != s.savedCounts {
		err = errors.Join(err, s.saveCounts(ctx, counts))
		s.savedCounts = counts
	}

	err = errors.Join(err, s.lease.renewIfDue(ctx, s.ledger.leaseProgress))
	if time.Since(s.polled) >= renewInterval {
		s.polled = time.Now()
		err = errors.Join(err, s.pollWorkers(ctx))
	}

	return errors.Join(err, s.ends.check(ctx))
}

// pollWorkers reads the workers' announcements.
func (s *syncLoop) pollWorkers(ctx context.Context) error {
	working, err := s.workers.poll(ctx, s.bus.Heartbeats)
	if working {
		s.activity.noteWork(time.Now())
	}
	return err
}

// saveCounts writes the counts into the manifest. Once this loop has more synced lines, the problem is over that kept
// the run from being collected: a full disk shows only with the first write.
func (s *syncLoop) saveCounts(ctx context.Context, counts proto.Counts) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	return s.bus.Runs.Update(ctx, s.run, func(m *proto.Manifest) error {
		m.Counts, m.Failures = counts, s.ledger.syncedFailures()
		if counts.Done > s.doneAtStart && !m.State.Ended() {
			m.Problem = ""
		}
		return nil
	})
}

// deleteObjects deletes the objects of requests that have their line.
func (s *syncLoop) deleteObjects(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	objects := s.bus.Objects(s.run)
	for _, name := range names {
		if err := objects.Delete(ctx, name); err != nil {
			return err // it is deleted with the run
		}
	}

	return nil
}

// purgeResults makes room in the results stream once it is more than half full. The newer
// half of the messages stays: workers look there for the requests of a shard that are done
// already, and it is the slack of readers downstream.
func (s *syncLoop) purgeResults(ctx context.Context, synced journal.Position) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	stream, err := bus.FindStream(ctx, s.js, proto.ResultsStream(s.run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil // it is created again, or the run is being deleted
	}
	if err != nil {
		return err
	}

	info := stream.CachedInfo()
	limit := info.Config.MaxBytes
	if limit > 0 {
		if err := s.purgeAnswers(ctx, limit/2); err != nil {
			return err
		}
	}

	if limit < 0 || int64(info.State.Bytes) < limit/2 || !info.Created.Equal(synced.Created) {
		return nil
	}

	upTo := min(synced.Sequence, info.State.LastSeq-info.State.Msgs/2)
	if upTo < info.State.FirstSeq {
		return nil
	}

	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1)); err != nil {
		return fmt.Errorf("purge stream %s: %w", proto.ResultsStream(s.run), err)
	}

	s.log.Debug().Uint64("up_to", upTo).Msg("purged synced results")

	return nil
}

// purgeAnswers deletes the older half of the large answers that are synced, once they have
// more than limit bytes. The newer half stays for the same readers as the newer half of the
// results.
func (s *syncLoop) purgeAnswers(ctx context.Context, limit int64) error {
	answers := s.bus.Answers(s.run)
	for _, a := range s.ledger.takeOldAnswers(limit) {
		if err := answers.Purge(ctx, a.name); err != nil {
			return err // the rest is deleted with the run
		}
	}

	return nil
}
