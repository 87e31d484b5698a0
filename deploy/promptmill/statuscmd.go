package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/term"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// runStatus is what status tells of a run, and the form of its --json.
type runStatus struct {
	proto.Manifest
	Collector *proto.CollectorInfo `json:"collector"` // null: nobody collects it now
	Missing   []string             `json:"missing_models"`
	Served    []string             `json:"served_models"`
	// Problem is why the run does not go on, or empty.
	Problem string `json:"problem"`
}

func listCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the runs on the bus",
		Flags: append(busFlags(), jsonFlag()),
		Action: func(ctx context.Context, c *cli.Command) error {
			all, _, err := survey(ctx, env, c)
			if err != nil {
				return err
			}

			if c.Bool("json") {
				return printJSON(env.stdout, all)
			}

			return printRuns(env.stdout, all)
		},
	}
}

func workersCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "workers",
		Usage: "list the workers on the bus",
		Flags: append(busFlags(), jsonFlag()),
		Action: func(ctx context.Context, c *cli.Command) error {
			_, workers, err := survey(ctx, env, c)
			if err != nil {
				return err
			}

			if c.Bool("json") {
				return printJSON(env.stdout, workers)
			}

			return printWorkers(env.stdout, workers)
		},
	}
}

func statusCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show what is going on: runs, workers, and what is in the way",
		ArgsUsage: "[RUN]",
		Flags: append(busFlags(), jsonFlag(),
			&cli.BoolFlag{
				Name:    "watch",
				Aliases: []string{"w"},
				Usage:   "again every 2 s, until Ctrl-C or, for one run, until it has ended",
				Sources: flagEnv("watch"),
			}),
		Action: func(ctx context.Context, c *cli.Command) error {
			for {
				ended, err := showStatus(ctx, env, c)
				if err != nil || !c.Bool("watch") || ended {
					return err
				}

				select {
				case <-time.After(2 * time.Second):
				case <-env.signals:
					return nil
				case <-ctx.Done():
					return nil
				}
			}
		},
	}
}

// showStatus prints the status once. It reports whether the one run asked for has
// ended.
func showStatus(ctx context.Context, env environment, c *cli.Command) (ended bool, err error) {
	var all []runStatus
	var workers []proto.WorkerInfo
	if c.Args().Present() {
		s, m, err := openRun(ctx, env, c, proto.RoleReader)
		if err != nil {
			return false, err
		}
		defer s.Close()

		all, workers, err = s.survey(ctx, func(other proto.Manifest) bool { return other.Run == m.Run })
		if err != nil {
			return false, err
		}

		s.sayLeftOut(env)
		ended = len(all) == 0 || all[0].State.Ended()
	} else if all, workers, err = survey(ctx, env, c); err != nil {
		return false, err
	}

	if c.Bool("json") {
		return ended, printJSON(env.stdout, map[string]any{"runs": all, "workers": workers})
	}

	if c.Bool("watch") {
		if f, ok := env.stdout.(interface{ Fd() uintptr }); ok && term.IsTerminal(int(f.Fd())) {
			fmt.Fprint(env.stdout, "\x1b[H\x1b[2J")
		}
		fmt.Fprintln(env.stdout, time.Now().Format(time.DateTime))
	}

	if len(all) == 1 && c.Args().Present() {
		err = printRun(env.stdout, all[0])
	} else {
		err = printRuns(env.stdout, all)
	}
	if err != nil {
		return ended, err
	}

	fmt.Fprintln(env.stdout)

	return ended, printWorkers(env.stdout, workers)
}

// survey looks at all buses that a command names.
func survey(
	ctx context.Context, env environment, c *cli.Command,
) (all []runStatus, workers []proto.WorkerInfo, err error) {
	list, err := openSessions(ctx, env, c, proto.RoleReader)
	if err != nil {
		return nil, nil, err
	}
	defer closeSessions(list)

	all, workers = []runStatus{}, []proto.WorkerInfo{} // never null in JSON
	for _, s := range list {
		r, w, err := s.survey(ctx, func(proto.Manifest) bool { return true })
		if err != nil {
			return nil, nil, err
		}
		s.sayLeftOut(env)
		all, workers = append(all, r...), append(workers, w...)
	}

	return all, workers, nil
}

// sayLeftOut says if there are workers that the list lacks.
func (s *session) sayLeftOut(env environment) {
	if n := s.Heartbeats.Unreadable(); n > 0 {
		fmt.Fprintf(env.stderr,
			"left out %d announcements of workers that cannot be read, or cannot be true: of another version, or of somebody who should not be on the bus\n",
			n)
	}
}

func (s *session) survey(
	ctx context.Context, wanted func(proto.Manifest) bool,
) ([]runStatus, []proto.WorkerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	runs, err := s.Runs.List(ctx)
	if err != nil {
		return nil, nil, exit.Unreachable(err, "")
	}

	workers, err := s.Heartbeats.Workers(ctx)
	if err != nil {
		return nil, nil, exit.Unreachable(err, "")
	}

	all := []runStatus{}
	for _, m := range runs {
		if !wanted(m) {
			continue
		}

		st := runStatus{Manifest: m}
		st.Missing, st.Served = progress.MissingModels(m, workers)

		if who, ok, err := s.Leases.Holder(ctx, m.Run); err == nil && ok {
			st.Collector = &who
		}

		st.Problem = st.problem(time.Now())
		all = append(all, st)
	}

	return all, workers, nil
}

