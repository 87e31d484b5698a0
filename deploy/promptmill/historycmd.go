package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/terminal"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/history"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/proto"
)

func historyCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "history",
		Usage: "list the runs that have ended, or write the page of all models tried here",
		Description: "--format md writes a page to keep in a repository: all runs in the order of time, with model, GPUs, " +
			"server and figures, compared with the run before and with the best on the same input.",
		Flags: append(busFlags(), jsonFlag(),
			&cli.StringFlag{
				Name:        "format",
				Category:    groupOutput,
				Usage:       "`FORMAT`: table, md or json",
				DefaultText: "by the name of -o, or table",
			},
			&cli.StringFlag{
				Name:     "output",
				Category: groupOutput,
				Aliases:  []string{"o"},
				Usage:    "`FILE`: write to this file instead of standard output",
			},
			&cli.StringSliceFlag{
				Name:     "add",
				Category: groupInput,
				Usage:    "`META`: first note a run of another tool or machine by its metadata file",
			},
			&cli.BoolFlag{
				Name:     "bus",
				Category: groupBus,
				Usage:    "list the ended runs that the bus still has, instead of those of this machine",
			}),
		Action: func(ctx context.Context, c *cli.Command) error {
			format, err := parseHistoryFormat(c)
			if err != nil {
				return err
			}

			if err := addToHistory(env, c); err != nil {
				return err
			}

			var list []history.Entry
			if c.Bool("bus") {
				list, err = listEndedRuns(ctx, env, parseBus(env, c))
			} else {
				list, err = loadHistory(env, c)
			}
			if err != nil {
				return err
			}

			if path := c.String("output"); path != "" {
				return files.Write(path, 0o666, func(w io.Writer) error { return writeHistory(w, format, list) })
			}

			if format != "table" {
				return writeHistory(env.stdout, format, list)
			}

			return (&view{out: env.stdout}).show(func(w io.Writer, width int) error {
				return printHistory(w, list, width)
			})
		},
	}
}

// parseHistoryFormat returns the format of the list: table, md or json.
func parseHistoryFormat(c *cli.Command) (string, error) {
	format := c.String("format")
	switch format {
	case "", "table", "md", "json":
	default:
		return "", exit.Usage("", "--format %q: want table, md or json", format)
	}

	if c.Bool("json") {
		if format != "" && format != "json" {
			return "", exit.Usage("leave out one of them", "--json and --format %s are different formats", format)
		}
		return "json", nil
	}

	ending := strings.TrimPrefix(filepath.Ext(c.String("output")), ".")
	switch {
	case format != "":
		return format, nil
	case ending == "md" || ending == "json":
		return ending, nil
	}

	return "table", nil
}

// addToHistory notes the runs of --add. If one cannot be read, none is noted.
func addToHistory(env environment, c *cli.Command) error {
	names := c.StringSlice("add")
	if len(names) == 0 {
		return nil
	}

	if c.Bool("bus") {
		return exit.Usage("leave out --bus", "--add notes runs in the history of this machine, which --bus does not list")
	}

	state, err := stateOf(env, c)
	if err != nil {
		return err
	}

	var entries []history.Entry
	for _, name := range names {
		run, err := metadata.Read(name)
		if errors.Is(err, metadata.ErrFormat) || errors.Is(err, os.ErrNotExist) {
			return exit.Usage("name the NAME.meta.json of a run", "--add: %w", err)
		}
		if err != nil {
			return err
		}

		path, err := filepath.Abs(name)
		if err != nil {
			return err
		}

		entries = append(entries, history.Of(path, run))
	}

	for _, e := range entries {
		if err := history.Append(state, e); err != nil {
			return err
		}
	}

	return nil
}

// writeHistory writes the runs that have ended in a format, for files and other programs.
func writeHistory(w io.Writer, format string, list []history.Entry) error {
	switch format {
	case "json":
		return printJSON(w, list)
	case "md":
		return report.History(readPast(list)).Markdown(w)
	}
	return printHistory(w, list, 0)
}

