package report

import (
	"fmt"

	"github.com/promptmill/promptmill/collector/metadata"
)

// mostTiles are as many figures as one takes in at a glance.
const mostTiles = 6

// buildSummary has the most important figures that are known, each with its context, such
// as the peak beside the mean.
func buildSummary(b *builder) Section {
	s := Section{ID: "summary", Title: "Summary", Form: FormTiles, Columns: newColumns("", "")}
	s.Columns[2].Number = false
	for _, tile := range []func(*builder) (name string, figure, detail Cell){
		answeredTile, requestRateTile, outputRateTile, latencyTile, workTile, costTile, energyTile, wasteTile, peakTile,
	} {
		name, figure, detail := tile(b)
		if figure.isUnknown() || name == "" {
			continue
		}

		s.addRow(name, figure, detail)
		if len(s.Rows) == mostTiles {
			break
		}
	}

	return s
}

func answeredTile(b *builder) (name string, figure, detail Cell) {
	return "Answered", answeredCell(b.run), textCell(fmt.Sprintf("%s of %s",
		formatCount(int64(b.run.Results.SuccessCount)), formatCount(int64(countRequests(b.run)))))
}

func requestRateTile(b *builder) (name string, figure, detail Cell) {
	r := b.run.Results
	if peak := peakOf(r.PeakRequestsPerSec, r.ThroughputRequestsPerSec); peak != nil {
		detail = textCell("peak " + formatAmount(*peak))
	}

	return "Requests/s", figureCell(requestRate(r), formatAmount), detail
}

// outputRateTile is the rate of output tokens, or, where answers have none, that of input tokens.
func outputRateTile(b *builder) (name string, figure, detail Cell) {
	r := b.run.Results
	if outputRate(r) == nil {
		return "Input tokens/s", figureCell(r.InputTokensPerSec, formatAmount), Cell{}
	}

	if r.InputTokensPerSec != nil {
		detail = textCell(formatAmount(*r.InputTokensPerSec) + " input tokens/s")
	}

	return "Output tokens/s", figureCell(r.OutputTokensPerSec, formatAmount), detail
}

func latencyTile(b *builder) (name string, figure, detail Cell) {
	d := b.run.Results.LatencySeconds
	if d == nil {
		return "", unknown, Cell{}
	}
	return "Median latency", figureCell(&d.P50, formatShort), textCell("p99 " + formatShort(d.P99) + ", end to end")
}

func workTile(b *builder) (name string, figure, detail Cell) {
	r := b.run.Results
	if r.InferenceTimeSeconds <= 0 {
		return "", unknown, Cell{}
	}

	if r.TotalTimeSeconds > 0 {
		detail = textCell("of " + formatDuration(r.TotalTimeSeconds) + " wall time")
	}

	return "Time worked", figureCell(&r.InferenceTimeSeconds, formatDuration), detail
}

// costTile is the cost of the energy, beside that of the same tokens at an API, or else that.
func costTile(b *builder) (name string, figure, detail Cell) {
	p := b.Prices
	var energy, api *float64
	if p.KWh != nil {
		energy = energyCost(b.run.Results.EnergyJoules, *p.KWh)
	}
	if p.In != nil || p.Out != nil {
		api = tokenCost(b.run.Results, p)
	}

	switch {
	case energy != nil && api != nil:
		return "Energy cost", p.moneyCell(energy), textCell(p.format(*api) + " at an API")
	case energy != nil:
		return "Energy cost", p.moneyCell(energy), textCell(formatEnergy(*b.run.Results.EnergyJoules))
	case api != nil:
		return "Cost at an API", p.moneyCell(api), textCell("for the same tokens")
	}

	return "", unknown, Cell{}
}

func energyTile(b *builder) (name string, figure, detail Cell) {
	r := b.run.Results
	if b.Prices.KWh != nil { // the cost stands there already
		return "", unknown, Cell{}
	}
	if r.JoulesPer1000OutputTokens != nil {
		detail = textCell(formatAmount(*r.JoulesPer1000OutputTokens) + " J per 1,000 output tokens")
	}
	return "Energy", figureCell(r.EnergyJoules, formatEnergy), detail
}

