package report

import (
	"fmt"
	"strings"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
)

// buildResult has the rows of vllm bench serve, under its names.
func buildResult(b *builder) Section {
	s := Section{ID: "result", Title: "Benchmark figures", Form: FormPairs, Columns: newColumns("")}
	r := b.run.Results
	s.AddRow("Successful requests", CountCell(r.SuccessCount))
	s.AddRow("Failed requests", CountCell(r.CountFailed()))
	if r.NotSentCount > 0 {
		s.AddRow("Requests that were not sent", CountCell(r.NotSentCount))
	}

	if c := b.run.Config.Concurrency; c != nil {
		s.AddRow("Maximum request concurrency", CountCell(*c))
	}

	s.AddRow("Benchmark duration (s)", FigureCell(&r.InferenceTimeSeconds, figures.Amount))
	s.addKnownRow("Total input tokens", toFloat(r.PromptTokens), figures.Integer)

	if in, cached := r.PromptTokens, r.CachedPromptTokens; in != nil && cached != nil && *in > 0 {
		s.AddRow("Input tokens from a prefix cache", Cell{
			Text:  figures.Count(*cached) + " (" + figures.Share(*cached, *in) + ")",
			Value: new(float64(*cached)),
		})
		s.AddNote("The prefix cache served at least these tokens: not every model server reports them.")
	}

	s.addKnownRow("Total generated tokens", toFloat(r.CompletionTokens), figures.Integer)
	s.addKnownRow("Request throughput (req/s)", r.ThroughputRequestsPerSec, figures.Amount)
	s.addKnownRow("Peak request throughput (req/s)",
		peakOf(r.PeakRequestsPerSec, r.ThroughputRequestsPerSec), figures.Amount)
	s.addKnownRow("Input token throughput (tok/s)", r.InputTokensPerSec, figures.Amount)
	s.addKnownRow("Output token throughput (tok/s)", r.OutputTokensPerSec, figures.Amount)
	s.addKnownRow("Peak output token throughput (tok/s)",
		peakOf(r.PeakOutputTokensPerSec, r.OutputTokensPerSec), figures.Amount)
	s.addKnownRow("Peak concurrent requests", toFloat(r.PeakConcurrentRequests), figures.Integer)
	s.addKnownRow("Mean concurrent requests", r.MeanConcurrentRequests, figures.Amount)
	s.addKnownRow("Total token throughput (tok/s)", r.ThroughputTokensPerSec, figures.Amount)

	if text := concludeTokensUnknown(b); text != "" {
		s.AddNote("%s", text)
	}

	return s
}

// buildPerRequest shows the distribution of tokens over the requests.
func buildPerRequest(b *builder) Section {
	s := Section{ID: "tokens", Title: "Tokens per request"}
	in, out := b.run.Results.PromptTokensPerRequest, b.run.Results.CompletionTokensPerRequest
	if in == nil && out == nil {
		s.Columns = newColumns("Mean")
		s.addKnownRow("Input tokens", meanPerRequest(b.run.Results.PromptTokens, b.run), figures.Amount)
		s.addKnownRow("Output tokens", meanPerRequest(b.run.Results.CompletionTokens, b.run), figures.Amount)
		return s
	}

	s.Columns = newColumns("Mean", "Median", "p90", "p99", "Max")
	s.addDistribution("Input tokens", in, figures.Integer)
	s.addDistribution("Output tokens", out, figures.Integer)

	return s
}

// addDistribution adds a row with a distribution, if it is known.
func (s *Section) addDistribution(name string, d *metadata.Distribution, format func(float64) string) {
	if d == nil {
		return
	}
	s.AddRow(name, FigureCell(&d.Mean, figures.Amount), FigureCell(&d.P50, format), FigureCell(&d.P90, format),
		FigureCell(&d.P99, format), FigureCell(&d.Max, format))
}

// buildTiming shows how the time was spent.
func buildTiming(b *builder) Section {
	s := Section{ID: "timing", Title: "Time", Form: FormPairs, Columns: newColumns("")}
	r := b.run.Results
	if r.TotalTimeSeconds > 0 {
		s.addKnownRow("Wall time", &r.TotalTimeSeconds, figures.Seconds)
	}

	s.addKnownRow("Time worked", &r.InferenceTimeSeconds, figures.Seconds)
	s.addKnownRow("Idle: paused, or no worker or model server", r.IdleTimeSeconds, figures.Seconds)

	if isOurs(b.run) || r.Interruptions > 0 {
		s.addKnownRow("Lost to interruptions", r.LostTimeSeconds, figures.Seconds)
		s.AddRow("Interruptions", CountCell(r.Interruptions))
	}

	s.addKnownRow("Model load time", r.ModelLoadTimeSeconds, figures.Seconds)
	if phases := listLoadPhases(r); phases != "" {
		s.AddRow("Model load, by phase", TextCell(phases))
	}

	return s
}

