package page

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/metadata"
)

// A long series keeps its sums and its peaks.
func TestThinSeries(t *testing.T) {
	t.Parallel()

	s := &metadata.Series{
		Start:             time.Unix(0, 0).UTC(),
		IntervalSeconds:   2,
		Requests:          []int64{1, 5, 2, 0, 7},
		Failed:            []int64{0, 1, 0, 0, 2},
		PromptTokens:      []int64{10, 50, 20, 0, 70},
		CompletionTokens:  []int64{1, 2, 3, 0, 4},
		InFlight:          []*int64{new(int64(3)), nil, new(int64(9)), nil, nil},
		MemoryUsedBytes:   []*int64{nil, nil, nil, nil, nil},
		LatencyP50Seconds: []*float64{new(1.0), new(2.0), new(4.0), nil, new(3.0)},
		LatencyP99Seconds: []*float64{new(5.0), new(3.0), new(4.0), nil, new(6.0)},
	}

	want := &metadata.Series{
		Start:             time.Unix(0, 0).UTC(),
		IntervalSeconds:   4,
		Requests:          []int64{6, 2, 7},
		Failed:            []int64{1, 0, 2},
		PromptTokens:      []int64{60, 20, 70},
		CompletionTokens:  []int64{3, 3, 4},
		InFlight:          []*int64{new(int64(3)), new(int64(9)), nil},
		MemoryUsedBytes:   []*int64{nil, nil, nil},
		LatencyP50Seconds: []*float64{new(2.0), new(4.0), new(3.0)},
		LatencyP99Seconds: []*float64{new(5.0), new(4.0), new(6.0)},
	}
	if diff := cmp.Diff(want, thinSeries(s, 3)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if thinSeries(&metadata.Series{}, 3) != nil {
		t.Error("an empty series is shown")
	}
}

// The series of a run that stands still goes on to now, without results and without readings.
func TestExtendSeries(t *testing.T) {
	t.Parallel()

	start := time.Unix(0, 0).UTC()
	s := &metadata.Series{
		Start:             start,
		IntervalSeconds:   2,
		Requests:          []int64{1, 5},
		Failed:            []int64{0, 1},
		PromptTokens:      []int64{10, 50},
		CompletionTokens:  []int64{1, 2},
		InFlight:          []*int64{new(int64(3)), new(int64(9))},
		MemoryUsedBytes:   []*int64{nil, nil},
		LatencyP50Seconds: []*float64{new(1.0), new(2.0)},
	}

	want := &metadata.Series{
		Start:             start,
		IntervalSeconds:   2,
		Requests:          []int64{1, 5, 0, 0},
		Failed:            []int64{0, 1, 0, 0},
		PromptTokens:      []int64{10, 50, 0, 0},
		CompletionTokens:  []int64{1, 2, 0, 0},
		InFlight:          []*int64{new(int64(3)), new(int64(9)), nil, nil},
		MemoryUsedBytes:   []*int64{nil, nil, nil, nil},
		LatencyP50Seconds: []*float64{new(1.0), new(2.0), nil, nil},
	}
	if diff := cmp.Diff(want, extendSeries(s, start.Add(9*time.Second))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := extendSeries(s, start.Add(5*time.Second)); got != s {
		t.Errorf("a series that ends now became %v", got)
	}
	if got := extendSeries(s, start.Add(8*time.Hour)); got.Len() > mostPoints {
		t.Errorf("after a night the series has %d points, want at most %d", got.Len(), mostPoints)
	}
	if extendSeries(nil, start) != nil {
		t.Error("an unknown series has become known")
	}
}