func wasteTile(b *builder) (name string, figure, detail Cell) {
	w := b.run.Results.Wasted
	switch {
	case w == nil:
	case valueOrZero(w.TokenShare) > 0:
		return "Wasted", lostTokensCell(b.run.Results), textCell("of the output tokens")
	case valueOrZero(w.TimeShare) > 0:
		return "Wasted", percentCell(*w.TimeShare), textCell("of the time of all attempts")
	}

	return "", unknown, Cell{}
}

func peakTile(b *builder) (name string, figure, detail Cell) {
	r := b.run.Results
	if r.MeanConcurrentRequests != nil {
		detail = textCell("mean " + formatAmount(*r.MeanConcurrentRequests))
	}
	return "Peak in flight", figureCell(toFloat(r.PeakConcurrentRequests), formatInteger), detail
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
	s.addRow("Answered", answeredCell(b.run), answeredCell(b.Baseline), Cell{})
	row := func(name string, now, then *float64, format func(float64) string) {
		if now != nil && then != nil {
			s.addRow(name, figureCell(now, format), figureCell(then, format),
				figureCell(relativeChange(now, then), formatChange))
		}
	}

	n, m := countRequests(b.run), countRequests(b.Baseline)
	row("Output tokens/s", outputRate(now), outputRate(then), formatAmount)
	row("Requests/s", requestRate(now), requestRate(then), formatAmount)
	row("Input tokens/s", now.InputTokensPerSec, then.InputTokensPerSec, formatAmount)
	row("Total tokens/s", now.ThroughputTokensPerSec, then.ThroughputTokensPerSec, formatAmount)
	if n == m {
		row("Time worked", &now.InferenceTimeSeconds, &then.InferenceTimeSeconds, formatSeconds)
	} else {
		s.addRow("Time worked", figureCell(&now.InferenceTimeSeconds, formatSeconds),
			figureCell(&then.InferenceTimeSeconds, formatSeconds), Cell{})
	}

	row("Model load time", now.ModelLoadTimeSeconds, then.ModelLoadTimeSeconds, formatShort)
	row("Mean output tokens per request", meanPerRequest(now.CompletionTokens, b.run),
		meanPerRequest(then.CompletionTokens, b.Baseline), formatAmount)
	row("Median latency, end to end (ms)", medianOf(now.LatencySeconds), medianOf(then.LatencySeconds), formatMilliseconds)
	row("p99 latency, end to end (ms)", p99Of(now.LatencySeconds), p99Of(then.LatencySeconds), formatMilliseconds)
	row("Energy per 1,000 output tokens (J)",
		now.JoulesPer1000OutputTokens, then.JoulesPer1000OutputTokens, formatAmount)
	row("Model size", toFloat(maxWeights(b.run)), toFloat(maxWeights(b.Baseline)), formatSize)
	row("GPU memory", toFloat(maxMemoryUsed(b.run)), toFloat(maxMemoryUsed(b.Baseline)), formatSize)

	switch known, same := compareInputs(b.run, b.Baseline); {
	case !known:
		s.addNote("It is not known whether both ran on the same input.")
	case !same:
		s.addNote("The baseline ran on another input, so the two cannot be compared request for request.")
	}

	if low, high, ok := speedInterval(b.run, b.Baseline); ok {
		s.addNote("If both ran again, the difference in requests/s would lie between %s and %s (90%% interval).",
			formatChange(low), formatChange(high))
	}

	if n != m {
		s.addNote("The baseline had %s and this run %s: compare rates, not times.",
			formatPlural(int64(m), "request"), formatCount(int64(n)))
	}

	return s
}

// outputRate is the rate of output tokens; nil if it is not known, or if the answers have none, as
// embeddings do.
func outputRate(r metadata.Results) *float64 {
	if r.CompletionTokens != nil && *r.CompletionTokens == 0 || valueOrZero(r.OutputTokensPerSec) == 0 {
		return nil
	}
	return r.OutputTokensPerSec
}

// requestRate is the rate of requests; nil if it is not known, or if all failed: how soon requests fail
// is no speed.
func requestRate(r metadata.Results) *float64 {
	if r.SuccessCount == 0 {
		return nil
	}
	return r.ThroughputRequestsPerSec
}

// peakOf is the rate of the fullest interval; nil if the mean is above it. Such a run was over within
// an interval or two, whose rest had no work.
func peakOf(peak, mean *float64) *float64 {
	if peak == nil || mean != nil && *peak < *mean {
		return nil
	}
	return peak
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
