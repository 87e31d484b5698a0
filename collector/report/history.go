package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/history"
	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
)

// Past is a run that has ended: its entry in the history and, where its file is still there, its
// metadata.
type Past struct {
	history.Entry
	Run *metadata.Run // nil: the entry is all there is
}

// History is the running page of all runs of a machine in the order of time: a table of all, and one
// for each model. Runs are compared with the one before and with the best of those on the same input, in
// output tokens a second.
func History(runs []Past) *Report {
	runs = slices.Clone(runs)
	slices.SortStableFunc(runs, func(a, b Past) int {
		return cmp.Or(a.Timestamp.Compare(b.Timestamp), cmp.Compare(a.TestID, b.TestID), cmp.Compare(a.Meta, b.Meta))
	})

	r := &Report{SchemaVersion: Version, Verdict: VerdictCompared, Title: "Runs in the order of time"}
	if len(runs) == 0 {
		r.Subtitle = "No runs have ended."
		return r
	}

	models := listModels(runs)
	r.Subtitle = fmt.Sprintf("%s of %s, from %s to %s.", figures.Plural(int64(len(runs)), "run"),
		figures.Plural(int64(len(models)), "model"), formatDay(runs[0].Timestamp), formatDay(runs[len(runs)-1].Timestamp))
	r.AddSection(buildPastRuns(runs))

	for _, model := range models {
		r.AddSection(buildPastModel(model, runs))
	}

	return r
}

// listModels returns the models of runs, each once, in the order of time.
func listModels(runs []Past) (models []string) {
	for _, p := range runs {
		if !slices.Contains(models, p.Model) {
			models = append(models, p.Model)
		}
	}
	return models
}

// buildPastRuns is the table of all runs.
func buildPastRuns(runs []Past) Section {
	s := Section{ID: "runs", Title: "All runs", Columns: []Column{
		{Name: "Began"},
		{Name: "Model"},
		{Name: "GPUs"},
		{Name: "Model server"},
		{Name: "Requests", Number: true},
		{Name: "Success", Number: true},
		{Name: "Tokens/s", Number: true},
		{Name: "Output tokens/s", Number: true},
		{Name: "Requests/s", Number: true},
		{Name: "Against the run before"},
		{Name: "Against the best"},
	}}

	for i, p := range runs {
		before, best := Cell{}, comparePast(p, findBestPast(p, runs))
		if i > 0 {
			before = comparePast(p, runs[i-1])
		}

		s.AddRow(formatDay(p.Timestamp), KnownCell(p.Model), KnownCell(p.gpus()), KnownCell(p.Platform),
			CountCell(p.NumRequests), shareCell(int64(p.SuccessCount), int64(p.countSent())),
			FigureCell(p.ThroughputTokensPerSec, figures.Amount), FigureCell(p.OutputTokensPerSec, figures.Amount),
			FigureCell(p.ThroughputRequestsPerSec, figures.Amount), KnownCell(before.Text), KnownCell(best.Text))
	}

	s.AddNote("The best is that of all runs on the same input. Differences are in output tokens a second.")
	if slices.ContainsFunc(runs, func(p Past) bool { return p.InputSHA256 == "" }) {
		s.AddNote("A question mark is at runs whose metadata lack the checksum of the input: it may be another one.")
	}

	return s
}

// buildPastModel is the table of a model's runs.
func buildPastModel(model string, runs []Past) Section {
	s := Section{Title: cmp.Or(model, "Unknown model"), Columns: []Column{
		{Name: "Began"},
		{Name: "Run"},
		{Name: "Input"},
		{Name: "Settings"},
		{Name: "Input tokens/s", Number: true},
		{Name: "Load", Number: true},
		{Name: "Load, by phase"},
		{Name: "Median latency (ms)", Number: true},
		{Name: "p99 latency (ms)", Number: true},
		{Name: "J per 1,000 output tokens", Number: true},
		{Name: "Status"},
	}}

	for _, p := range runs {
		if p.Model != model {
			continue
		}

		var r metadata.Results
		if p.Run != nil {
			r = p.Run.Results
		}

		name := p.TestID
		if p.Label != "" {
			name = strings.TrimSpace(p.Label + " " + p.TestID)
		}

		s.AddRow(formatDay(p.Timestamp), KnownCell(name), KnownCell(p.InputName()), KnownCell(p.settings()),
			FigureCell(r.InputTokensPerSec, figures.Amount), FigureCell(r.ModelLoadTimeSeconds, figures.Short),
			KnownCell(listLoadPhases(r)), FigureCell(medianOf(r.LatencySeconds), figures.Milliseconds),
			FigureCell(p99Of(r.LatencySeconds), figures.Milliseconds),
			FigureCell(r.JoulesPer1000OutputTokens, figures.Amount), KnownCell(string(p.Status)))
	}

	return s
}

