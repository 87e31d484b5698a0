package batch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Cancel ends a batch. One that is not on the bus yet is cancelled when Cancel returns; another
// one is cancelling until the answers that it has are in its files. A batch that is cancelling
// or cancelled is returned as it is. Any other that has ended is a [RequestError]. The error
// wraps [ErrUnavailable] if the bus does not answer.
func (s *Service) Cancel(ctx context.Context, id string) (Batch, error) {
	r := s.find(id)
	if r == nil {
		return Batch{}, ErrNotFound
	}

	if answer, err, done := answerCancel(r); done {
		return answer, err
	}

	isFresh, release, err := s.holdSubmission(ctx, r.Run)
	defer release()

	switch {
	case err != nil:
		return r.describe(), err
	case isFresh:
		return s.cancelUnsubmitted(r.Run, false)
	}

	wait := answerTime
	if s.find(id).State == proto.StateValidating {
		wait = shortAnswerTime
	}

	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()

	return s.cancelRun(ctx, r.Run)
}

// answerCancel returns the answer for a batch that need not be cancelled, or cannot be.
func answerCancel(r *record) (b Batch, err error, done bool) {
	switch {
	case r.State == proto.StateCancelling, r.State == proto.StateCancelled:
		return r.describe(), nil, true
	case r.State == proto.StateFinalizing, r.State.Ended():
		return r.describe(), &RequestError{
			Message: fmt.Sprintf("Batch %s is %s and cannot be cancelled.", r.id(), r.State),
			Code:    "batch_not_cancellable",
		}, true
	}

	return Batch{}, nil, false
}

// shortAnswerTime is the time that a cancellation waits for the bus to say whether it has the
// run of a batch that is validating.
const shortAnswerTime = 2 * time.Second

// cancelUnsubmitted cancels a batch whose run is not on the bus. Parts of it may be, which are
// removed then.
func (s *Service) cancelUnsubmitted(run string, hasParts bool) (Batch, error) {
	r, err := s.change(run, func(now *record) error {
		if now.State.Ended() {
			return errUnchanged
		}
		now.cancel(time.Now().UTC())
		now.RemoveRun = hasParts
		return nil
	})
	if err != nil {
		return r.describe(), err
	}

	b, err, _ := answerCancel(r)

	return b, err
}

// cancelRun cancels the run of a batch if it is on the bus, and else the batch.
func (s *Service) cancelRun(ctx context.Context, run string) (Batch, error) {
	m, err := s.bus.Runs.Get(ctx, run)
	if err == nil {
		s.followOne(m)
	}

	r := s.find(IDPrefix + run)
	if answer, err, done := answerCancel(r); done {
		return answer, err
	}

	switch {
	case r.State == proto.StateValidating || errors.Is(err, proto.ErrNoRun):
		return s.cancelUnsubmitted(run, true)
	case err != nil:
		return r.describe(), fmt.Errorf("%w: %w", ErrUnavailable, err)
	}

	switch err := s.bus.Runs.Cancel(ctx, run); {
	case errors.Is(err, bus.ErrWrongState): // it has just moved on
		return s.cancelRun(ctx, run)
	case err != nil:
		return r.describe(), fmt.Errorf("%w: %w", ErrUnavailable, err)
	}

	b, err, _ := answerCancel(s.noteCancelling(run))

	return b, err
}

// noteCancelling notes that the run of a batch is cancelled on the bus. It cannot fail: a full disk does not keep the
// run from its end, see observe.
func (s *Service) noteCancelling(run string) *record {
	s.changes.Lock()
	defer s.changes.Unlock()

	r := *s.find(IDPrefix + run)
	if rank(r.State) < rank(proto.StateCancelling) {
		r.State = proto.StateCancelling
		r.CancellingAt = latest(time.Now().UTC(), r.InProgressAt, r.RetriedAt, r.FinalizingAt)
		s.observe(&r)
	}

	return s.find(IDPrefix + run)
}

// removeRun removes the parts of a cancelled or expired run from the bus.
func (s *Service) removeRun(ctx context.Context, run string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	m, err := s.bus.Runs.Get(ctx, run)
	switch {
	case errors.Is(err, proto.ErrNoRun):
		err = bus.DeleteStreams(ctx, s.cfg.Bus.JS, run)
	case err == nil:
		err = pipeline.DeleteRun(ctx, s.cfg.Bus.JS, s.bus.Runs, m)
	}
	if err != nil {
		return err
	}

	_, err = s.change(run, func(now *record) error {
		now.RemoveRun = false
		return nil
	})

	return err
}
