package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// controlCommands are those that change a run.
func controlCommands(env environment) []*cli.Command {
	change := func(name, what, said string, do func(*bus.RunStore, context.Context, string) error) *cli.Command {
		return &cli.Command{
			Name:      name,
			Usage:     what,
			ArgsUsage: "RUN",
			Flags:     append(busFlags(), jsonFlag()),
			Action: func(ctx context.Context, c *cli.Command) error {
				s, m, err := openRun(ctx, env, c, proto.RoleProducer)
				if err != nil {
					return err
				}
				defer s.Close()

				ctx, cancel := context.WithTimeout(ctx, answerTime)
				defer cancel()

				if err := do(s.Runs, ctx, m.Run); err != nil {
					return err
				}

				if m, err = s.Runs.Get(ctx, m.Run); err != nil {
					return err
				}

				if c.Bool("json") {
					return printJSON(env.stdout, m)
				}

				terminal.Fprintf(env.stderr, "run %s is %s%s\n", m.Run, m.State, said)
				if !m.State.Ended() && !s.isCollected(ctx, m.Run) {
					terminal.Fprintf(env.stderr,
						"nobody collects it now: promptmill collect %s -o OUT, or promptmill serve\n",
						m.Run)
				}

				return nil
			},
		}
	}

	return []*cli.Command{
		change("pause", "let workers take no more of a run",
			": what is at the model servers is finished", (*bus.RunStore).Pause),
		change("resume", "end a pause", "", (*bus.RunStore).Resume),
		change("cancel", "end a run; what is done is kept, the rest is written as batch_cancelled",
			"", (*bus.RunStore).Cancel),
		change("retry", "run the failed requests of an ended run again", " again", (*bus.RunStore).Retry),
		deleteCommand(env),
	}
}

func deleteCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "delete",
		Usage:     "take a run off the bus; its output files stay",
		ArgsUsage: "RUN",
		Flags: append(busFlags(), jsonFlag(), &cli.BoolFlag{
			Name:    "force",
			Usage:   "though it has not ended",
			Sources: flagEnv("force"),
		}),
		Action: func(ctx context.Context, c *cli.Command) error {
			s, m, err := openRun(ctx, env, c, proto.RoleCollector)
			if err != nil {
				if id := c.Args().First(); proto.CheckRunID(id) == nil && deleteLeft(ctx, env, c, id) {
					return printDeleted(env, c, id)
				}
				return err
			}
			defer s.Close()

			if !m.State.Ended() && !c.Bool("force") {
				return exit.WithHint(fmt.Errorf("run %s is %s", m.Run, m.State),
					"promptmill cancel "+m.Run+" first, or give --force")
			}

			ctx, cancel := context.WithTimeout(ctx, answerTime)
			defer cancel()

			if err := pipeline.DeleteRun(ctx, s.JS, s.Runs, m); err != nil {
				return err
			}

			return printDeleted(env, c, m.Run)
		},
	}
}

func printDeleted(env environment, c *cli.Command, run string) error {
	if c.Bool("json") {
		return printJSON(env.stdout, map[string]any{"run": run, "deleted": true})
	}
	terminal.Fprintf(env.stderr, "run %s is deleted\n", run)
	return nil
}

// deleteLeft deletes the streams of a run whose deletion was cut short after its manifest
// was gone. It reports whether there were some.
func deleteLeft(ctx context.Context, env environment, c *cli.Command, run string) bool {
	list, err := openSessions(ctx, env, c, proto.RoleCollector)
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
