package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/program"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// control is a command that changes the state of a run.
type control struct {
	name, usage string
	// participle is the word for the change in "cannot be paused".
	participle string
	// wanted is the state that the command brings about. A run that is in it stays as it is.
	wanted proto.State
	// change changes a run. The policy has the limits for a run that is resumed.
	change func(*bus.RunStore, context.Context, string, proto.RunPolicy) error
}

var controls = []control{
	{
		name:       "pause",
		usage:      "stop workers from taking more requests of a run",
		participle: "paused",
		wanted:     proto.StatePaused,
		change:     withoutLimits((*bus.RunStore).Pause),
	},
	{
		name:       "resume",
		usage:      "end the pause of a run",
		participle: "resumed",
		wanted:     proto.StateInProgress,
		change:     (*bus.RunStore).ResumeWith,
	},
	{
		name:       "cancel",
		usage:      "end a run early, and keep its answers",
		participle: "cancelled",
		wanted:     proto.StateCancelled,
		change:     withoutLimits((*bus.RunStore).Cancel),
	},
	{
		name:       "retry",
		usage:      "run the failed requests of an ended run again",
		participle: "retried",
		change:     withoutLimits((*bus.RunStore).Retry),
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

// controlOptions are the flags of a command that changes a run.
type controlOptions struct {
	bus    busOptions
	run    string          // its id, its label, or a part of its id
	force  bool            // delete a run that has not ended
	noWait bool            // do not wait for the end of a run that is cancelled
	limits proto.RunPolicy // of a run that is resumed; nothing else of the policy
	json   bool
}

// parseControl reads the flags of a command that changes a run.
func parseControl(env environment, c *cli.Command) (o controlOptions, err error) {
	o = controlOptions{
		bus:    parseBus(env, c),
		force:  c.Bool("force"),
		noWait: c.Bool("no-wait"),
		json:   c.Bool("json"),
	}

	if o.run, err = parseRunID(c); err != nil {
		return o, err
	}

	o.limits, err = parseLimits(c)

	return o, err
}

// controlCommands returns the commands that change a run.
func controlCommands(env environment) (list []*cli.Command) {
	for _, ctl := range controls {
		flags := append(busFlags(), jsonFlag())
		if ctl.name == "cancel" {
			flags = append(flags, &cli.BoolFlag{
				Name:     "no-wait",
				Category: groupPolicy,
				Usage:    "return at once, not when the run is cancelled",
			})
		}
		if ctl.name == "resume" {
			flags = append(flags, limitFlags()...)
		}

		list = append(list, &cli.Command{
			Name:      ctl.name,
			Usage:     ctl.usage,
			ArgsUsage: "RUN",
			Flags:     flags,
			Action: func(ctx context.Context, c *cli.Command) error {
				o, err := parseControl(env, c)
				if err != nil {
					return err
				}
				return ctl.run(ctx, env, o)
			},
		})
	}

	return append(list, deleteCommand(env))
}

// run changes the run and prints its new state.
func (ctl control) run(ctx context.Context, env environment, o controlOptions) error {
	s, before, err := openRun(ctx, env, o.bus, proto.RoleProducer, o.run)
	if err != nil {
		return err
	}
	defer s.Close()

	m, err := ctl.changeRun(ctx, s, before, o.limits)
	if err != nil {
		return err
	}

	if !o.json {
		env.printf("%s", program.TypedCommands(ctl.describe(before, m, o.limits)))
	}

	collected := m.State.Ended() || s.isCollected(ctx, m.Run)
	if !collected && !o.json {
		env.printf("no process collects it now: %s", status.CollectFix(m))
	}

	if m.State == proto.StateCancelling && collected && !o.noWait {
		if !o.json {
			env.printf("waiting until it is cancelled; Ctrl-C ends only the wait")
		}

		if m, err = awaitFiles(ctx, env, s, m); err != nil {
			return err
		}

		if !o.json {
			env.printf("%s", program.TypedCommands(ctl.describe(before, m, o.limits)))
		}
	}

	if o.json {
		return printJSON(env.stdout, m)
	}

	return nil
}

// changeRun changes the run, and returns it as it is then.
func (ctl control) changeRun(
	ctx context.Context, s *session, m proto.Manifest, limits proto.RunPolicy,
) (proto.Manifest, error) {
	if m.State == ctl.wanted && !limits.HasLimits() {
		return m, nil
	}

	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	changeErr := ctl.change(s.Runs, ctx, m.Run, limits)
	if limit, ok := errors.AsType[*proto.LimitError](changeErr); ok {
		return m, exit.LimitReached(limit.Reached.Key(), changeErr, progress.FormatResume(m.Run, limit.Reached))
	}
	if changeErr != nil && !errors.Is(changeErr, bus.ErrWrongState) {
		return m, changeErr
	}

	now, err := s.Runs.Get(ctx, m.Run)
	if err == nil && changeErr != nil {
		err = ctl.refuse(now)
	}

	return now, err
}

// refuse returns the error for a run that the command cannot change, with the way out.
func (ctl control) refuse(m proto.Manifest) error {
	err := fmt.Errorf("run %s is %s and cannot be %s", m.DisplayName(), m.State.Word(), ctl.participle)
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
		return exit.WithHint(fmt.Errorf("run %s was refused and cannot be %s: %s", m.DisplayName(), ctl.participle,
			m.Problem), pipeline.RefusedFix(m.Run))
	case !m.State.Ended(): // retry
		return exit.WithHint(err, "only an ended run can: promptmill status "+m.Run+" --watch shows when it has ended")
	case ctl.name == "retry":
		return fmt.Errorf("run %s is %s, and none of its requests failed: there is nothing to run again",
			m.DisplayName(), m.State)
	case m.Counts.Failed > 0:
		return exit.WithHint(err, fmt.Sprintf("promptmill retry %s runs its %s again",
			m.Run, terminal.CountOf(m.Counts.Failed, "failed request")))
	}

	return exit.WithHint(err, "promptmill status "+m.Run+" shows where its results are")
}

// describe describes the run after the change, with the limits that it has set.
func (ctl control) describe(before, m proto.Manifest, limits proto.RunPolicy) string {
	text := fmt.Sprintf("run %s is %s", m.DisplayName(), m.State.Word())
	switch {
	case ctl.name == "retry":
		return fmt.Sprintf("%s again, with its %s; promptmill status %s --watch shows its progress", text,
			terminal.CountOf(before.Counts.Failed, "failed request"), m.Run)
	case limits.HasLimits():
		return text + describeLimits(limits)
	case before.State == ctl.wanted && m.State == ctl.wanted:
		return text + " already"
	case m.State == proto.StatePaused:
		return text + ": requests at the model servers are finished"
	case m.State == proto.StateCancelling:
		return text + ": its requests at the model servers are stopped, " +
			"and its collector writes the others as batch_cancelled"
	case m.State.Ended():
		return fmt.Sprintf("%s: %s answered, %s failed, in %s", text,
			terminal.FormatCount(m.Counts.Done-m.Counts.Failed), terminal.FormatCount(m.Counts.Failed),
			output.Prefix(m.Output).Results())
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

// lookForCollector is the interval at which a wait for the end of a run looks whether a process
// still collects the run.
const lookForCollector = 5 * time.Second

// awaitFiles waits until the files of a run that is cancelling or finalizing are written, and
// returns the run. While no process collects the run it cannot end, and awaitFiles prints that.
func awaitFiles(
	ctx context.Context, env environment, s *session, m proto.Manifest,
) (last proto.Manifest, err error) {
	watching, stop := context.WithCancel(ctx)

	var looking sync.WaitGroup
	defer looking.Wait()
	defer stop()

	looking.Go(func() {
		for reported := false; bus.Sleep(watching, lookForCollector) == nil; {
			_, held, err := s.Leases.Holder(watching, m.Run)
			if err == nil && !held && !reported {
				env.printf("waiting for a process that collects it: %s", status.CollectFix(m))
			}

			reported = err == nil && !held
		}
	})

	for now, err := range s.Runs.Watch(watching, m.Run) {
		switch {
		case err != nil:
			return m, err
		case !isEnding(now):
			return now, nil
		}
	}

	return m, nil
}

// isEnding reports whether a run gets no more results, and its files are not written yet.
func isEnding(m proto.Manifest) bool {
	return m.State == proto.StateCancelling || m.State == proto.StateFinalizing
}

func deleteCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "delete",
		Usage:     "delete a run from the bus; its output files stay",
		ArgsUsage: "RUN",
		Flags: append(busFlags(), jsonFlag(), &cli.BoolFlag{
			Name:     "force",
			Category: groupPolicy,
			Usage:    "delete the run even if it has not ended",
		}),
		Action: func(ctx context.Context, c *cli.Command) error {
			o, err := parseControl(env, c)
			if err != nil {
				return err
			}
			return deleteRun(ctx, env, o)
		},
	}
}

// deleteRun deletes a run, or the rest of an earlier deletion.
func deleteRun(ctx context.Context, env environment, o controlOptions) error {
	s, m, err := openRun(ctx, env, o.bus, proto.RoleCollector, o.run)
	if err != nil {
		if proto.CheckRunID(o.run) == nil && deleteOrphans(ctx, env, o.bus, o.run) {
			return printDeleted(env, proto.Manifest{Run: o.run}, o.json)
		}
		return err
	}
	defer s.Close()

	if isEnding(m) && !o.force && s.isCollected(ctx, m.Run) {
		if !o.json {
			env.printf("run %s is %s; it is deleted as soon as its files are written",
				m.DisplayName(), m.State)
		}

		if m, err = awaitFiles(ctx, env, s, m); err != nil {
			return err
		}
	}

	if !m.State.Ended() && !o.force {
		return exit.WithHint(fmt.Errorf("run %s is %s", m.DisplayName(), m.State.Word()), keepFix(m))
	}

	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	if err := pipeline.DeleteRun(ctx, s.JS, s.Runs, m); err != nil {
		return err
	}

	return printDeleted(env, m, o.json)
}

// keepFix returns the hint for a run that is not deleted since it has not ended.
func keepFix(m proto.Manifest) string {
	switch m.State {
	case proto.StateValidating:
		return "promptmill delete --force " + m.Run + " deletes the parts of it that its submit has stored"
	case proto.StateCancelling, proto.StateFinalizing:
		return "no process collects it, so it cannot end: " + status.CollectFix(m) + "; or promptmill delete --force " +
			m.Run
	}

	return "promptmill cancel " + m.Run + " ends it and keeps its results; promptmill delete --force " + m.Run +
		" drops the results that are not in its files"
}

func printDeleted(env environment, m proto.Manifest, asJSON bool) error {
	if asJSON {
		return printJSON(env.stdout, map[string]any{"run": m.Run, "deleted": true})
	}
	env.printf("run %s is deleted", m.DisplayName())
	return nil
}

// deleteOrphans deletes the streams of a run whose deletion was cut short after that of its
// manifest. It reports whether there were some.
func deleteOrphans(ctx context.Context, env environment, o busOptions, run string) bool {
	o.again = true
	list, err := openSessions(ctx, env, o, proto.RoleCollector)
	if err != nil {
		return false
	}
	defer closeSessions(list)

	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	found := false
	for _, s := range list {
		_, err := s.Runs.Get(ctx, run)
		if !errors.Is(err, proto.ErrNoRun) {
			continue
		}

		left, err := bus.OrphanedStreams(ctx, s.JS, run, 0)
		if err == nil && len(left) > 0 {
			found = bus.DeleteStreams(ctx, s.JS, run) == nil || found
		}
	}

	return found
}
