package batch

import (
	"context"

	"github.com/promptmill/promptmill/proto/bus"
)

// notifyEnded calls [Config.Ended] for the batches that have ended, until ctx ends.
func (s *Service) notifyEnded(ctx context.Context) error {
	for pause := firstRetry; ; {
		if err := s.notifier.wait(ctx, longWait); err != nil {
			return err
		}

		for s.notifyAll(ctx) != nil {
			if err := bus.Sleep(ctx, pause); err != nil {
				return err
			}
			pause = min(2*pause, lastRetry)
		}

		pause = firstRetry
	}
}

// notifyAll calls [Config.Ended] for each batch whose end is to be notified. It returns the
// last error.
func (s *Service) notifyAll(ctx context.Context) (last error) {
	for _, r := range s.listUnnotified() {
		err := s.cfg.Ended(ctx, r.describe())
		if err == nil {
			_, err = s.change(r.Run, func(now *record) error {
				if now.Retries != r.Retries || !now.State.Ended() {
					return errUnchanged // it has been retried meanwhile
				}
				now.Notified = true
				return nil
			})
		}

		if err != nil {
			last = err
			if ctx.Err() == nil {
				s.cfg.Log.Warn().Err(err).Str("run", r.Run).Msg("failed to notify the end of the batch; retrying")
			}
		}
	}

	return last
}

// listUnnotified returns the batches whose end is to be notified, the oldest first.
func (s *Service) listUnnotified() (list []*record) {
	s.mu.RLock()
	defer s.mu.RUnlock()

	if s.cfg.Ended == nil {
		return nil
	}

	for _, r := range s.order {
		if s.unnotified[r.Run] {
			list = append(list, r)
		}
	}

	return list
}
