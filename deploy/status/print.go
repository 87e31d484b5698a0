package status

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// PrintRuns prints a table of runs, and the problem of each that has one.
func PrintRuns(w io.Writer, all []Run) error {
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

// PrintRun prints all that is known of a run.
func PrintRun(w io.Writer, r Run) error {
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

// PrintWorkers prints a table of workers, and their problems.
func PrintWorkers(w io.Writer, workers []proto.WorkerInfo) error {
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
		if i.Problem != "" {
			terminal.Fprintf(w, "! %s: %s\n", i.Name, i.Problem)
		}

		if i.SeveralServers {
			terminal.Fprintf(w, "! %s: %s leads to more than one server: give each with --url to run it at its best\n",
				i.Name, i.Server)
		}
	}

	return nil
}
