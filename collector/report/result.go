package report

import (
	"fmt"
	"strings"

	"github.com/promptmill/promptmill/collector/metadata"
)

// buildResult has the rows of vllm bench serve, under its names.
func buildResult(b *builder) Section {
	s := Section{ID: "result", Title: "Benchmark figures", Form: FormPairs, Columns: newColumns("")}
	r := b.run.Results
	s.addRow("Successful requests", countCell(r.SuccessCount))
	s.addRow("Failed requests", countCell(r.FailureCount))

	if c := b.run.Config.Concurrency; c != nil {
		s.addRow("Maximum request concurrency", countCell(*c))
	}

	s.addRow("Benchmark duration (s)", figureCell(&r.InferenceTimeSeconds, formatAmount))
	s.addKnownRow("Total input tokens", toFloat(r.PromptTokens), formatInteger)

	if in, cached := r.PromptTokens, r.CachedPromptTokens; in != nil && cached != nil && *in > 0 {
		s.addRow("Input tokens from a prefix cache", Cell{
			Text:  formatCount(*cached) + " (" + formatShare(*cached, *in) + ")",
			Value: new(float64(*cached)),
		})
		s.addNote("The prefix cache served at least these tokens: not every model server reports them.")
	}

	s.addKnownRow("Total generated tokens", toFloat(r.CompletionTokens), formatInteger)
	s.addKnownRow("Request throughput (req/s)", r.ThroughputRequestsPerSec, formatAmount)
	s.addKnownRow("Peak request throughput (req/s)",
		peakOf(r.PeakRequestsPerSec, r.ThroughputRequestsPerSec), formatAmount)
	s.addKnownRow("Input token throughput (tok/s)", r.InputTokensPerSec, formatAmount)
	s.addKnownRow("Output token throughput (tok/s)", r.OutputTokensPerSec, formatAmount)
	s.addKnownRow("Peak output token throughput (tok/s)",
		peakOf(r.PeakOutputTokensPerSec, r.OutputTokensPerSec), formatAmount)
	s.addKnownRow("Peak concurrent requests", toFloat(r.PeakConcurrentRequests), formatInteger)
	s.addKnownRow("Mean concurrent requests", r.MeanConcurrentRequests, formatAmount)
	s.addKnownRow("Total token throughput (tok/s)", r.ThroughputTokensPerSec, formatAmount)

	if text := concludeTokensUnknown(b); text != "" {
		s.addNote("%s", text)
	}

	return s
}

// buildPerRequest shows the distribution of tokens over the requests.
func buildPerRequest(b *builder) Section {
	s := Section{ID: "tokens", Title: "Tokens per request"}
	in, out := b.run.Results.PromptTokensPerRequest, b.run.Results.CompletionTokensPerRequest
	if in == nil && out == nil {
		s.Columns = newColumns("Mean")
		s.addKnownRow("Input tokens", meanPerRequest(b.run.Results.PromptTokens, b.run), formatAmount)
		s.addKnownRow("Output tokens", meanPerRequest(b.run.Results.CompletionTokens, b.run), formatAmount)
		return s
	}

	s.Columns = newColumns("Mean", "Median", "p90", "p99", "Max")
	s.addDistribution("Input tokens", in, formatInteger)
	s.addDistribution("Output tokens", out, formatInteger)

	return s
}

// addDistribution adds a row with a distribution, if it is known.
func (s *Section) addDistribution(name string, d *metadata.Distribution, format func(float64) string) {
	if d == nil {
		return
	}
	s.addRow(name, figureCell(&d.Mean, formatAmount), figureCell(&d.P50, format), figureCell(&d.P90, format),
		figureCell(&d.P99, format), figureCell(&d.Max, format))
}

// buildTiming shows how the time was spent.
func buildTiming(b *builder) Section {
	s := Section{ID: "timing", Title: "Time", Form: FormPairs, Columns: newColumns("")}
	r := b.run.Results
	if r.TotalTimeSeconds > 0 {
		s.addKnownRow("Wall time", &r.TotalTimeSeconds, formatSeconds)
	}

	s.addKnownRow("Time worked", &r.InferenceTimeSeconds, formatSeconds)
	s.addKnownRow("Idle: paused, or no worker or model server", r.IdleTimeSeconds, formatSeconds)

	if isOurs(b.run) || r.Interruptions > 0 {
		s.addKnownRow("Lost to interruptions", r.LostTimeSeconds, formatSeconds)
		s.addRow("Interruptions", countCell(r.Interruptions))
	}

	s.addKnownRow("Model load time", r.ModelLoadTimeSeconds, formatSeconds)

	return s
}

