package batch

import (
	"context"
	"time"
)

// sweepInterval is the interval at which the sweeper looks for expired files and left parts.
const sweepInterval = 30 * time.Second

// sweep removes expired files and left parts, and writes records that could not be written,
// until ctx ends.
func (s *Service) sweep(ctx context.Context) error {
	s.removeLeft()
	for {
		s.saveUnsaved()
		s.removeRuns(ctx)
		s.removeExpired(time.Now())

		if err := s.sweeper.wait(ctx, sweepInterval); err != nil {
			return err
		}
	}
}

// removeLeft removes the files of deleted outputs that a crash has left.
func (s *Service) removeLeft() {
	for _, r := range s.listRecords(func(r *record) bool { return r.OutputDeleted || r.ErrorsDeleted }) {
		if err := s.removeDeleted(r); err != nil {
			s.cfg.Log.Warn().Err(err).Str("run", r.Run).Msg("failed to remove a deleted output; it can be deleted")
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

// removeRuns removes the parts of cancelled runs from the bus.
func (s *Service) removeRuns(ctx context.Context) {
	for _, r := range s.listRecords(func(r *record) bool { return r.RemoveRun }) {
		if err := s.removeRun(ctx, r.Run); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn().Err(err).Str("run", r.Run).
				Msg("failed to remove the parts of the cancelled batch from the bus; retrying")
		}
	}
}

// removeExpired removes the files whose time is over: inputs that no batch needs, and outputs.
func (s *Service) removeExpired(now time.Time) {
	s.changes.Lock()
	_, err := s.cfg.Files.RemoveExpired(now, s.Uses)
	s.changes.Unlock()
	if err != nil {
		s.cfg.Log.Warn().Err(err).Msg("failed to remove expired files; retrying")
	}

	expired := s.listRecords(func(r *record) bool {
		at := r.outputExpiresAt()
		return !at.IsZero() && !now.Before(at) && !(r.OutputDeleted && r.ErrorsDeleted)
	})
	for _, r := range expired {
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
