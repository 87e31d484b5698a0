package report

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/metadata"
)

// Named is a run and what its metadata is called.
type Named struct {
	Path string
	Run  *metadata.Run
}

// name is what the run is called beside others.
func (n Named) name() string {
	return cmp.Or(n.Run.TestID, strings.TrimSuffix(filepath.Base(n.Path), ".meta.json"))
}

// Compare puts runs side by side, the fastest in output tokens per second first.
// Differences are from the first.
func Compare(runs []Named) *Report {
	runs = slices.Clone(runs)
	slices.SortStableFunc(runs, func(a, b Named) int {
		return cmp.Or(cmp.Compare(orNone(b.Run.Results.OutputTokensPerSec), orNone(a.Run.Results.OutputTokensPerSec)),
			cmp.Compare(orNone(b.Run.Results.ThroughputRequestsPerSec), orNone(a.Run.Results.ThroughputRequestsPerSec)))
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

	for _, s := range []Section{speeds(runs), loads(runs), others(runs)} {
		r.add(s)
	}

	for _, n := range runs[1:] {
		b := &builder{run: n.Run, Options: Options{Baseline: runs[0].Run}}
		if text := speed(b); text != "" {
			r.Conclusions = append(r.Conclusions, Conclusion{"speed", n.name() + ": " + text})
		}
	}

	return r
}

// orNone orders the unknown behind all that is known.
func orNone(v *float64) float64 {
	if v == nil {
		return -1
	}
	return *v
}

// side is a table with a row for each run, which is named in the first two columns.
func side(id, title string, runs []Named, columns []Column, cells func(Named) []Cell) Section {
	s := Section{ID: id, Title: title, Columns: append([]Column{{Name: "Run"}, {Name: "Model"}}, columns...)}
	for _, n := range runs {
		s.add(n.name(), append([]Cell{words(n.Run.Model)}, cells(n)...)...)
	}
	return s
}

func speeds(runs []Named) Section {
	first := runs[0].Run
	marked := false
	s := side("speed", "Speed", runs, []Column{
		{Name: "Output tok/s", Number: true},
		{Name: "Difference", Number: true},
		{Name: "Total tok/s", Number: true},
		{Name: "req/s", Number: true},
		{Name: "Difference", Number: true},
		{Name: "90% interval", Number: true},
		{Name: "Input"},
	}, func(n Named) []Cell {
		r := n.Run.Results
		tokens, requests, interval := words("first"), words("first"), Cell{}
		if n.Run != first {
			tokens = figure(difference(r.OutputTokensPerSec, first.Results.OutputTokensPerSec), change)
			requests = figure(difference(r.ThroughputRequestsPerSec, first.Results.ThroughputRequestsPerSec), change)
			interval = unknown
			if low, high, ok := speedInterval(n.Run, first); ok {
				interval = words(change(low) + " to " + change(high))
			}
		}

		input := words("the same")
		if known, same := sameInput(n.Run, first); n.Run != first && !known {
			input = unknown
		} else if known && !same {
			input, marked = words("another (!)"), true
		}

		return []Cell{figure(r.OutputTokensPerSec, amount), tokens, figure(r.ThroughputTokensPerSec, amount),
			figure(r.ThroughputRequestsPerSec, amount), requests, interval, input}
	})

	s.note("Differences are from the first run. The interval is that of the difference in requests per second, and holds it nine times in ten were both run again; it is unknown where a run is too short to tell.")
	if marked {
		s.note("(!) A run on another input says little about this one.")
	}

	return s
}

func loads(runs []Named) Section {
	return side("requests", "Requests", runs, []Column{
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
			number(requests(n.Run)), answered(n.Run), figure(&r.InferenceTimeSeconds, shortly),
			figure(whole(r.PromptTokens), integer), figure(whole(r.CachedPromptTokens), integer),
			figure(whole(r.CompletionTokens), integer), figure(median(r.LatencySeconds), milliseconds),
			figure(p99(r.LatencySeconds), milliseconds),
		}
	})
}

func others(runs []Named) Section {
	return side("machines", "Machines", runs, []Column{
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
			workers = number(len(n.Run.Workers))
		}

		r := n.Run.Results

		return []Cell{
			workers, figure(r.ModelLoadTimeSeconds, shortly), figure(whole(weights(n.Run)), size),
			figure(whole(memoryUsed(n.Run)), size),
			figure(r.JoulesPer1000OutputTokens, amount), words(cmp.Or(n.Run.Platform, unknown.Text)),
			words(date(n.Run.Timestamp)),
		}
	})
}
