package batch

import (
	"context"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// sweepInterval is the longest time until the sweeper looks again for expired batches and files, and for
// left parts.
const sweepInterval = 30 * time.Second

// sweep ends the batches that expire before they are on the bus, removes expired files and left parts, and
// writes records that could not be written, until ctx ends.
func (s *Service) sweep(ctx context.Context) error {
	s.removeLeft()
	for {
		s.saveUnsaved()
		s.expireValidating(ctx, time.Now())
		s.removeRuns(ctx)
		s.removeExpired(time.Now())

		if err := s.sweeper.wait(ctx, s.untilExpiry(time.Now())); err != nil {
			return err
		}
	}
}

// expireValidating ends the batches whose time is over while they are put on the bus: without a run, no
// collector ends them.
func (s *Service) expireValidating(ctx context.Context, now time.Time) {
	overdue := s.listRecords(func(r *record) bool {
		return r.State == proto.StateValidating && !now.Before(r.ExpiresAt)
	})
	for _, r := range overdue {
		if err := s.expire(ctx, r.Run); err != nil {
			if ctx.Err() == nil {
				s.cfg.Log.Warn().Err(err).Str("run", r.Run).Msg("failed to end the expired batch; retrying")
			}
			return // the bus or the disk fails, for the others too
		}
	}
}

// expire ends a batch that is validating, unless its run is on the bus by now.
func (s *Service) expire(ctx context.Context, run string) error {
	isFresh, release, err := s.holdSubmission(ctx, run)
	defer release()

	if err != nil {
		return err
	}

	if !isFresh {
		if settled, err := s.settle(ctx, run); settled || err != nil {
			return err
		}
	}

	_, err = s.change(run, func(now *record) error {
		if now.State != proto.StateValidating {
			return errUnchanged
		}
		now.expire(time.Now().UTC())
		now.RemoveRun = !isFresh
		return nil
	})

	return err
}

// untilExpiry returns the time until the next batch that is validating expires, [sweepInterval] at most.
func (s *Service) untilExpiry(now time.Time) time.Duration {
	s.mu.RLock()
	defer s.mu.RUnlock()

	left := sweepInterval
	for run := range s.live {
		r := s.all[run]
		if until := r.ExpiresAt.Sub(now); r.State == proto.StateValidating && until > 0 {
			left = min(left, until)
		}
	}

	return left
}

// removeLeft removes the files of deleted outputs that a crash has left.
func (s *Service) removeLeft() {
	for _, r := range s.listRecords(func(r *record) bool { return r.OutputDeleted || r.ErrorsDeleted }) {
		if err := s.removeDeleted(r); err != nil {
			s.cfg.Log.Warn().Err(err).Str("run", r.Run).Msg("failed to remove a deleted output; it can be deleted")
		}
	}
}

// removeOrphans removes the requests of bodies whose batches were not created, since the server died just
// then. No batch is created meanwhile.
func (s *Service) removeOrphans() {
	inputs := map[string]bool{}
	for _, r := range s.order {
		inputs[r.InputFileID] = true
	}

	for _, f := range s.cfg.Files.List() {
		if !f.Inline || inputs[f.ID] {
			continue
		}
		if err := s.cfg.Files.Delete(f.ID); err != nil {
			s.cfg.Log.Warn().Err(err).Str("file", f.ID).
				Msg("failed to remove the requests of a batch that was not created; they can be deleted")
		}
	}
}

// saveUnsaved writes the records that could not be written.
func (s *Service) saveUnsaved() {
	for _, r := range s.listRecords(func(r *record) bool { return s.unsaved[r.Run] }) {
		if _, err := s.change(r.Run, func(*record) error { return nil }); err != nil {
			return // the disk is full, and that was logged
		}
	}
}

// removeRuns removes the parts of cancelled and expired runs from the bus.
func (s *Service) removeRuns(ctx context.Context) {
	for _, r := range s.listRecords(func(r *record) bool { return r.RemoveRun }) {
		if err := s.removeRun(ctx, r.Run); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn().Err(err).Str("run", r.Run).
				Msg("failed to remove the parts of the batch from the bus; retrying")
		}
	}
}

// removeExpired removes the files whose time is over: inputs that no batch needs, and outputs, with the
// requests that came in the bodies of their batches.
func (s *Service) removeExpired(now time.Time) {
	s.changes.Lock()
	_, err := s.cfg.Files.RemoveExpired(now, s.Uses)
	s.changes.Unlock()
	if err != nil {
		s.cfg.Log.Warn().Err(err).Msg("failed to remove expired files; retrying")
	}

	expired := s.listRecords(func(r *record) bool {
		at := r.outputExpiresAt()
		return !at.IsZero() && !now.Before(at)
	})
	for _, r := range expired {
		if f, err := s.cfg.Files.Get(r.InputFileID); err == nil && f.Inline && !s.Uses(f.ID) {
			if err := s.DeleteFile(f.ID); err != nil {
				s.cfg.Log.Warn().Err(err).Str("run", r.Run).Msg("failed to remove the requests of an expired output; retrying")
			}
		}

		if r.OutputDeleted && r.ErrorsDeleted {
			continue
		}
		for _, id := range []string{r.OutputFileID, r.ErrorFileID} {
			if err := s.deleteOutput(r.Run, id); err != nil {
				s.cfg.Log.Warn().Err(err).Str("run", r.Run).Msg("failed to remove an expired output; retrying")
			}
		}
	}
}

// listRecords returns the records that have a property, the oldest first.
func (s *Service) listRecords(has func(*record) bool) (list []*record) {
	s.mu.RLock()
	defer s.mu.RUnlock()

	for _, r := range s.order {
		if has(r) {
			list = append(list, r)
		}
	}

	return list
}
