package collector

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// ErrDeleted is returned when a run was deleted from the bus while it was collected.
var ErrDeleted = errors.New("the run was deleted")

// earlyEnd is why a run ends before all its requests were executed.
type earlyEnd struct {
	state   proto.State
	code    string // of the error in the lines of the rest, in OpenAI's words
	message string
}

var (
	cancelled = earlyEnd{
		state:   proto.StateCancelled,
		code:    proto.CodeCancelled,
		message: "This request was not executed before the run was cancelled.",
	}
	expired = earlyEnd{
		state:   proto.StateExpired,
		code:    proto.CodeExpired,
		message: "This request could not be executed before the completion window expired.",
	}
)

// endWatcher finds out whether a run is to end before it is complete. It is safe for
// concurrent use.
type endWatcher struct {
	runs   *bus.RunStore
	run    string
	total  int
	ledger *ledger
	limits *limitJudge
	log    zerolog.Logger

	end atomic.Pointer[earlyEnd] // set once
}

// pending returns why the run is to end early, or nil.
func (w *endWatcher) pending() *earlyEnd { return w.end.Load() }

// check reads the manifest. It returns [ErrDeleted] if the run is not on the bus any more.
func (w *endWatcher) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	m, err := w.runs.Get(ctx, w.run)
	if errors.Is(err, proto.ErrNoRun) {
		return fmt.Errorf("run %s: %w", w.run, ErrDeleted)
	}
	if err != nil || w.pending() != nil {
		return err
	}

	w.limits.follow(m, w.ledger.receivedCounts())

	switch {
	case m.State == proto.StateCancelling:
		w.end.Store(&cancelled)
	case m.Policy.ExpiresAt != nil && time.Now().After(*m.Policy.ExpiresAt) && w.isIncomplete(m):
		err := w.runs.Update(ctx, w.run, func(m *proto.Manifest) error {
			m.State = proto.StateFinalizing // so that workers stop working for it
			return nil
		})
		if err != nil {
			return err
		}

		w.end.Store(&expired)
	default:
		return nil
	}

	w.log.Info().Str("state", string(w.pending().state)).Msg("ending the run early")

	return nil
}

// isDeleted reports whether the run is known not to be on the bus any more.
func (w *endWatcher) isDeleted(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()

	_, err := w.runs.Get(ctx, w.run)

	return errors.Is(err, proto.ErrNoRun)
}

// isIncomplete reports whether some requests have no line, or one that says that they were
// not executed.
func (w *endWatcher) isIncomplete(m proto.Manifest) bool {
	received := w.ledger.receivedCounts()
	return received.Done < w.total || received.Skipped > m.Input.Invalid
}
