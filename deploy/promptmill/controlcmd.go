package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/control"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/program"
	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

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
	for _, action := range control.Actions {
		flags := append(busFlags(), jsonFlag())
		if action.Name == "cancel" {
			flags = append(flags, &cli.BoolFlag{
				Name:     "no-wait",
				Category: groupPolicy,
				Usage:    "return at once, not when the run is cancelled",
			})
		}
		if action.Name == "resume" {
			flags = append(flags, limitFlags()...)
		}

		list = append(list, &cli.Command{
			Name:      action.Name,
			Usage:     action.Usage,
			ArgsUsage: "RUN",
			Flags:     flags,
			Action: func(ctx context.Context, c *cli.Command) error {
				o, err := parseControl(env, c)
				if err != nil {
					return err
				}
				return controlRun(ctx, env, o, action)
			},
		})
	}

	return append(list, deleteCommand(env))
}

// controlRun changes a run and prints its new state.
func controlRun(ctx context.Context, env environment, o controlOptions, action control.Action) error {
	s, before, err := openRun(ctx, env, o.bus, proto.RoleProducer, o.run)
	if err != nil {
		return err
	}
	defer s.Close()

	m, err := action.Change(ctx, s.Runs, before, o.limits)
	if err != nil {
		return err
	}

	if !o.json {
		env.printf("%s", program.TypedCommands(action.Describe(before, m, o.limits)))
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
			env.printf("%s", program.TypedCommands(action.Describe(before, m, o.limits)))
		}
	}

	if o.json {
		return printJSON(env.stdout, m)
	}

	return nil
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
