package report

import (
	"fmt"

	"github.com/promptmill/promptmill/collector/metadata"
)

// buildResult has the rows of vllm bench serve, under its names.
func buildResult(b *builder) Section {
	s := Section{ID: "result", Title: "Benchmark result", Columns: newColumns("")}
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
		s.addNote("At least these came from a prefix cache: not every model server reports them.")
	}

	s.addKnownRow("Total generated tokens", toFloat(r.CompletionTokens), formatInteger)
	s.addKnownRow("Request throughput (req/s)", r.ThroughputRequestsPerSec, formatAmount)
	s.addKnownRow("Peak request throughput (req/s)", r.PeakRequestsPerSec, formatAmount)
	s.addKnownRow("Input token throughput (tok/s)", r.InputTokensPerSec, formatAmount)
	s.addKnownRow("Output token throughput (tok/s)", r.OutputTokensPerSec, formatAmount)
	s.addKnownRow("Peak output token throughput (tok/s)", r.PeakOutputTokensPerSec, formatAmount)
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
	s := Section{ID: "tokens", Title: "Tokens of a request"}
	in, out := b.run.Results.PromptTokensPerRequest, b.run.Results.CompletionTokensPerRequest
	if in == nil && out == nil {
		s.Columns = newColumns("Mean")
		s.addKnownRow("Input tokens", meanPerRequest(b.run.Results.PromptTokens, b.run), formatAmount)
		s.addKnownRow("Generated tokens", meanPerRequest(b.run.Results.CompletionTokens, b.run), formatAmount)
		return s
	}

	s.Columns = newColumns("Mean", "Median", "P90", "P99", "Max")
	for _, row := range []struct {
		name string
		of   *metadata.Distribution
	}{{"Input tokens", in}, {"Generated tokens", out}} {
		if d := row.of; d != nil {
			s.addRow(row.name, figureCell(&d.Mean, formatAmount), figureCell(&d.P50, formatInteger),
				figureCell(&d.P90, formatInteger),
				figureCell(&d.P99, formatInteger), figureCell(&d.Max, formatInteger))
		}
	}

	return s
}

// buildTiming shows how the time was spent.
func buildTiming(b *builder) Section {
	s := Section{ID: "timing", Title: "Timing", Columns: newColumns("")}
	r := b.run.Results
	if r.TotalTimeSeconds > 0 {
		s.addKnownRow("Wall time, from beginning to end", &r.TotalTimeSeconds, formatSeconds)
	}

	s.addKnownRow("Working", &r.InferenceTimeSeconds, formatSeconds)
	s.addKnownRow("Idle: paused, or no worker or model server", r.IdleTimeSeconds, formatSeconds)

	if isOurs(b.run) || r.Interruptions > 0 {
		s.addKnownRow("Lost to interruptions", r.LostTimeSeconds, formatSeconds)
		s.addRow("Interruptions", countCell(r.Interruptions))
	}

	s.addKnownRow("Model load time", r.ModelLoadTimeSeconds, formatSeconds)

	return s
}

// buildLatency has the rows of vllm bench serve for the time from a request to its answer.
func buildLatency(b *builder) Section {
	s := Section{ID: "latency", Title: "End-to-end latency", Columns: newColumns("")}
	d := b.run.Results.LatencySeconds
	if d == nil {
		return s
	}

	for _, row := range []struct {
		name  string
		value float64
	}{{"Mean", d.Mean}, {"Median", d.P50}, {"P90", d.P90}, {"P99", d.P99}, {"Max", d.Max}} {
		s.addRow(row.name+" E2EL (ms)", Cell{Text: formatMilliseconds(row.value), Value: new(row.value * 1000)})
	}

	return s
}

// buildEnergy shows the energy of the cards, and the costs.
func buildEnergy(b *builder) Section {
	s := Section{ID: "energy", Title: "Energy and cost", Columns: newColumns("")}
	r, p := b.run.Results, b.Prices
	s.addKnownRow("Energy", r.EnergyJoules, func(j float64) string { return formatAmount(j/joulesPerKWh) + " kWh" })
	s.addKnownRow("Energy per 1,000 output tokens (J)", r.JoulesPer1000OutputTokens, formatAmount)
	if p.KWh != nil {
		s.addRow(fmt.Sprintf("Energy at %s per kWh", formatMoney(*p.KWh)),
			figureCell(energyCost(r.EnergyJoules, *p.KWh), formatMoney))
	}

	if p.In != nil || p.Out != nil {
		s.addRow("The same tokens at an API", figureCell(tokenCost(r, p), formatMoney))
		s.addNote("API prices per million tokens: %s in, %s out.", formatPrice(p.In), formatPrice(p.Out))
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

func formatPrice(p *float64) string {
	if p == nil {
		return "nothing"
	}
	return formatMoney(*p)
}

// buildMemory shows how the model servers use the cards' memory.
func buildMemory(b *builder) Section {
	s := Section{
		ID:      "memory",
		Title:   "Memory",
		Columns: newColumns("Weights", "KV cache", "CUDA graphs", "Most in use", "Of"),
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
