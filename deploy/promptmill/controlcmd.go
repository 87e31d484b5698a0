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

// control is a command that changes the state of a run.
type control struct {
	name, usage string
	// note follows the new state in the message.
	note   string
	change func(*bus.RunStore, context.Context, string) error
}

var controls = []control{
	{"pause", "stop workers from taking more requests of a run", ": requests at the model servers are finished",
		(*bus.RunStore).Pause},
	{"resume", "end the pause of a run", "", (*bus.RunStore).Resume},
	{"cancel", "end a run early; requests without an answer fail as batch_cancelled", "",
		(*bus.RunStore).Cancel},
	{"retry", "run the failed requests of an ended run again", " again", (*bus.RunStore).Retry},
}

// controlOptions are the flags of a command that changes a run.
type controlOptions struct {
	bus   busOptions
	run   string // or a part of its id
	force bool   // delete a run that has not ended
	json  bool
}

// parseControl reads the flags of a command that changes a run.
func parseControl(env environment, c *cli.Command) (o controlOptions, err error) {
	o = controlOptions{bus: parseBus(env, c), force: c.Bool("force"), json: c.Bool("json")}
	o.run, err = parseRunID(c)

	return o, err
}

// controlCommands returns the commands that change a run.
func controlCommands(env environment) (list []*cli.Command) {
	for _, ctl := range controls {
		list = append(list, &cli.Command{
			Name:      ctl.name,
			Usage:     ctl.usage,
			ArgsUsage: "RUN",
			Flags:     append(busFlags(), jsonFlag()),
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
	s, m, err := openRun(ctx, env, o.bus, proto.RoleProducer, o.run)
	if err != nil {
		return err
	}
	defer s.Close()

	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	if err := ctl.change(s.Runs, ctx, m.Run); err != nil {
		return err
	}

	if m, err = s.Runs.Get(ctx, m.Run); err != nil {
		return err
	}

	if o.json {
		return printJSON(env.stdout, m)
	}

	terminal.Fprintf(env.stderr, "run %s is %s%s\n", m.Run, m.State, ctl.note)
	if !m.State.Ended() && !s.isCollected(ctx, m.Run) {
		terminal.Fprintf(env.stderr,
			"no process collects it now: promptmill collect %s -o OUT, or promptmill serve\n", m.Run)
	}

	return nil
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
			Sources:  flagEnv("force"),
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
			return printDeleted(env, o.run, o.json)
		}
		return err
	}
	defer s.Close()

	if !m.State.Ended() && !o.force {
		return exit.WithHint(fmt.Errorf("run %s is %s", m.Run, m.State),
			"promptmill cancel "+m.Run+" first, or give --force")
	}

	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	if err := pipeline.DeleteRun(ctx, s.JS, s.Runs, m); err != nil {
		return err
	}

	return printDeleted(env, m.Run, o.json)
}

func printDeleted(env environment, run string, asJSON bool) error {
	if asJSON {
		return printJSON(env.stdout, map[string]any{"run": run, "deleted": true})
	}
	terminal.Fprintf(env.stderr, "run %s is deleted\n", run)
	return nil
}

// deleteOrphans deletes the streams of a run whose deletion was cut short after that of its
// manifest. It reports whether there were some.
func deleteOrphans(ctx context.Context, env environment, o busOptions, run string) bool {
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