// comparePast says how much faster or slower a run is than another.
func comparePast(p, other Past) Cell {
	now, then := p.rate(), other.rate()
	doubt := ""
	if p.InputSHA256 == "" || other.InputSHA256 == "" {
		doubt = "?"
	}

	switch {
	case now == nil || then == nil:
		return unknown
	case p.Meta == other.Meta && p.TestID == other.TestID && p.Timestamp.Equal(other.Timestamp):
		return TextCell("the best" + doubt)
	case p.InputSHA256 != "" && other.InputSHA256 != "" && p.InputSHA256 != other.InputSHA256:
		return TextCell("another input")
	}

	change := *now / *then - 1
	text := "the same"
	switch size := 100 * math.Abs(change); {
	case size >= 9.95:
		text = figures.Integer(size) + "% " + direction(change)
	case size >= 0.05:
		text = figures.Fixed(size, 1) + "% " + direction(change)
	}

	return Cell{Text: text + doubt, Value: &change}
}

// direction names the sign of a change of speed.
func direction(change float64) string {
	if change < 0 {
		return "slower"
	}
	return "faster"
}

// findBestPast returns the fastest run on the input of a run: itself, where there is none.
func findBestPast(p Past, runs []Past) Past {
	best := p
	for _, other := range runs {
		if other.InputSHA256 != p.InputSHA256 || other.rate() == nil {
			continue
		}

		if best.rate() == nil || *other.rate() > *best.rate() {
			best = other
		}
	}

	return best
}

// countSent returns how many requests were sent and have ended. Entries of older versions lack what was not sent; the
// metadata knows it.
func (p Past) countSent() int {
	if p.Run != nil {
		return p.Run.Results.CountSent()
	}
	return p.SuccessCount + p.CountFailed()
}

// rate is the output tokens a second of a run that has answers; nil: unknown.
func (p Past) rate() *float64 {
	if p.SuccessCount == 0 || p.OutputTokensPerSec == nil || *p.OutputTokensPerSec <= 0 {
		return nil
	}
	return p.OutputTokensPerSec
}

// gpus names the cards of a run; empty: unknown.
func (p Past) gpus() string {
	if p.Run == nil {
		return ""
	}
	return ListCards(p.Run)
}

// settings lists the settings of a run that its speed depends on; empty: none is known.
func (p Past) settings() string {
	if p.Run == nil {
		return ""
	}

	var list []string
	c := p.Run.Config
	if c.Concurrency != nil {
		list = append(list, "concurrency "+figures.Count(int64(*c.Concurrency)))
	} else if peak := p.Run.Results.PeakConcurrentRequests; peak != nil {
		list = append(list, "concurrency up to "+figures.Count(*peak))
	}
	if c.MaxModelLen != nil {
		list = append(list, "context "+figures.Count(int64(*c.MaxModelLen)))
	}
	if c.GPUMemoryUtilization != nil {
		list = append(list, "GPU memory "+figures.Fraction(*c.GPUMemoryUtilization))
	}
	if n := len(p.Run.Workers); n > 1 {
		list = append(list, figures.Plural(int64(n), "worker"))
	}

	return strings.Join(list, ", ")
}

// formatDay formats the time at which a run began, to the minute.
func formatDay(t time.Time) string {
	if t.IsZero() {
		return unknown.Text
	}
	return t.UTC().Format("2006-01-02 15:04")
}
