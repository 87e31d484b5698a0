package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/proto"
)

// watchEvery is the interval of status --watch.
const watchEvery = 2 * time.Second

func listCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the runs",
		Flags: append(busFlags(), jsonFlag()),
		Action: func(ctx context.Context, c *cli.Command) error {
			found, err := lookAtBuses(ctx, env, parseBus(env, c))
			if err != nil {
				return err
			}

			if c.Bool("json") {
				return printJSON(env.stdout, found.Runs)
			}

			return (&view{out: env.stdout}).show(func(w io.Writer, width int) error {
				return status.PrintRuns(w, found.Runs, width)
			})
		},
	}
}

func workersCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "workers",
		Usage: "list the workers",
		Flags: append(busFlags(), jsonFlag()),
		Action: func(ctx context.Context, c *cli.Command) error {
			found, err := lookAtBuses(ctx, env, parseBus(env, c))
			if err != nil {
				return err
			}

			if c.Bool("json") {
				return printJSON(env.stdout, found.Workers)
			}

			return (&view{out: env.stdout}).show(func(w io.Writer, width int) error {
				return status.PrintWorkers(w, found.Workers, width)
			})
		},
	}
}

// statusOptions are the flags of status.
type statusOptions struct {
	bus   busOptions
	run   string // or a part of its id; empty: all
	watch bool
	json  bool
}

func statusCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show runs, workers and problems, once or repeatedly",
		ArgsUsage: "[RUN]",
		Flags: append(busFlags(), jsonFlag(),
			&cli.BoolFlag{
				Name:     "watch",
				Category: groupOutput,
				Aliases:  []string{"w"},
				Usage:    "print again every 2 s, until Ctrl-C or the end of the named run",
			}),
		Action: func(ctx context.Context, c *cli.Command) error {
			o := statusOptions{bus: parseBus(env, c), watch: c.Bool("watch"), json: c.Bool("json")}
			if c.Args().Present() {
				var err error
				if o.run, err = parseRunID(c); err != nil {
					return err
				}
			}

			return showStatus(ctx, env, o)
		},
	}
}

// showStatus prints the status, with --watch again and again.
func showStatus(ctx context.Context, env environment, o statusOptions) error {
	screen := &view{out: env.stdout}
	for {
		found, ended, err := lookAtStatus(ctx, env, o)
		if err == nil {
			err = printStatus(screen, o, found)
		}
		if err != nil || !o.watch || ended {
			return err
		}

		select {
		case <-time.After(watchEvery):
		case <-env.signals:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// lookAtStatus looks at the requested run, or at all runs. It reports whether the requested run has
// ended.
func lookAtStatus(ctx context.Context, env environment, o statusOptions) (found status.Bus, ended bool, err error) {
	if o.run == "" {
		found, err = lookAtBuses(ctx, env, o.bus)
		return found, false, err
	}

	found, err = lookAtRun(ctx, env, o.bus, o.run)

	return found, len(found.Runs) == 0 || found.Runs[0].State.Ended(), err
}

// printStatus prints the status once.
func printStatus(screen *view, o statusOptions, found status.Bus) error {
	if o.json {
		return printJSON(screen.out, map[string]any{"runs": found.Runs, "workers": found.Workers})
	}

	show, now := screen.show, ""
	if o.watch {
		show, now = screen.draw, time.Now().Format(time.DateTime)+"\n"
	}

	return show(func(w io.Writer, width int) error {
		fmt.Fprint(w, now)

		var err error
		if o.run != "" && len(found.Runs) == 1 {
			err = status.PrintRun(w, found.Runs[0])
		} else {
			err = status.PrintRuns(w, found.Runs, width)
		}
		if err != nil {
			return err
		}

		fmt.Fprintln(w)

		return status.PrintWorkers(w, found.Workers, width)
	})
}

// lookAtBuses looks at the named bus, or at all buses of this machine.
func lookAtBuses(ctx context.Context, env environment, o busOptions) (status.Bus, error) {
	all := status.Bus{Runs: []status.Run{}, Workers: []status.Worker{}} // never null in JSON
	list, err := openSessions(ctx, env, o, proto.RoleReader)
	if err != nil {
		return all, err
	}
	defer closeSessions(list)

	for _, s := range list {
		found, err := s.look(ctx, env, nil)
		if err != nil {
			return all, err
		}
		all.Runs, all.Workers = append(all.Runs, found.Runs...), append(all.Workers, found.Workers...)
	}

	return all, nil
}

// lookAtRun looks at one run and at the workers that work for it.
func lookAtRun(ctx context.Context, env environment, o busOptions, run string) (status.Bus, error) {
	s, m, err := openRun(ctx, env, o, proto.RoleReader, run)
	if err != nil {
		return status.Bus{}, err
	}
	defer s.Close()

	found, err := s.look(ctx, env, func(other proto.Manifest) bool { return other.Run == m.Run })
	if err != nil || len(found.Runs) == 0 {
		return found, err
	}

	found.Workers = slices.DeleteFunc(found.Workers, func(w status.Worker) bool { return !w.WorksFor(found.Runs[0]) })

	return found, nil
}