// waitForWorkers is how long a run may lack a worker before that is said.
const waitForWorkers = 10 * time.Second

// problem says what keeps the run from going on, if anything does.
func (r runStatus) problem(now time.Time) string {
	old := now.Sub(r.CreatedAt) >= waitForWorkers
	switch {
	case r.State == proto.StateFailed:
		return "it was refused: " + r.Manifest.Problem
	case r.State.Ended():
		return ""
	case r.Manifest.Problem != "":
		return "it is not collected: " + r.Manifest.Problem
	case !old:
		return ""
	case r.State == proto.StateValidating:
		return "its submit stores the input, or was stopped: the same promptmill submit with --run " + r.Run +
			" goes on, promptmill delete --force " + r.Run + " takes it away"
	case r.Collector == nil:
		return "nobody collects it: promptmill collect " + r.Run + " -o OUT" + ", or promptmill serve"
	case r.State == proto.StateInProgress && len(r.Missing) > 0 && len(r.Served) > 0:
		return fmt.Sprintf("no worker serves %s; served are %s",
			strings.Join(r.Missing, ", "), strings.Join(r.Served, ", "))
	case r.State == proto.StateInProgress && len(r.Missing) > 0:
		return fmt.Sprintf("no worker serves %s; there is no worker that is ready", strings.Join(r.Missing, ", "))
	}

	return ""
}

func printRuns(w io.Writer, all []runStatus) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "no runs")
		return err
	}

	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RUN\tSTATE\tDONE\tFAILED\tPRIORITY\tMODELS\tAGE")

	for _, r := range all {
		terminal.Fprintf(t, "%s\t%s\t%d/%d\t%d\t%d\t%s\t%s\n",
			r.Run, r.State, r.Counts.Done, r.Input.Requests, r.Counts.Failed, r.Policy.Priority,
			terminal.JoinFew(r.Models(), 3), terminal.FormatAge(time.Since(r.CreatedAt)))
	}

	if err := t.Flush(); err != nil {
		return err
	}

	for _, r := range all {
		if r.Problem != "" {
			terminal.Fprintf(w, "! %s: %s\n", r.Run, r.Problem)
		}
	}

	return nil
}

func printRun(w io.Writer, r runStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { terminal.Fprintf(t, name+"\t"+format+"\n", args...) }
	line("run", "%s", r.Run)
	line("state", "%s", r.State)
	line("requests", "%d, of these %d done, %d failed", r.Input.Requests, r.Counts.Done, r.Counts.Failed)

	if n := r.Counts.Dropped; n > 0 {
		line("dropped",
			"%d messages of results, or lines of them, that did not fit the run; its collector's log has the first of each kind",
			n)
	}

	line("tokens", "%d in, %d out", r.Counts.PromptTokens, r.Counts.CompletionTokens)
	line("priority", "%d", r.Policy.Priority)
	line("created", "%s (%s ago)", r.CreatedAt.Local().Format(time.DateTime),
		terminal.FormatAge(time.Since(r.CreatedAt)))

	if at := r.Policy.ExpiresAt; at != nil {
		line("expires", "%s", at.Local().Format(time.DateTime))
	}

	if r.EndedAt != nil {
		line("ended", "%s; it stays on the bus for %s",
			r.EndedAt.Local().Format(time.DateTime), time.Duration(r.Policy.KeepSeconds)*time.Second)
	}

	for _, model := range r.Models() {
		note := ""
		if slices.Contains(r.Missing, model) {
			note = " (no worker serves it)"
		}
		line("model", "%s: %d requests%s", model, r.Input.Models[model], note)
	}

	if r.Output != "" {
		line("output", "%s", r.Output)
	}

	if r.Collector == nil {
		line("collector", "none now")
	} else {
		line("collector", "%s", r.Collector)
	}

	if r.Problem != "" {
		line("problem", "%s", r.Problem)
	}

	return t.Flush()
}

func printWorkers(w io.Writer, workers []proto.WorkerInfo) error {
	if len(workers) == 0 {
		_, err := fmt.Fprintln(w, "no workers")
		return err
	}

	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WORKER\tSTATE\tIN FLIGHT\tREQ/S\tDONE\tMODELS\tGPU\tVERSION\tSINCE")

	workers = proto.Labelled(workers)
	for _, i := range workers {
		state := "ready"
		if !i.Ready {
			state = "waiting for its model server"
		}

		models := terminal.JoinFew(i.Models, 3)
		if i.Models == nil {
			models = "any"
		}

		gpu := "?"
		if len(i.GPU) > 0 {
			gpu = fmt.Sprintf("%d x %s", len(i.GPU), i.GPU[0].Name)
		}

		terminal.Fprintf(t, "%s\t%s\t%d/%d\t%.1f\t%d\t%s\t%s\t%s\t%s\n",
			i.Name, state, i.InFlight, i.Concurrency, i.PerSecond,
			i.Done, models, gpu, i.Version, terminal.FormatAge(time.Since(i.Since)))
	}

	if err := t.Flush(); err != nil {
		return err
	}

	for _, i := range workers {
		problems := []string{i.Problem}
		if i.SeveralServers {
			problems = append(problems, i.Server+
				" leads to more than one server: give each with --url to run it at its best")
		}

		for _, p := range problems {
			if p == "" {
				continue
			}
			if _, err := fmt.Fprintf(w, "! %s: %s\n", terminal.Printable(i.Name), terminal.Printable(p)); err != nil {
				return err
			}
		}
	}

	return nil
}