// buildLatency shows how long requests took, as the workers saw it and as model servers did.
func buildLatency(b *builder) Section {
	s := Section{ID: "latency", Title: "Latency", Columns: newColumns("Mean", "Median", "p90", "p99", "Max")}
	r := b.run.Results
	inMilliseconds := func(d *metadata.Distribution) *metadata.Distribution {
		if d == nil {
			return nil
		}

		return &metadata.Distribution{
			Mean: d.Mean * 1000,
			P50:  d.P50 * 1000,
			P90:  d.P90 * 1000,
			P99:  d.P99 * 1000,
			Max:  d.Max * 1000,
		}
	}

	s.addDistribution("End to end (ms)", inMilliseconds(r.LatencySeconds), formatAmount)
	s.addDistribution("Last attempt (ms)", inMilliseconds(r.LastAttemptSeconds), formatAmount)

	if r.LastAttemptSeconds != nil {
		s.addNote("End to end is from the start of the first attempt to the end of the last one.")
	}

	for _, row := range []struct {
		name string
		of   *metadata.ServerDistribution
	}{
		{"Time to first token (ms)", r.TimeToFirstTokenSeconds},
		{"Time per output token (ms)", r.TimePerOutputTokenSeconds},
	} {
		if d := row.of; d != nil {
			s.addRow(row.name, figureCell(new(d.Mean*1000), formatAmount), figureCell(new(d.P50*1000), formatAmount),
				figureCell(new(d.P90*1000), formatAmount), figureCell(new(d.P99*1000), formatAmount), unknown)
			s.addNote("%s is what the model servers measured, over all that they ran at the time: %s.",
				strings.TrimSuffix(row.name, " (ms)"), d.Source)
		}
	}

	return s
}

// buildCosts shows the energy of the cards, and what it and the same tokens at an API cost.
func buildCosts(b *builder) Section {
	s := Section{ID: "cost", Title: "Energy and cost", Form: FormPairs, Columns: newColumns("")}
	r, p := b.run.Results, b.Prices
	s.addKnownRow("Energy", r.EnergyJoules, formatEnergy)
	s.addKnownRow("Energy per 1,000 output tokens (J)", r.JoulesPer1000OutputTokens, formatAmount)
	if p.KWh != nil {
		s.addRow(fmt.Sprintf("Energy at %s per kWh", p.format(*p.KWh)), p.moneyCell(energyCost(r.EnergyJoules, *p.KWh)))
	}

	if p.In != nil || p.Out != nil {
		s.addRow("The same tokens at an API", p.moneyCell(tokenCost(r, p)))
		s.addNote("API prices per million tokens: %s for input, %s for output.", p.formatPrice(p.In), p.formatPrice(p.Out))
	}

	if note := p.unitNote(); note != "" && len(s.Rows) > 0 {
		s.addNote("%s", note)
	}

	return s
}

const joulesPerKWh = 3.6e6

func energyCost(joules *float64, perKWh float64) *float64 {
	if joules == nil {
		return nil
	}
	return new(*joules / joulesPerKWh * perKWh)
}

// tokenCost returns the price of the tokens. An unknown price counts as 0.
func tokenCost(r metadata.Results, p Prices) *float64 {
	if r.PromptTokens == nil || r.CompletionTokens == nil {
		return nil
	}

	var cost float64
	if p.In != nil {
		cost += float64(*r.PromptTokens) * *p.In / 1e6
	}
	if p.Out != nil {
		cost += float64(*r.CompletionTokens) * *p.Out / 1e6
	}

	return &cost
}

// formatPrice writes a price that may be unknown.
func (p Prices) formatPrice(v *float64) string {
	if v == nil {
		return "nothing"
	}
	return p.format(*v)
}

// buildMemory shows how the model servers use the cards' memory.
func buildMemory(b *builder) Section {
	s := Section{
		ID:      "memory",
		Title:   "GPU memory",
		Columns: newColumns("Weights", "KV cache", "CUDA graphs", "Peak use", "Of"),
	}
	for _, w := range b.run.Workers {
		m := w.MemoryBytes
		used, total := sumCardMemory(w)
		if m.Weights == nil && m.KVCache == nil && m.Graphs == nil && used == nil {
			continue
		}

		s.addRow(w.DisplayName(), figureCell(toFloat(m.Weights), formatSize),
			figureCell(toFloat(m.KVCache), formatSize), figureCell(toFloat(m.Graphs), formatSize),
			figureCell(toFloat(used), formatSize), figureCell(toFloat(total), formatSize))
	}

	return s
}

// sumCardMemory is the memory of a worker's cards: the most in use, and all of it. It is null
// unless it is known of each.
func sumCardMemory(w metadata.Worker) (used, total *int64) {
	if len(w.GPUs) == 0 {
		return nil, nil
	}

	used, total = new(int64(0)), new(int64(0))
	for _, g := range w.GPUs {
		used, total = addKnown(used, g.MemoryUsedBytesMax), addKnown(total, g.MemoryBytes)
	}

	return used, total
}

// addKnown is null if either is.
func addKnown(a, b *int64) *int64 {
	if a == nil || b == nil {
		return nil
	}
	return new(*a + *b)
}
