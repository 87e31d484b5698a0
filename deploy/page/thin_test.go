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
