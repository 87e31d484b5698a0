package report

import (
	"fmt"

	"github.com/promptmill/promptmill/collector/internal/figures"
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

		s.AddRow(name, figure, detail)
		if len(s.Rows) == mostTiles {
			break
		}
	}

	return s
}

func answeredTile(b *builder) (name string, figure, detail Cell) {
	text := fmt.Sprintf("%s of %s", figures.Count(int64(b.run.Results.SuccessCount)),
		figures.Count(int64(countRequests(b.run))))
	if n := b.run.Results.NotSentCount; n > 0 {
		text += fmt.Sprintf("; %s not sent", figures.Count(int64(n)))
	}

	return "Answered", answeredCell(b.run), TextCell(text)
}

func requestRateTile(b *builder) (name string, figure, detail Cell) {
	r := b.run.Results
	if peak := peakOf(r.PeakRequestsPerSec, r.ThroughputRequestsPerSec); peak != nil {
		detail = TextCell("peak " + figures.Amount(*peak))
	}

	return "Requests/s", FigureCell(requestRate(r), figures.Amount), detail
}

// outputRateTile is the rate of output tokens, or, where answers have none, that of input tokens.
func outputRateTile(b *builder) (name string, figure, detail Cell) {
	r := b.run.Results
	if outputRate(r) == nil {
		return "Input tokens/s", FigureCell(r.InputTokensPerSec, figures.Amount), Cell{}
	}

	if r.InputTokensPerSec != nil {
		detail = TextCell(figures.Amount(*r.InputTokensPerSec) + " input tokens/s")
	}

	return "Output tokens/s", FigureCell(r.OutputTokensPerSec, figures.Amount), detail
}

func latencyTile(b *builder) (name string, figure, detail Cell) {
	d := b.run.Results.LatencySeconds
	if d == nil {
		return "", unknown, Cell{}
	}
	return "Median latency", FigureCell(&d.P50, figures.Short), TextCell("p99 " + figures.Short(d.P99) + ", end to end")
}

func workTile(b *builder) (name string, figure, detail Cell) {
	r := b.run.Results
	if r.InferenceTimeSeconds <= 0 {
		return "", unknown, Cell{}
	}

	if r.TotalTimeSeconds > 0 {
		detail = TextCell("of " + figures.Duration(r.TotalTimeSeconds) + " wall time")
	}

	return "Time worked", FigureCell(&r.InferenceTimeSeconds, figures.Duration), detail
}

// costTile is the cost of the energy, beside that of the same tokens at an API, or else that.
func costTile(b *builder) (name string, figure, detail Cell) {
	p := b.Prices
	var energy, api *float64
	if p.KWh != nil {
		energy = energyCost(b.run.Results.EnergyJoules, *p.KWh)
	}
	if p.In != nil || p.Out != nil {
		api = p.OfTokens(b.run.Results)
	}

	switch {
	case energy != nil && api != nil:
		return "Energy cost", p.moneyCell(energy), TextCell(p.Format(*api) + " at an API")
	case energy != nil:
		return "Energy cost", p.moneyCell(energy), TextCell(figures.Energy(*b.run.Results.EnergyJoules))
	case api != nil:
		return "Cost at an API", p.moneyCell(api), TextCell("for the same tokens")
	}

	return "", unknown, Cell{}
}

func energyTile(b *builder) (name string, figure, detail Cell) {
	r := b.run.Results
	if b.Prices.KWh != nil { // the cost stands there already
		return "", unknown, Cell{}
	}
	if r.JoulesPer1000OutputTokens != nil {
		detail = TextCell(figures.Amount(*r.JoulesPer1000OutputTokens) + " J per 1,000 output tokens")
	}
	return "Energy", FigureCell(r.EnergyJoules, figures.Energy), detail
}

func wasteTile(b *builder) (name string, figure, detail Cell) {
	w := b.run.Results.Wasted
	switch {
	case w == nil:
	case valueOrZero(w.TokenShare) > 0:
		return "Wasted", lostTokensCell(b.run.Results), TextCell("of the output tokens")
	case valueOrZero(w.TimeShare) > 0:
		return "Wasted", percentCell(*w.TimeShare), TextCell("of the time of all attempts")
	}

	return "", unknown, Cell{}
}

