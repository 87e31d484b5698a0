package bus

import (
	"context"
	"fmt"

	"github.com/promptmill/promptmill/proto"
)

// Pause keeps workers from taking shards of a run; requests at a model server are finished.
func (r *RunStore) Pause(ctx context.Context, run string) error {
	return r.Update(ctx, run, func(m *proto.Manifest) error {
		return moveState(m, proto.StatePaused, proto.StateInProgress, proto.StatePaused)
	})
}

// Stop pauses a run that has reached a limit of its policy.
func (r *RunStore) Stop(ctx context.Context, run string, reached proto.ReachedLimit) error {
	return r.Update(ctx, run, func(m *proto.Manifest) error {
		m.StoppedBy = &reached
		return moveState(m, proto.StatePaused, proto.StateInProgress, proto.StatePaused)
	})
}

// Resume ends a pause, also of a run that a limit has stopped. The error of a run that has used all
// its tokens is a [proto.LimitError].
func (r *RunStore) Resume(ctx context.Context, run string) error {
	return r.ResumeWith(ctx, run, proto.RunPolicy{})
}

// ResumeWith is [RunStore.Resume] with other limits: those of limits that are set replace the
// run's.
func (r *RunStore) ResumeWith(ctx context.Context, run string, limits proto.RunPolicy) error {
	return r.Update(ctx, run, func(m *proto.Manifest) error {
		if len(limits.FailIf) > 0 {
			m.Policy.FailIf = limits.FailIf
		}
		if limits.MaxTokens > 0 {
			m.Policy.MaxTokens = limits.MaxTokens
		}

		if used := m.FindTokensUsedUp(); used != nil && m.State == proto.StatePaused {
			return fmt.Errorf("run %s: %w", run, &proto.LimitError{Reached: *used})
		}

		return moveState(m, proto.StateInProgress, proto.StatePaused, proto.StateInProgress)
	})
}

// Cancel ends a run. Finished requests stay; its collector writes an error line for each other
// one.
func (r *RunStore) Cancel(ctx context.Context, run string) error {
	return r.Update(ctx, run, func(m *proto.Manifest) error {
		return moveState(m, proto.StateCancelling, proto.StateValidating, proto.StateInProgress, proto.StatePaused,
			proto.StateCancelling)
	})
}

// Retry starts the failed requests of an ended run again, and takes them out of its counts. Its
// collector finds out which they are.
func (r *RunStore) Retry(ctx context.Context, run string) error {
	return r.Update(ctx, run, func(m *proto.Manifest) error {
		if m.State.Ended() && m.Counts.Failed == 0 {
			return fmt.Errorf("run %s: %w: none of its requests failed", run, ErrWrongState)
		}

		if err := moveState(
			m, proto.StateInProgress, proto.StateCompleted, proto.StateCancelled, proto.StateExpired,
		); err != nil {
			return err
		}

		m.Retries++
		m.Counts.Done = max(0, m.Counts.Done-m.Counts.Failed)
		m.Counts.Failed, m.Counts.Skipped, m.Failures = 0, 0, nil
		m.EndedAt, m.Policy.ExpiresAt = nil, nil
		m.Publish.Done, m.Publish.Retry = true, true // until its collector lists the missing requests

		return nil
	})
}

func moveState(m *proto.Manifest, to proto.State, from ...proto.State) error {
	for _, s := range from {
		if m.State == s {
			m.State = to
			if to != proto.StatePaused {
				m.StoppedBy = nil
			}
			return nil
		}
	}

	return fmt.Errorf("run %s: %w: it is %s", m.Run, ErrWrongState, m.State.Word())
}