// readPast reads the metadata of runs. A file that is gone, that cannot be read or that is of another
// run by now leaves the entry alone.
func readPast(list []history.Entry) (past []report.Past) {
	for _, e := range list {
		p := report.Past{Entry: e}
		if e.Meta != "" {
			if run, err := metadata.Read(e.Meta); err == nil && run.TestID == e.TestID {
				p.Run = run
			}
		}
		past = append(past, p)
	}

	return past
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
		Label:        m.Label,
		Timestamp:    m.CreatedAt,
		Model:        terminal.JoinFew(m.Models(), 3),
		InputSHA256:  m.Input.SHA256,
		NumRequests:  m.Input.Requests,
		SuccessCount: m.Counts.Done - m.Counts.Failed,
		FailureCount: m.Counts.Failed,
		NotSentCount: m.Counts.Skipped,
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

// printHistory prints a table of ended runs, in at most width cells; 0: without a limit.
func printHistory(w io.Writer, list []history.Entry, width int) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no runs have ended")
		return err
	}

	cells := terminal.CellsOf(list)

	t := terminal.Columns{{Head: "RUN", Cells: cells(func(e history.Entry) string { return e.TestID })}}
	if slices.ContainsFunc(list, func(e history.Entry) bool { return e.Label != "" }) {
		labels := cells(func(e history.Entry) string { return cmp.Or(e.Label, "-") })
		t = append(t, terminal.Column{
			Head:  "LABEL",
			Cells: labels,
			CutAt: 6,
			Least: 12,
		})
	}

	t = append(t,
		terminal.Column{
			Head:  "INPUT",
			Cells: cells(func(e history.Entry) string { return cmp.Or(e.InputName(), "-") }),
			CutAt: 6,
			Least: 12,
		},
		terminal.Column{
			Head:   "BEGAN",
			Cells:  cells(func(e history.Entry) string { return formatMinute(e.Timestamp, "-") }),
			DropAt: 8,
		},
		terminal.Column{
			Head:   "MODEL",
			Cells:  cells(func(e history.Entry) string { return e.Model }),
			CutAt:  5,
			Least:  12,
			DropAt: 9,
		},
		terminal.Column{
			Head:  "REQUESTS",
			Cells: cells(func(e history.Entry) string { return terminal.FormatCount(e.NumRequests) }),
		},
		terminal.Column{
			Head:  "FAILED",
			Cells: cells(func(e history.Entry) string { return terminal.FormatCount(e.CountFailed()) }),
		},
		terminal.Column{Head: "TIME", Cells: cells(formatWorked), DropAt: 7},
		terminal.Column{
			Head:   "TOK/S",
			Cells:  cells(func(e history.Entry) string { return formatRate(e.ThroughputTokensPerSec) }),
			DropAt: 3,
		},
		terminal.Column{
			Head:   "OUT TOK/S",
			Cells:  cells(func(e history.Entry) string { return formatRate(e.OutputTokensPerSec) }),
			DropAt: 4,
		},
		terminal.Column{
			Head:   "STATUS",
			Cells:  cells(func(e history.Entry) string { return string(e.Status) }),
			DropAt: 2,
		},
		terminal.Column{
			Head:   "METADATA",
			Cells:  cells(func(e history.Entry) string { return files.Short(e.Meta) }),
			DropAt: 1,
		},
	)

	return t.Print(w, width)
}

// formatWorked formats the time in which a run was worked on or, if that is unknown, that it took.
func formatWorked(e history.Entry) string {
	worked := e.TotalTimeSeconds
	if e.InferenceTimeSeconds != nil {
		worked = *e.InferenceTimeSeconds
	}
	return (time.Duration(worked*1000) * time.Millisecond).Round(100 * time.Millisecond).String()
}

// formatRate formats a rate, or a dash if it is unknown.
func formatRate(v *float64) string {
	if v == nil {
		return "-"
	}
	return terminal.FormatCount(int64(math.Round(*v)))
}