func peakTile(b *builder) (name string, figure, detail Cell) {
	r := b.run.Results
	if r.MeanConcurrentRequests != nil {
		detail = TextCell("mean " + figures.Amount(*r.MeanConcurrentRequests))
	}
	return "Peak in flight", FigureCell(toFloat(r.PeakConcurrentRequests), figures.Integer), detail
}

// answeredCell is the part of the requests that were answered, without those that were not sent.
func answeredCell(run *metadata.Run) Cell {
	return shareCell(int64(run.Results.SuccessCount), int64(countRequests(run)))
}

// ModelSize returns the memory of the model's weights, at the worker with the most.
func ModelSize(run *metadata.Run) (most *int64) {
	for _, w := range run.Workers {
		most = metadata.Most(most, w.MemoryBytes.Weights)
	}
	return most
}

// PeakMemory is the most memory that was in use on all cards together.
func PeakMemory(run *metadata.Run) (most *int64) {
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
	s.AddRow("Answered", answeredCell(b.run), answeredCell(b.Baseline), Cell{})
	row := func(name string, now, then *float64, format func(float64) string) {
		if now != nil && then != nil {
			s.AddRow(name, FigureCell(now, format), FigureCell(then, format),
				FigureCell(relativeChange(now, then), figures.Change))
		}
	}

	n, m := countRequests(b.run), countRequests(b.Baseline)
	row("Output tokens/s", outputRate(now), outputRate(then), figures.Amount)
	row("Requests/s", requestRate(now), requestRate(then), figures.Amount)
	row("Input tokens/s", now.InputTokensPerSec, then.InputTokensPerSec, figures.Amount)
	row("Total tokens/s", now.ThroughputTokensPerSec, then.ThroughputTokensPerSec, figures.Amount)
	if n == m {
		row("Time worked", &now.InferenceTimeSeconds, &then.InferenceTimeSeconds, figures.Seconds)
	} else {
		s.AddRow("Time worked", FigureCell(&now.InferenceTimeSeconds, figures.Seconds),
			FigureCell(&then.InferenceTimeSeconds, figures.Seconds), Cell{})
	}

	row("Model load time", now.ModelLoadTimeSeconds, then.ModelLoadTimeSeconds, figures.Short)
	row("Mean output tokens per request", meanPerRequest(now.CompletionTokens, b.run),
		meanPerRequest(then.CompletionTokens, b.Baseline), figures.Amount)
	row("Median latency, end to end (ms)", medianOf(now.LatencySeconds), medianOf(then.LatencySeconds), figures.Milliseconds)
	row("p99 latency, end to end (ms)", p99Of(now.LatencySeconds), p99Of(then.LatencySeconds), figures.Milliseconds)
	row("Energy per 1,000 output tokens (J)",
		now.JoulesPer1000OutputTokens, then.JoulesPer1000OutputTokens, figures.Amount)
	row("Model size", toFloat(ModelSize(b.run)), toFloat(ModelSize(b.Baseline)), figures.Size)
	row("GPU memory", toFloat(PeakMemory(b.run)), toFloat(PeakMemory(b.Baseline)), figures.Size)

	switch known, same := compareInputs(b.run, b.Baseline); {
	case !known:
		s.AddNote("It is not known whether both ran on the same input.")
	case !same:
		s.AddNote("The baseline ran on another input, so the two cannot be compared request for request.")
	}

	if low, high, ok := speedInterval(b.run, b.Baseline); ok {
		s.AddNote("If both ran again, the difference in requests/s would lie between %s and %s (90%% interval).",
			figures.Change(low), figures.Change(high))
	}

	if n != m {
		s.AddNote("The baseline had %s and this run %s: compare rates, not times.",
			figures.Plural(int64(m), "request"), figures.Count(int64(n)))
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
