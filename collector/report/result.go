package report

import (
	"fmt"

	"github.com/promptmill/promptmill/collector/metadata"
)

// result has the rows of vllm bench serve, under its names.
func result(b *builder) Section {
	s := Section{ID: "result", Title: "Benchmark result", Columns: columns("")}
	r := b.run.Results
	s.add("Successful requests", number(r.SuccessCount))
	s.add("Failed requests", number(r.FailureCount))

	if c := b.run.Config.Concurrency; c != nil {
		s.add("Maximum request concurrency", number(*c))
	}

	s.add("Benchmark duration (s)", figure(&r.InferenceTimeSeconds, amount))
	s.known("Total input tokens", whole(r.PromptTokens), integer)

	if in, cached := r.PromptTokens, r.CachedPromptTokens; in != nil && cached != nil && *in > 0 {
		s.add("Input tokens from a prefix cache", Cell{
			Text:  count(*cached) + " (" + share(*cached, *in) + ")",
			Value: new(float64(*cached)),
		})
		s.note("From a prefix cache came at least these: not every model server tells.")
	}

	s.known("Total generated tokens", whole(r.CompletionTokens), integer)
	s.known("Request throughput (req/s)", r.ThroughputRequestsPerSec, amount)
	s.known("Peak request throughput (req/s)", r.PeakRequestsPerSec, amount)
	s.known("Input token throughput (tok/s)", r.InputTokensPerSec, amount)
	s.known("Output token throughput (tok/s)", r.OutputTokensPerSec, amount)
	s.known("Peak output token throughput (tok/s)", r.PeakOutputTokensPerSec, amount)
	s.known("Peak concurrent requests", whole(r.PeakConcurrentRequests), integer)
	s.known("Mean concurrent requests", r.MeanConcurrentRequests, amount)
	s.known("Total token throughput (tok/s)", r.ThroughputTokensPerSec, amount)

	if text := tokensUnknown(b); text != "" {
		s.note("%s", text)
	}

	return s
}

// perRequest is how the tokens are spread over the requests.
func perRequest(b *builder) Section {
	s := Section{ID: "tokens", Title: "Tokens of a request"}
	in, out := b.run.Results.PromptTokensPerRequest, b.run.Results.CompletionTokensPerRequest
	if in == nil && out == nil {
		s.Columns = columns("Mean")
		s.known("Input tokens", meanOf(b.run.Results.PromptTokens, b.run), amount)
		s.known("Generated tokens", meanOf(b.run.Results.CompletionTokens, b.run), amount)
		return s
	}

	s.Columns = columns("Mean", "Median", "P90", "P99", "Max")
	for _, row := range []struct {
		name string
		of   *metadata.Distribution
	}{{"Input tokens", in}, {"Generated tokens", out}} {
		if d := row.of; d != nil {
			s.add(row.name, figure(&d.Mean, amount), figure(&d.P50, integer), figure(&d.P90, integer),
				figure(&d.P99, integer), figure(&d.Max, integer))
		}
	}

	return s
}

// timing is where the time went.
func timing(b *builder) Section {
	s := Section{ID: "timing", Title: "Timing", Columns: columns("")}
	r := b.run.Results
	if r.TotalTimeSeconds > 0 {
		s.known("Wall time, from beginning to end", &r.TotalTimeSeconds, seconds)
	}

	s.known("Working", &r.InferenceTimeSeconds, seconds)
	s.known("Idle: paused, or no worker or model server", r.IdleTimeSeconds, seconds)

	if ours(b.run) || r.Interruptions > 0 {
		s.known("Lost to interruptions", r.LostTimeSeconds, seconds)
		s.add("Interruptions", number(r.Interruptions))
	}

	s.known("Model load time", r.ModelLoadTimeSeconds, seconds)

	return s
}

// latency has the rows of vllm bench serve for the time from a request to its answer.
func latency(b *builder) Section {
	s := Section{ID: "latency", Title: "End-to-end latency", Columns: columns("")}
	d := b.run.Results.LatencySeconds
	if d == nil {
		return s
	}

	for _, row := range []struct {
		name  string
		value float64
	}{{"Mean", d.Mean}, {"Median", d.P50}, {"P90", d.P90}, {"P99", d.P99}, {"Max", d.Max}} {
		s.add(row.name+" E2EL (ms)", Cell{Text: milliseconds(row.value), Value: new(row.value * 1000)})
	}

	return s
}

// energy is what the cards took, and what things cost.
func energy(b *builder) Section {
	s := Section{ID: "energy", Title: "Energy and cost", Columns: columns("")}
	r, p := b.run.Results, b.Prices
	s.known("Energy", r.EnergyJoules, func(j float64) string { return amount(j/joulesPerKWh) + " kWh" })
	s.known("Energy per 1,000 output tokens (J)", r.JoulesPer1000OutputTokens, amount)
	if p.KWh != nil {
		s.add(fmt.Sprintf("Energy at %s per kWh", money(*p.KWh)), figure(energyCost(r.EnergyJoules, *p.KWh), money))
	}

	if p.In != nil || p.Out != nil {
		s.add("The same tokens at an API", figure(tokenCost(r, p), money))
		s.note("API prices per million tokens: %s in, %s out.", price(p.In), price(p.Out))
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

// tokenCost is what the tokens would cost. A price that is not given counts nothing.
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

func price(p *float64) string {
	if p == nil {
		return "nothing"
	}
	return money(*p)
}

// memory is what the model servers have the cards' memory for.
func memory(b *builder) Section {
	s := Section{
		ID:      "memory",
		Title:   "Memory",
		Columns: columns("Weights", "KV cache", "CUDA graphs", "Most in use", "Of"),
	}
	for _, w := range b.run.Workers {
		m := w.MemoryBytes
		used, total := cards(w)
		if m.Weights == nil && m.KVCache == nil && m.Graphs == nil && used == nil {
			continue
		}

		s.add(w.Called(), figure(whole(m.Weights), size), figure(whole(m.KVCache), size), figure(whole(m.Graphs), size),
			figure(whole(used), size), figure(whole(total), size))
	}

	return s
}

// cards is the memory of a worker's cards: the most in use, and all of it. It is null
// unless it is known of each.
func cards(w metadata.Worker) (used, total *int64) {
	if len(w.GPUs) == 0 {
		return nil, nil
	}

	used, total = new(int64(0)), new(int64(0))
	for _, g := range w.GPUs {
		used, total = plus(used, g.MemoryUsedBytesMax), plus(total, g.MemoryBytes)
	}

	return used, total
}

// plus is null if either is.
func plus(a, b *int64) *int64 {
	if a == nil || b == nil {
		return nil
	}
	return new(*a + *b)
}
