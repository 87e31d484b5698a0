package status

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/program"
	"github.com/promptmill/promptmill/deploy/summary"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// unknown stands in tables for an unknown value.
const unknown = "-"

// PrintRuns prints a table of runs, and the problem of each that has one. Columns give way to make
// the table at most width cells wide; 0: all columns are printed whole.
func PrintRuns(w io.Writer, all []Run, width int) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "no runs")
		return err
	}

	if err := newRunTable(all).Print(w, width); err != nil {
		return err
	}

	for _, r := range all {
		if r.Problem != "" {
			terminal.Fprintf(w, "! %s: %s\n", r.Run, program.TypedCommands(r.Problem))
		}
	}

	return nil
}

// newRunTable returns the table of some runs.
func newRunTable(all []Run) terminal.Columns {
	cells := terminal.CellsOf(all)

	failed := terminal.Column{
		Head:  "FAILED",
		Cells: cells(func(r Run) string { return terminal.FormatCount(r.Progress.Failed) }),
	}
	if !slices.ContainsFunc(all, func(r Run) bool { return r.Progress.Failed > 0 }) {
		failed.DropAt = 6
	}

	t := terminal.Columns{{Head: "RUN", Cells: cells(func(r Run) string { return r.Run })}}
	labels := cells(func(r Run) string { return cmp.Or(r.Label, unknown) })
	if slices.ContainsFunc(all, func(r Run) bool { return r.Label != "" }) {
		t = append(t, terminal.Column{
			Head:  "LABEL",
			Cells: labels,
			CutAt: 4,
			Least: 10,
		})
	}

	inputDropAt := 0
	if !slices.ContainsFunc(all, func(r Run) bool { return r.Label == "" }) {
		inputDropAt = 9 // the label says enough
	}

	return append(t,
		terminal.Column{
			Head:   "INPUT",
			Cells:  cells(func(r Run) string { return cmp.Or(r.InputName, unknown) }),
			CutAt:  3,
			Least:  10,
			DropAt: inputDropAt,
		},
		terminal.Column{Head: "STATE", Cells: cells(func(r Run) string { return string(r.State) })},
		terminal.Column{
			Head:    "DONE",
			Cells:   cells(formatDone),
			BriefAt: 5,
			Brief:   cells(func(r Run) string { return formatPercent(r.Progress.Done, r.Progress.Total) }),
		},
		failed,
		terminal.Column{
			Head:   "RATE",
			Cells:  cells(func(r Run) string { return formatRate(r.Progress.RequestsPerS) }),
			DropAt: 8,
		},
		terminal.Column{Head: "LEFT", Cells: cells(formatLeft)},
		terminal.Column{
			Head:   "AGE",
			Cells:  cells(func(r Run) string { return terminal.FormatAge(seconds(r.AgeS)) }),
			DropAt: 7,
		},
		terminal.Column{
			Head:   "COLLECTOR",
			Cells:  cells(formatCollector),
			CutAt:  3,
			Least:  10,
			DropAt: 6,
		},
		terminal.Column{
			Head:   "MODELS",
			Cells:  cells(func(r Run) string { return terminal.JoinFew(r.Models(), 3) }),
			DropAt: 2,
		},
		terminal.Column{
			Head:   "PRIORITY",
			Cells:  cells(func(r Run) string { return strconv.Itoa(r.Policy.Priority) }),
			DropAt: 1,
		})
}

// formatDone formats how far a run is.
func formatDone(r Run) string {
	p := r.Progress
	return fmt.Sprintf("%s/%s %s", terminal.FormatCount(p.Done), terminal.FormatCount(p.Total),
		formatPercent(p.Done, p.Total))
}

// formatPercent formats a part in percent. Only the whole is 100%.
func formatPercent(part, whole int) string { return fmt.Sprintf("%d%%", 100*part/max(1, whole)) }

// formatRate formats requests per second.
func formatRate(rate *float64) string {
	switch {
	case rate == nil:
		return unknown
	case *rate < 10:
		return fmt.Sprintf("%.1f/s", *rate)
	default:
		return fmt.Sprintf("%.0f/s", *rate)
	}
}

// formatLeft formats the remaining time of a run as an interval.
func formatLeft(r Run) string {
	if r.Progress.RemainingLowS == nil || r.Progress.RemainingHighS == nil {
		return unknown
	}
	return terminal.FormatInterval(*r.Progress.RemainingLowS, *r.Progress.RemainingHighS)
}

// formatCollector formats the host on which a run is collected.
func formatCollector(r Run) string {
	if r.Collector == nil {
		return unknown
	}
	return r.Collector.Host
}

// formatElapsed formats the time that a run takes or took.
func formatElapsed(r Run) string { return terminal.FormatAge(seconds(r.Progress.ElapsedS)) }

// seconds returns a number of seconds as a duration, at most a century.
func seconds(s float64) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	return time.Duration(min(s, century.Seconds()) * float64(time.Second))
}

