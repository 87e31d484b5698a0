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
		Usage: "list the runs that have ended, on this machine or on a bus",
		Flags: append(busFlags(), jsonFlag(),
			&cli.BoolFlag{
				Name:    "bus",
				Usage:   "those that the bus still has, whoever collected them",
				Sources: flagEnv("bus"),
			}),
		Action: func(ctx context.Context, c *cli.Command) error {
			list, err := past(ctx, env, c)
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

// past are the ended runs.
func past(ctx context.Context, env environment, c *cli.Command) ([]history.Entry, error) {
	list := []history.Entry{}
	if !c.Bool("bus") {
		state, err := stateOf(env, c)
		if err != nil {
			return nil, err
		}
		known, err := history.Load(state)
		return append(list, known...), err
	}

	all, _, err := survey(ctx, env, c)
	if err != nil {
		return nil, err
	}

	for _, r := range all {
		if r.State.Ended() {
			list = append(list, entryOf(r.Manifest))
		}
	}

	slices.SortStableFunc(list, func(a, b history.Entry) int { return a.Timestamp.Compare(b.Timestamp) })

	return list, nil
}

// entryOf is what the bus knows of an ended run: how long it was worked on is not
// among it.
func entryOf(m proto.Manifest) history.Entry {
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
		e.TotalTimeSeconds = max(0, m.EndedAt.Sub(m.CreatedAt).Seconds()) // by two clocks
	}

	return e
}

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
			orDash(e.ThroughputTokensPerSec), orDash(e.OutputTokensPerSec), e.Status, files.Short(e.Meta))
	}

	return t.Flush()
}

// orDash is a rate, or a dash if it is unknown.
func orDash(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f", *v)
}