// listLoadPhases lists the parts of the load time that are known, and the rest of it; empty: none is.
func listLoadPhases(r metadata.Results) string {
	load := r.ModelLoad
	if load == nil {
		return ""
	}

	var phases []string
	rest := metadata.OrZero(r.ModelLoadTimeSeconds)
	for _, phase := range []struct {
		name string
		took *float64
	}{
		{"download", load.DownloadSeconds},
		{"weights", load.WeightsSeconds},
		{"compile", load.CompileSeconds},
		{"graphs", load.GraphsSeconds},
		{"warm-up", load.WarmUpSeconds},
	} {
		if phase.took == nil {
			continue
		}

		rest -= *phase.took
		phases = append(phases, phase.name+" "+figures.Short(*phase.took))
	}

	if len(phases) > 0 && rest >= 0.1 {
		phases = append(phases, "other "+figures.Short(rest))
	}

	return strings.Join(phases, ", ")
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

	s.addDistribution("End to end (ms)", inMilliseconds(r.LatencySeconds), figures.Amount)
	s.addDistribution("Last attempt (ms)", inMilliseconds(r.LastAttemptSeconds), figures.Amount)

	if r.LastAttemptSeconds != nil {
		s.AddNote("End to end is from the start of the first attempt to the end of the last one.")
	}

	for _, row := range []struct {
		name string
		of   *metadata.ServerDistribution
	}{
		{"Time to first token (ms)", r.TimeToFirstTokenSeconds},
		{"Time per output token (ms)", r.TimePerOutputTokenSeconds},
	} {
		if d := row.of; d != nil {
			cells := []Cell{}
			for _, seconds := range []float64{d.Mean, d.P50, d.P90, d.P99} {
				cells = append(cells, FigureCell(new(seconds*1000), figures.Amount))
			}

			s.AddRow(row.name, append(cells, unknown)...)
			s.AddNote("%s is what the model servers measured, over all that they ran at the time: %s.",
				strings.TrimSuffix(row.name, " (ms)"), d.Source)
		}
	}

	return s
}

// buildCosts shows the energy of the cards, and what it and the same tokens at an API cost.
func buildCosts(b *builder) Section {
	s := Section{ID: "cost", Title: "Energy and cost", Form: FormPairs, Columns: newColumns("")}
	r, p := b.run.Results, b.Prices
	s.addKnownRow("Energy", r.EnergyJoules, figures.Energy)
	s.addKnownRow("Energy per 1,000 output tokens (J)", r.JoulesPer1000OutputTokens, figures.Amount)
	if p.KWh != nil {
		s.AddRow(fmt.Sprintf("Energy at %s per kWh", p.Format(*p.KWh)), p.moneyCell(energyCost(r.EnergyJoules, *p.KWh)))
	}

	if p.In != nil || p.Out != nil {
		s.AddRow("The same tokens at an API", p.moneyCell(p.OfTokens(r)))
		s.AddNote("API prices per million tokens: %s for input, %s for output.", p.formatPrice(p.In), p.formatPrice(p.Out))
	}

	if note := p.unitNote(); note != "" && len(s.Rows) > 0 {
		s.AddNote("%s", note)
	}

	return s
}

func energyCost(joules *float64, perKWh float64) *float64 {
	if joules == nil {
		return nil
	}
	return new(*joules / figures.JoulesPerKWh * perKWh)
}

// OfTokens returns the price of the tokens of a run at an API; nil: their number is not known. An unknown price counts
// as 0.
func (p Prices) OfTokens(r metadata.Results) *float64 {
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
	return p.Format(*v)
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

		s.AddRow(w.DisplayName(), FigureCell(toFloat(m.Weights), figures.Size),
			FigureCell(toFloat(m.KVCache), figures.Size), FigureCell(toFloat(m.Graphs), figures.Size),
			FigureCell(toFloat(used), figures.Size), FigureCell(toFloat(total), figures.Size))
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
