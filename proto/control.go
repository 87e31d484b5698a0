package proto

import (
	"context"
	"errors"
	"fmt"
)

// ErrState is returned when a run cannot be changed as wanted in the state that it is
// in.
var ErrState = errors.New("not possible in this state")

// Pause keeps workers from taking shards of a run; what is at a model server is
// finished.
func (r *Runs) Pause(ctx context.Context, run string) error {
	return r.Update(ctx, run, func(m *Manifest) error {
		return m.move(StatePaused, StateInProgress, StatePaused)
	})
}

// Resume ends a pause.
func (r *Runs) Resume(ctx context.Context, run string) error {
	return r.Update(ctx, run, func(m *Manifest) error {
		return m.move(StateInProgress, StatePaused, StateInProgress)
	})
}

// Cancel ends a run. What is done stays; its collector writes an error line for each
// other request.
func (r *Runs) Cancel(ctx context.Context, run string) error {
	return r.Update(ctx, run, func(m *Manifest) error {
		return m.move(StateCancelling, StateValidating, StateInProgress, StatePaused, StateCancelling)
	})
}

// Retry sets the failed requests of an ended run going again. Its collector finds out
// which they are.
func (r *Runs) Retry(ctx context.Context, run string) error {
	return r.Update(ctx, run, func(m *Manifest) error {
		if m.State.Ended() && m.Counts.Failed == 0 {
			return fmt.Errorf("run %s: %w: none of its requests failed", run, ErrState)
		}
		if err := m.move(StateInProgress, StateCompleted, StateCancelled, StateExpired); err != nil {
			return err
		}
		m.Retries++
		m.EndedAt, m.Terms.ExpiresAt = nil, nil
		m.Publish.Done = true // until its collector says what is missing
		return nil
	})
}

func (m *Manifest) move(to State, from ...State) error {
	for _, s := range from {
		if m.State == s {
			m.State = to
			return nil
		}
	}
	return fmt.Errorf("run %s: %w: it is %s", m.Run, ErrState, m.State)
}
