package report

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/metadata"
)

// Named is a run and the path of its metadata.
type Named struct {
	Path string
	Run  *metadata.Run
}

// displayName is the run's name beside others. Runs of one label are common: the same work, done
// again.
func (n Named) displayName() string {
	if n.Run.Label != "" && n.Run.TestID != "" {
		return n.Run.Label + " (" + n.Run.TestID + ")"
	}
	return cmp.Or(n.Run.TestID, strings.TrimSuffix(filepath.Base(n.Path), ".meta.json"))
}

// Compare puts runs side by side, the fastest in output tokens per second first.
// Differences are from the first.
func Compare(runs []Named) *Report {
	runs = slices.Clone(runs)
	slices.SortStableFunc(runs, func(a, b Named) int {
		return cmp.Or(cmp.Compare(valueOrNaN(b.Run.Results.OutputTokensPerSec),
			valueOrNaN(a.Run.Results.OutputTokensPerSec)),
			cmp.Compare(valueOrNaN(b.Run.Results.ThroughputRequestsPerSec),
				valueOrNaN(a.Run.Results.ThroughputRequestsPerSec)))
	})

	r := &Report{
		SchemaVersion: Version,
		Title:         fmt.Sprintf("%d runs side by side", len(runs)),
		Conclusions:   []Conclusion{},
		Next:          []Command{},
	}
	if len(runs) == 0 {
		return r
	}

	for _, s := range []Section{buildSpeeds(runs), buildLoads(runs), buildOthers(runs)} {
		r.addSection(s)
	}

	for _, n := range runs[1:] {
		b := &builder{run: n.Run, Options: Options{Baseline: runs[0].Run}}
		if text := concludeSpeed(b); text != "" {
			r.Conclusions = append(r.Conclusions, Conclusion{"speed", n.displayName() + ": " + text})
		}
	}

	return r
}

// valueOrNaN orders the unknown behind all that is known.
func valueOrNaN(v *float64) float64 {
	if v == nil {
		return -1
	}
	return *v
}

// buildSideBySide is a table with a row for each run, which is named in the first two columns.
func buildSideBySide(id, title string, runs []Named, columns []Column, cells func(Named) []Cell) Section {
	s := Section{ID: id, Title: title, Columns: append([]Column{{Name: "Run"}, {Name: "Model"}}, columns...)}
	for _, n := range runs {
		s.addRow(n.displayName(), append([]Cell{textCell(n.Run.Model)}, cells(n)...)...)
	}
	return s
}

func buildSpeeds(runs []Named) Section {
	first := runs[0].Run
	marked := false
	s := buildSideBySide("speed", "Speed", runs, []Column{
		{Name: "Output tok/s", Number: true},
		{Name: "Difference", Number: true},
		{Name: "Total tok/s", Number: true},
		{Name: "req/s", Number: true},
		{Name: "Difference", Number: true},
		{Name: "90% interval", Number: true},
		{Name: "Input"},
	}, func(n Named) []Cell {
		r := n.Run.Results
		tokens, requests, interval := textCell("first"), textCell("first"), Cell{}
		if n.Run != first {
			tokens = figureCell(relativeChange(r.OutputTokensPerSec, first.Results.OutputTokensPerSec), formatChange)
			requests = figureCell(relativeChange(r.ThroughputRequestsPerSec, first.Results.ThroughputRequestsPerSec),
				formatChange)

			interval = unknown
			if low, high, ok := speedInterval(n.Run, first); ok {
				interval = textCell(formatChange(low) + " to " + formatChange(high))
			}
		}

		input := textCell("the same")
		if known, same := compareInputs(n.Run, first); n.Run != first && !known {
			input = unknown
		} else if known && !same {
			input, marked = textCell("another (!)"), true
		}

		return []Cell{
			figureCell(r.OutputTokensPerSec, formatAmount), tokens, figureCell(r.ThroughputTokensPerSec, formatAmount),
			figureCell(r.ThroughputRequestsPerSec, formatAmount), requests, interval, input,
		}
	})

	s.addNote("Differences are from the first run. The interval is for the difference in requests per second: it would hold nine times in ten if both ran again; it is unknown where a run is too short.")
	if marked {
		s.addNote("(!) A run on another input says little about this one.")
	}

	return s
}

func buildLoads(runs []Named) Section {
	return buildSideBySide("requests", "Requests", runs, []Column{
		{Name: "Requests", Number: true},
		{Name: "Success rate", Number: true},
		{Name: "Inference time", Number: true},
		{Name: "Tokens in", Number: true},
		{Name: "From a prefix cache", Number: true},
		{Name: "Tokens out", Number: true},
		{Name: "Median E2EL (ms)", Number: true},
		{Name: "P99 E2EL (ms)", Number: true},
	}, func(n Named) []Cell {
		r := n.Run.Results

		return []Cell{
			countCell(countRequests(n.Run)), answeredCell(n.Run), figureCell(&r.InferenceTimeSeconds, formatShort),
			figureCell(toFloat(r.PromptTokens), formatInteger),
			figureCell(toFloat(r.CachedPromptTokens), formatInteger),
			figureCell(toFloat(r.CompletionTokens), formatInteger),
			figureCell(medianOf(r.LatencySeconds), formatMilliseconds),
			figureCell(p99Of(r.LatencySeconds), formatMilliseconds),
		}
	})
}

func buildOthers(runs []Named) Section {
	return buildSideBySide("machines", "Machines", runs, []Column{
		{Name: "Workers", Number: true},
		{Name: "Load time", Number: true},
		{Name: "Model size", Number: true},
		{Name: "Memory", Number: true},
		{Name: "J per 1,000 tokens out", Number: true},
		{Name: "Model server"},
		{Name: "Began (UTC)"},
	}, func(n Named) []Cell {
		workers := unknown
		if n.Run.Workers != nil {
			workers = countCell(len(n.Run.Workers))
		}

		r := n.Run.Results

		return []Cell{
			workers, figureCell(r.ModelLoadTimeSeconds, formatShort),
			figureCell(toFloat(maxWeights(n.Run)), formatSize),
			figureCell(toFloat(maxMemoryUsed(n.Run)), formatSize),
			figureCell(r.JoulesPer1000OutputTokens, formatAmount), textCell(cmp.Or(n.Run.Platform, unknown.Text)),
			textCell(formatDate(n.Run.Timestamp)),
		}
	})
}
