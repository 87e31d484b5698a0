// Package control changes the state of a run as its owner wants: pause, resume, cancel, retry. The commands of these
// names and the buttons of the page call it.
package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/summary"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// answerTime is the time limit of a change.
const answerTime = 15 * time.Second

// Action is a change of the state of a run.
type Action struct {
	// Name is the name of the command, such as pause, and Usage its description.
	Name, Usage string

	// participle is the word for the change in "cannot be paused".
	participle string
	// wanted is the state that the action brings about. A run that is in it stays as it is.
	wanted proto.State
	// change changes a run. The policy has the limits for a run that is resumed.
	change func(*bus.RunStore, context.Context, string, proto.RunPolicy) error
	// from are the states in which the action changes something.
	from []proto.State
}

// Actions are all actions.
var Actions = []Action{
	{
		Name:       "pause",
		Usage:      "stop workers from taking more requests of a run",
		participle: "paused",
		wanted:     proto.StatePaused,
		change:     withoutLimits((*bus.RunStore).Pause),
		from:       []proto.State{proto.StateInProgress},
	},
	{
		Name:       "resume",
		Usage:      "end the pause of a run",
		participle: "resumed",
		wanted:     proto.StateInProgress,
		change:     (*bus.RunStore).ResumeWith,
		from:       []proto.State{proto.StatePaused},
	},
	{
		Name:       "cancel",
		Usage:      "end a run early, and keep its answers",
		participle: "cancelled",
		wanted:     proto.StateCancelled,
		change:     withoutLimits((*bus.RunStore).Cancel),
		from:       []proto.State{proto.StateValidating, proto.StateInProgress, proto.StatePaused},
	},
	{
		Name:       "retry",
		Usage:      "run the failed requests of an ended run again",
		participle: "retried",
		change:     withoutLimits((*bus.RunStore).Retry),
		from:       []proto.State{proto.StateCompleted, proto.StateCancelled, proto.StateExpired},
	},
}

// withoutLimits returns a change that has no use for limits.
func withoutLimits(
	change func(*bus.RunStore, context.Context, string) error,
) func(*bus.RunStore, context.Context, string, proto.RunPolicy) error {
	return func(r *bus.RunStore, ctx context.Context, run string, _ proto.RunPolicy) error {
		return change(r, ctx, run)
	}
}

// Find returns the action of a name, and whether there is one.
func Find(name string) (Action, bool) {
	i := slices.IndexFunc(Actions, func(a Action) bool { return a.Name == name })
	if i < 0 {
		return Action{}, false
	}

	return Actions[i], true
}

// IsPossible reports whether the action would change a run in the state that it is in.
func (a Action) IsPossible(m proto.Manifest) bool {
	switch {
	case !slices.Contains(a.from, m.State):
		return false
	case a.Name == "resume":
		return m.FindTokensUsedUp() == nil
	case a.Name == "retry":
		return m.Counts.Failed > 0
	}

	return true
}

// Change changes a run, and returns it as it is then. m is the run as it was read last, and limits are those of a run
// that is resumed. The error of a state that does not allow it wraps [bus.ErrWrongState]; its hint is the way out.
func (a Action) Change(
	ctx context.Context, runs *bus.RunStore, m proto.Manifest, limits proto.RunPolicy,
) (proto.Manifest, error) {
	if m.State == a.wanted && !limits.HasLimits() {
		return m, nil
	}

	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	changeErr := a.change(runs, ctx, m.Run, limits)
	if limit, ok := errors.AsType[*proto.LimitError](changeErr); ok {
		return m, exit.LimitReached(limit.Reached.Key(), changeErr, progress.FormatResume(m.Run, limit.Reached))
	}
	if changeErr != nil && !errors.Is(changeErr, bus.ErrWrongState) {
		return m, changeErr
	}

	now, err := runs.Get(ctx, m.Run)
	if err == nil && changeErr != nil {
		err = refusal{a.refuse(now)}
	}

	return now, err
}

// refusal is the error of a run whose state does not allow an action.
type refusal struct{ error }

// Unwrap returns bus.ErrWrongState and the error, which may have a hint.
func (r refusal) Unwrap() []error { return []error{r.error, bus.ErrWrongState} }

// refuse returns the error for a run that the action cannot change, with the way out.
func (a Action) refuse(m proto.Manifest) error {
	err := fmt.Errorf("run %s is %s and cannot be %s", m.DisplayName(), m.State.Word(), a.participle)
	switch {
	case m.State == proto.StateValidating && m.Policy.Batch:
		return exit.WithHint(err, "wait until promptmill serve --api has put it on the bus")
	case m.State == proto.StateValidating:
		return exit.WithHint(err, "wait until promptmill submit has put it on the bus")
	case m.State == proto.StateFinalizing:
		return fmt.Errorf("%w: all its requests have ended, and its files are being written", err)
	case m.State == proto.StateCancelling:
		return exit.WithHint(err, "promptmill cancel "+m.Run+" waits until it is cancelled")
	case m.State == proto.StateFailed:
		return exit.WithHint(fmt.Errorf("run %s was refused and cannot be %s: %s", m.DisplayName(), a.participle,
			m.Problem), pipeline.RefusedFix(m.Run))
	case !m.State.Ended(): // retry
		return exit.WithHint(err, "only an ended run can: promptmill status "+m.Run+" --watch shows when it has ended")
	case a.Name == "retry":
		return fmt.Errorf("run %s is %s, and none of its requests failed: there is nothing to run again",
			m.DisplayName(), m.State)
	case m.Counts.Failed > 0:
		return exit.WithHint(err, fmt.Sprintf("promptmill retry %s runs its %s again",
			m.Run, terminal.CountOf(m.Counts.Failed, "failed request")))
	}

	return exit.WithHint(err, "promptmill status "+m.Run+" shows where its results are")
}

// Describe describes the run after the change, with the limits that it has set.
func (a Action) Describe(before, m proto.Manifest, limits proto.RunPolicy) string {
	text := fmt.Sprintf("run %s is %s", m.DisplayName(), m.State.Word())
	switch {
	case a.Name == "retry":
		return fmt.Sprintf("%s again, with its %s; promptmill status %s --watch shows its progress", text,
			terminal.CountOf(before.Counts.Failed, "failed request"), m.Run)
	case limits.HasLimits():
		return text + describeLimits(limits)
	case before.State == a.wanted && m.State == a.wanted:
		return text + " already"
	case m.State == proto.StatePaused:
		return text + ": requests at the model servers are finished"
	case m.State == proto.StateCancelling:
		return text + ": its requests at the model servers are stopped, " +
			"and its collector writes the others as batch_cancelled"
	case m.State.Ended():
		return fmt.Sprintf("%s: %s, in %s", text, summary.FormatCounts(m.Counts), output.Prefix(m.Output).Results())
	}

	return text
}

// describeLimits describes the limits that a run has from now on.
func describeLimits(limits proto.RunPolicy) string {
	var list []string
	if limits.MaxTokens > 0 {
		list = append(list, terminal.CountOf(limits.MaxTokens, "token"))
	}
	for _, t := range limits.FailIf {
		list = append(list, t.String())
	}

	return "; it now stops at " + strings.Join(list, " or ")
}
