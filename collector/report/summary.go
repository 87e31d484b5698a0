package report

import (
	"fmt"

	"github.com/promptmill/promptmill/collector/metadata"
)

// buildSummary shows the most important figures.
func buildSummary(b *builder) Section {
	s := Section{ID: "summary", Title: "Summary", Columns: newColumns("")}
	r := b.run.Results
	s.addRow("Success rate", successRateCell(b.run))
	s.addRow("Throughput", figureCell(r.ThroughputTokensPerSec, formatTokenRate))
	s.addRow("Requests per second", figureCell(r.ThroughputRequestsPerSec, formatRequestRate))
	s.addRow("Inference time", figureCell(&r.InferenceTimeSeconds, formatSeconds))
	s.addRow("Model load time", figureCell(r.ModelLoadTimeSeconds, formatSeconds))
	s.addRow("Model size", figureCell(toFloat(maxWeights(b.run)), formatSize))
	s.addRow("Memory", figureCell(toFloat(maxMemoryUsed(b.run)), formatSize))

	return s
}

func successRateCell(run *metadata.Run) Cell {
	rate := answeredCell(run)
	if rate.Value != nil {
		rate.Text += fmt.Sprintf(" (%s of %s)", formatCount(int64(run.Results.SuccessCount)),
			formatCount(int64(countRequests(run))))
	}
	return rate
}

// answeredCell is the part of the requests that were answered.
func answeredCell(run *metadata.Run) Cell {
	return shareCell(int64(run.Results.SuccessCount), int64(countRequests(run)))
}

// maxWeights returns the memory of the model's weights, at the worker with the most.
func maxWeights(run *metadata.Run) (most *int64) {
	for _, w := range run.Workers {
		most = metadata.Most(most, w.MemoryBytes.Weights)
	}
	return most
}

// maxMemoryUsed is the most memory that was in use on all cards together.
func maxMemoryUsed(run *metadata.Run) (most *int64) {
	if run.Series != nil {
		for _, m := range run.Series.MemoryUsedBytes {
			most = metadata.Most(most, m)
		}
	}

	if most != nil {
		return most
	}

	var sum int64
	cards, seen := 0, map[string]bool{} // several workers may see a card
	for _, w := range run.Workers {
		for _, g := range w.GPUs {
			if g.UUID != "" && seen[g.UUID] {
				continue
			}

			seen[g.UUID] = true
			if g.MemoryUsedBytesMax == nil {
				return nil
			}

			sum += *g.MemoryUsedBytesMax
			cards++
		}
	}

	if cards == 0 {
		return nil
	}

	return &sum
}

// buildComparison holds the run against the baseline.
func buildComparison(b *builder) Section {
	if b.Baseline == nil {
		return Section{}
	}

	s := Section{
		ID:      "comparison",
		Title:   "Comparison with " + b.baselineName(),
		Columns: newColumns("This run", b.baselineName(), "Difference"),
	}

	now, then := b.run.Results, b.Baseline.Results
	s.addRow("Success rate", answeredCell(b.run), answeredCell(b.Baseline), Cell{})
	row := func(name string, now, then *float64, format func(float64) string) {
		if now != nil && then != nil {
			s.addRow(name, figureCell(now, format), figureCell(then, format),
				figureCell(relativeChange(now, then), formatChange))
		}
	}

	n, m := countRequests(b.run), countRequests(b.Baseline)
	row("Throughput", now.ThroughputTokensPerSec, then.ThroughputTokensPerSec, formatTokenRate)
	row("Output token throughput", now.OutputTokensPerSec, then.OutputTokensPerSec, formatTokenRate)
	row("Requests per second", now.ThroughputRequestsPerSec, then.ThroughputRequestsPerSec, formatRequestRate)
	if n == m {
		row("Inference time", &now.InferenceTimeSeconds, &then.InferenceTimeSeconds, formatSeconds)
	} else {
		s.addRow("Inference time", figureCell(&now.InferenceTimeSeconds, formatSeconds),
			figureCell(&then.InferenceTimeSeconds, formatSeconds), Cell{})
	}

	row("Model load time", now.ModelLoadTimeSeconds, then.ModelLoadTimeSeconds, formatShort)
	row("Mean generated tokens", meanPerRequest(now.CompletionTokens, b.run),
		meanPerRequest(then.CompletionTokens, b.Baseline), formatAmount)
	row("Median E2EL (ms)", medianOf(now.LatencySeconds), medianOf(then.LatencySeconds), formatMilliseconds)
	row("P99 E2EL (ms)", p99Of(now.LatencySeconds), p99Of(then.LatencySeconds), formatMilliseconds)
	row("Energy per 1,000 output tokens (J)",
		now.JoulesPer1000OutputTokens, then.JoulesPer1000OutputTokens, formatAmount)
	row("Model size", toFloat(maxWeights(b.run)), toFloat(maxWeights(b.Baseline)), formatSize)
	row("Memory", toFloat(maxMemoryUsed(b.run)), toFloat(maxMemoryUsed(b.Baseline)), formatSize)

	switch known, same := compareInputs(b.run, b.Baseline); {
	case !known:
		s.addNote("Whether both ran on the same input is not known.")
	case !same:
		s.addNote("The baseline ran on another input.")
	}

	if low, high, ok := speedInterval(b.run, b.Baseline); ok {
		s.addNote("Were both run again, the difference in requests per second would be between %s and %s nine times in ten.",
			formatChange(low), formatChange(high))
	}

	if n != m {
		s.addNote("The baseline had %s, this run %s: times cannot be compared, rates can.",
			formatPlural(int64(m), "request"), formatCount(int64(n)))
	}

	return s
}

// relativeChange returns the change from then to now, as a fraction of then.
func relativeChange(now, then *float64) *float64 {
	if now == nil || then == nil || *then <= 0 {
		return nil
	}
	return new(*now / *then - 1)
}

// compareInputs reports whether two runs had the same input, if that is known.
func compareInputs(a, b *metadata.Run) (known, same bool) {
	if a.Test.InputSHA256 == "" || b.Test.InputSHA256 == "" {
		return false, false
	}
	return true, a.Test.InputSHA256 == b.Test.InputSHA256
}

// meanPerRequest is the mean over the answered requests, if the total is of all of them.
func meanPerRequest(total *int64, run *metadata.Run) *float64 {
	if total == nil || hasPartialUsage(run) {
		return nil
	}
	return metadata.Per(float64(*total), float64(run.Results.SuccessCount))
}

func medianOf(d *metadata.Distribution) *float64 {
	if d == nil {
		return nil
	}
	return &d.P50
}

func p99Of(d *metadata.Distribution) *float64 {
	if d == nil {
		return nil
	}
	return &d.P99
}
