package report

import (
	"fmt"

	"github.com/promptmill/promptmill/collector/metadata"
)

// summary is what one wants to know first.
func summary(b *builder) Section {
	s := Section{ID: "summary", Title: "Summary", Columns: columns("")}
	r := b.run.Results
	s.add("Success rate", successRate(b.run))
	s.add("Throughput", figure(r.ThroughputTokensPerSec, tokensPerSecond))
	s.add("Requests per second", figure(r.ThroughputRequestsPerSec, requestsPerSecond))
	s.add("Inference time", figure(&r.InferenceTimeSeconds, seconds))
	s.add("Model load time", figure(r.ModelLoadTimeSeconds, seconds))
	s.add("Model size", figure(whole(weights(b.run)), size))
	s.add("Memory", figure(whole(memoryUsed(b.run)), size))

	return s
}

func successRate(run *metadata.Run) Cell {
	rate := answered(run)
	if rate.Value != nil {
		rate.Text += fmt.Sprintf(" (%s of %s)", count(int64(run.Results.SuccessCount)), count(int64(requests(run))))
	}
	return rate
}

// answered is the part of the requests that were answered.
func answered(run *metadata.Run) Cell {
	return part(int64(run.Results.SuccessCount), int64(requests(run)))
}

// weights is what the model takes of the cards' memory, at the worker that has most.
func weights(run *metadata.Run) (most *int64) {
	for _, w := range run.Workers {
		most = metadata.Most(most, w.MemoryBytes.Weights)
	}
	return most
}

// memoryUsed is the most memory that was in use on all cards together.
func memoryUsed(run *metadata.Run) (most *int64) {
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

// comparison holds the run against the baseline.
func comparison(b *builder) Section {
	if b.Baseline == nil {
		return Section{}
	}

	s := Section{
		ID:      "comparison",
		Title:   "Comparison with " + b.baseline(),
		Columns: columns("This run", b.baseline(), "Difference"),
	}

	now, then := b.run.Results, b.Baseline.Results
	s.add("Success rate", answered(b.run), answered(b.Baseline), Cell{})
	row := func(name string, now, then *float64, format func(float64) string) {
		if now != nil && then != nil {
			s.add(name, figure(now, format), figure(then, format), figure(difference(now, then), change))
		}
	}

	n, m := requests(b.run), requests(b.Baseline)
	row("Throughput", now.ThroughputTokensPerSec, then.ThroughputTokensPerSec, tokensPerSecond)
	row("Output token throughput", now.OutputTokensPerSec, then.OutputTokensPerSec, tokensPerSecond)
	row("Requests per second", now.ThroughputRequestsPerSec, then.ThroughputRequestsPerSec, requestsPerSecond)
	if n == m {
		row("Inference time", &now.InferenceTimeSeconds, &then.InferenceTimeSeconds, seconds)
	} else {
		s.add("Inference time", figure(&now.InferenceTimeSeconds, seconds),
			figure(&then.InferenceTimeSeconds, seconds), Cell{})
	}

	row("Model load time", now.ModelLoadTimeSeconds, then.ModelLoadTimeSeconds, shortly)
	row("Mean generated tokens", meanOf(now.CompletionTokens, b.run), meanOf(then.CompletionTokens, b.Baseline), amount)
	row("Median E2EL (ms)", median(now.LatencySeconds), median(then.LatencySeconds), milliseconds)
	row("P99 E2EL (ms)", p99(now.LatencySeconds), p99(then.LatencySeconds), milliseconds)
	row("Energy per 1,000 output tokens (J)", now.JoulesPer1000OutputTokens, then.JoulesPer1000OutputTokens, amount)
	row("Model size", whole(weights(b.run)), whole(weights(b.Baseline)), size)
	row("Memory", whole(memoryUsed(b.run)), whole(memoryUsed(b.Baseline)), size)

	switch known, same := sameInput(b.run, b.Baseline); {
	case !known:
		s.note("Whether both ran on the same input is not known.")
	case !same:
		s.note("The baseline ran on another input.")
	}

	if low, high, ok := speedInterval(b.run, b.Baseline); ok {
		s.note("Were both run again, the difference in requests per second would be between %s and %s nine times in ten.",
			change(low), change(high))
	}

	if n != m {
		s.note("The baseline had %s, this run %s: times cannot be compared, rates can.",
			plural(int64(m), "request"), count(int64(n)))
	}

	return s
}

// difference is how much more now is than then, as a part of then.
func difference(now, then *float64) *float64 {
	if now == nil || then == nil || *then <= 0 {
		return nil
	}
	return new(*now / *then - 1)
}

// sameInput reports whether two runs had the same input, if that is known.
func sameInput(a, b *metadata.Run) (known, same bool) {
	if a.Test.InputSHA256 == "" || b.Test.InputSHA256 == "" {
		return false, false
	}
	return true, a.Test.InputSHA256 == b.Test.InputSHA256
}

// meanOf is the mean over the answered requests, if the total is of all of them.
func meanOf(total *int64, run *metadata.Run) *float64 {
	if total == nil || partlyCounted(run) {
		return nil
	}
	return metadata.Per(float64(*total), float64(run.Results.SuccessCount))
}

func median(d *metadata.Distribution) *float64 {
	if d == nil {
		return nil
	}
	return &d.P50
}

func p99(d *metadata.Distribution) *float64 {
	if d == nil {
		return nil
	}
	return &d.P99
}