// PrintRun prints all that is known of a run.
func PrintRun(w io.Writer, r Run) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	p := card{t}

	p.line("run", "%s", r.Run)
	if r.Label != "" {
		p.line("label", "%s", r.Label)
	}

	for _, f := range r.Input.Files {
		p.line("input", "%s", f.Path)
	}

	p.line("state", "%s", r.State)
	if since := r.StateSince(); !r.State.Ended() && since.Sub(r.CreatedAt) >= time.Second {
		p.line("since", "%s", formatPast(since))
	}

	p.progress(r)
	p.models(r)
	p.line("priority", "%d", r.Policy.Priority)
	p.line("created", "%s", formatPast(r.CreatedAt))

	if at := r.Policy.ExpiresAt; at != nil && !r.State.Ended() {
		p.line("expires", "%s (in %s)", at.Local().Format(time.DateTime), terminal.FormatAge(time.Until(*at)))
	}

	if r.EndedAt != nil {
		p.line("ended", "%s, after %s; it stays on the bus for %s", r.EndedAt.Local().Format(time.DateTime),
			formatElapsed(r), terminal.FormatDuration(time.Duration(r.Policy.KeepSeconds)*time.Second))
	}

	p.files(r)

	if r.Problem != "" {
		p.line("problem", "%s", program.TypedCommands(r.Problem))
	}

	if next := r.nextCommand(); next != "" {
		p.line("next", "%s", program.TypedCommands(next))
	}

	return t.Flush()
}

// card is the card of a run: lines of a name and a value.
type card struct{ w io.Writer }

func (c card) line(name, format string, args ...any) {
	terminal.Fprintf(c.w, name+"\t"+format+"\n", args...)
}

// progress adds how far the run is, and its failures by cause, the most frequent first.
func (c card) progress(r Run) {
	p := r.Progress
	notSent := min(p.Failed, r.Counts.Skipped)
	text := terminal.FormatCount(p.Failed-notSent) + " failed"
	if notSent > 0 {
		text += ", " + terminal.FormatCount(notSent) + " not sent"
	}
	c.line("requests", "%s, of these %s done, %s", terminal.FormatCount(p.Total), terminal.FormatCount(p.Done), text)

	for _, code := range slices.SortedFunc(maps.Keys(r.Failures), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.Failures[b], r.Failures[a]), cmp.Compare(a, b))
	}) {
		c.line("failures", "%s x %s", terminal.FormatCount(r.Failures[code]), summary.NameCause(code))
	}

	if p.RequestsPerS != nil {
		c.line("rate", "%s", strings.Replace(formatRate(p.RequestsPerS), "/", " requests/", 1))
	}

	if p.RemainingS != nil && p.RemainingLowS != nil && p.RemainingHighS != nil {
		c.line("left", "%s, expected %s", formatLeft(r), terminal.FormatInterval(*p.RemainingS, *p.RemainingS))
	}

	if n := r.Counts.Dropped; n > 0 {
		c.line("dropped",
			"%s of results, or lines of them, did not fit the run; the collector's log shows the first of each kind",
			terminal.CountOf(n, "message"))
	}

	c.line("tokens", "%s in, %s out", terminal.FormatCount(r.Counts.PromptTokens),
		terminal.FormatCount(r.Counts.CompletionTokens))
}

// models adds the models of the run.
func (c card) models(r Run) {
	for _, model := range r.Models() {
		note := ""
		if slices.Contains(r.Missing, model) {
			note = " (no worker serves it)"
		}
		c.line("model", "%s: %s%s", model, terminal.CountOf(r.Input.Models[model], "request"), note)
	}
}

// files adds the output of the run and its collector.
func (c card) files(r Run) {
	out := output.Prefix(r.Output) // HOST:PATH
	switch {
	case r.Output == "":
	case r.State == proto.StateCompleted || r.State == proto.StateCancelled || r.State == proto.StateExpired:
		c.line("output", "%s", out.Results())
		if r.Counts.Failed > 0 {
			c.line("errors", "%s", out.Errors())
		}
	case !r.State.Ended():
		c.line("output", "%s (read it there with zstd -dc)", out.Journal())
	}

	switch at := r.Collector; {
	case at != nil:
		c.line("collector", "%s, lease renewed %s", at.CollectorInfo, formatAgo(at.RenewedAgoS))
	case !r.State.Ended():
		c.line("collector", "none")
	}
}

// formatAgo formats a time in seconds as one that has passed.
func formatAgo(s float64) string {
	if s < time.Minute.Seconds() {
		return fmt.Sprintf("%.0f s ago", math.Floor(s))
	}
	return terminal.FormatAge(seconds(s)) + " ago"
}

// formatPast formats a time in the past.
func formatPast(at time.Time) string {
	return fmt.Sprintf("%s (%s ago)", at.Local().Format(time.DateTime), terminal.FormatAge(time.Since(at)))
}

// nextCommand returns the command that is likely to come next, or "" where the problem names one.
func (r Run) nextCommand() string {
	switch {
	case r.Problem != "":
		return ""
	case r.State == proto.StateInProgress:
		return "promptmill tail " + r.Run + " prints the results as they come"
	case r.State == proto.StatePaused:
		return "promptmill resume " + r.Run
	case r.State.Ended() && r.Counts.Failed > 0:
		return "promptmill retry " + r.Run + " runs the failed requests again"
	}

	return ""
}
