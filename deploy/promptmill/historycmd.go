package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/terminal"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/history"
	"github.com/promptmill/promptmill/proto"
)

func historyCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "history",
		Usage: "list the runs that have ended",
		Flags: append(busFlags(), jsonFlag(),
			&cli.BoolFlag{
				Name:     "bus",
				Category: groupBus,
				Usage:    "list the ended runs that the bus still has, instead of those of this machine",
				Sources:  flagEnv("bus"),
			}),
		Action: func(ctx context.Context, c *cli.Command) error {
			var list []history.Entry
			var err error
			if c.Bool("bus") {
				list, err = listEndedRuns(ctx, env, parseBus(env, c))
			} else {
				list, err = loadHistory(env, c)
			}
			if err != nil {
				return err
			}

			if c.Bool("json") {
				return printJSON(env.stdout, list)
			}

			return printHistory(env.stdout, list)
		},
	}
}

// loadHistory returns the runs that have ended on this machine.
func loadHistory(env environment, c *cli.Command) ([]history.Entry, error) {
	state, err := stateOf(env, c)
	if err != nil {
		return nil, err
	}

	known, err := history.Load(state)

	return append([]history.Entry{}, known...), err // never null in JSON
}

// listEndedRuns returns the ended runs that a bus still has, the oldest first.
func listEndedRuns(ctx context.Context, env environment, o busOptions) ([]history.Entry, error) {
	found, err := lookAtBuses(ctx, env, o)
	if err != nil {
		return nil, err
	}

	list := []history.Entry{}
	for _, r := range found.Runs {
		if r.State.Ended() {
			list = append(list, newEntry(r.Manifest))
		}
	}

	slices.SortStableFunc(list, func(a, b history.Entry) int { return a.Timestamp.Compare(b.Timestamp) })

	return list, nil
}

// newEntry returns the entry of an ended run from the bus, which has no time of the work.
func newEntry(m proto.Manifest) history.Entry {
	e := history.Entry{
		TestID:       m.Run,
		Timestamp:    m.CreatedAt,
		Model:        terminal.JoinFew(m.Models(), 3),
		InputSHA256:  m.Input.SHA256,
		NumRequests:  m.Input.Requests,
		SuccessCount: m.Counts.Done - m.Counts.Failed,
		FailureCount: m.Counts.Failed,
		Status:       m.State,
	}
	if len(m.Input.Files) > 0 {
		e.InputFile = m.Input.Files[0].Path
	}
	if m.EndedAt != nil {
		e.TotalTimeSeconds = max(0, m.EndedAt.Sub(m.CreatedAt).Seconds()) // of two clocks
	}

	return e
}

// printHistory prints a table of ended runs.
func printHistory(w io.Writer, list []history.Entry) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no runs have ended")
		return err
	}

	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RUN\tBEGAN\tMODEL\tREQUESTS\tFAILED\tTIME\tTOK/S\tOUT TOK/S\tSTATUS\tMETADATA")

	for _, e := range list {
		worked := e.TotalTimeSeconds
		if e.InferenceTimeSeconds != nil {
			worked = *e.InferenceTimeSeconds
		}

		terminal.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\n",
			e.TestID, e.Timestamp.Local().Format("2006-01-02 15:04"), e.Model, e.NumRequests, e.FailureCount,
			(time.Duration(worked*1000) * time.Millisecond).Round(100*time.Millisecond),
			formatRate(e.ThroughputTokensPerSec), formatRate(e.OutputTokensPerSec), e.Status, files.Short(e.Meta))
	}

	return t.Flush()
}

// formatRate formats a rate, or a dash if it is unknown.
func formatRate(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f", *v)
}
