package estimate

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/metadata"
)

// Not each interval has a reading of the requests in flight. One without is no gap; a long
// time without readings and results is one.
func TestGapsAndWhatIsNotSeen(t *testing.T) {
	t.Parallel()

	seen := func(n int64) *int64 { return &n }
	series := &metadata.Series{IntervalSeconds: 4}
	for _, p := range []metadata.Point{
		{Requests: 2}, {InFlight: seen(8)}, {}, {}, {Requests: 1}, // 8 s without anything: slow requests
		{}, {InFlight: seen(0)}, {}, // 12 s
		{InFlight: seen(5)}, {},
	} {
		series.Requests, series.Failed = append(series.Requests, p.Requests), append(series.Failed, 0)
		series.PromptTokens, series.CompletionTokens = append(series.PromptTokens,
			0), append(series.CompletionTokens, 0)
		series.InFlight, series.MemoryUsedBytes = append(series.InFlight,
			p.InFlight), append(series.MemoryUsedBytes, nil)
	}

	if d := cmp.Diff([]bool{5: true, 6: true, 7: true, 9: false}, series.Gaps()); d != "" {
		t.Error(d)
	}

	var inFlight []float64
	for _, p := range FromMetadata(&metadata.Run{Series: series}).Points {
		inFlight = append(inFlight, p.InFlight)
	}

	if d := cmp.Diff([]float64{1, 8, 8, 8, 8, 0, 0, 0, 5, 5}, inFlight); d != "" {
		t.Error(d)
	}

	for i := range series.InFlight {
		series.InFlight[i] = nil
	}

	if d := cmp.Diff(make([]bool, 10), series.Gaps()); d != "" {
		t.Errorf("without a reading: %s", d)
	}
}

// The intervals of a series begin at whole seconds, and runs do not.
func TestTheFirstAndTheLastIntervalAreCut(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		last int64 // requests in the last interval
		want []float64
	}{
		{"both", 1, []float64{0.4, 1, 1, 0.1}},
		{"the last one not below the fastest rate", 3, []float64{0.4, 1, 1, 0.3}},
	} {
		run := &metadata.Run{
			Timestamp: time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC),
			Results:   metadata.Results{InferenceTimeSeconds: 2, IdleTimeSeconds: new(0.5)},
			Series:    &metadata.Series{},
		}
		for s, requests := range []int64{4, 4, 4, tt.last} {
			run.Series.Add(run.Timestamp.Add(time.Duration(s)*800*time.Millisecond), metadata.Point{Requests: requests})
		}

		var got []float64
		for _, p := range FromMetadata(run).Points {
			got = append(got, math.Round(1000*p.Seconds)/1000)
		}

		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: intervals of %v s, want %v", tt.name, got, tt.want)
		}
	}
}
