package collector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/internal/fixture"
)

// stored is a result by the second at which it was stored, and the seconds that its longest request took.
type stored struct{ at, took float64 }

// A run that is collected later was worked on while its results came, as if it had been collected at that time.
func TestCollectionGap(t *testing.T) {
	t.Parallel()

	const to = 100 // seconds; the gap is from 0 on
	for _, tt := range []struct {
		name     string
		lostFrom float64 // 0: the run was interrupted; to: it was not collected before
		results  []stored
		complete bool
		live     []stored // after the gap

		worked, idle, lost float64 // lost adds to what the journal has as lost
	}{
		{"a submitted run", to, []stored{{31, 1}, {35, 4}, {44, 1}}, true, nil, 14, 30, 56},
		{"its workers are at work soon", to, []stored{{5, 1}, {9, 4}}, true, nil, 5, 4, 91},
		{"one long request", to, []stored{{60, 50}}, true, nil, 50, 10, 40},
		{"a pause between two requests", to, []stored{{10, 10}, {60, 20}}, true, nil, 30, 30, 40},
		{"a long request beside a short one", to, []stored{{10, 10}, {40, 1}, {60, 55}}, true, nil, 60, 0, 40},
		{"a long request ends in the pause", to, []stored{{10, 10}, {80, 1}, {81, 41}}, true, nil, 51, 30, 19},
		{"a request that took longer than the run", to, []stored{{10, 5000}}, true, nil, 10, 0, 90},
		{"results out of order", to, []stored{{20, 5}, {10, 5}, {30, 5}}, true, nil, 25, 5, 70},
		{"others come after it", to, []stored{{50, 50}}, false, []stored{{101, 1}}, 50, 50, 0},
		{"others come soon", to, []stored{{95, 95}}, false, nil, 100, 0, 0},
		{"a request of the gap ends after it", to, []stored{{50, 50}}, false, []stored{{110, 40}}, 80, 20, 0},
		{"no results, and no workers", to, nil, false, nil, 0, 100, 0},
		{"no results, but work", to, nil, false, []stored{{110, 200}}, 100, 0, 0},

		{"an interruption", 0, []stored{{31, 1}, {35, 4}}, false, nil, 5, 0, -5},
		{"an interruption while all were answered", 0, []stored{{5, 1}, {35, 30}}, true, nil, 35, 0, -35},
		{"an interruption in the middle of requests", 0, nil, false, []stored{{110, 30}}, 20, 0, -20},
		{"an interruption without a worker", 0, nil, false, []stored{{110, 5}}, 0, 0, 0},
		{"an interruption while older results were read", 40, []stored{{20, 5}, {60, 20}}, false, nil,
			5 + 20, 15 + 20, -20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			at := func(s float64) time.Time { return fixture.Created.Add(time.Duration(s * float64(time.Second))) }
			took := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
			g := &collectionGap{from: at(0), begin: at(0), to: at(to), lostFrom: at(tt.lostFrom)}

			var got times
			for _, r := range tt.results {
				got.add(g.noteResult(at(r.at), took(r.took)))
			}

			got.add(g.settleRest(tt.complete))
			for _, r := range tt.live {
				got.add(g.noteLive(at(r.at), took(r.took)))
			}

			want := [3]float64{tt.worked, tt.idle, tt.lost}
			seconds := [3]float64{got.worked.Seconds(), got.idle.Seconds(), got.lost.Seconds()}
			if diff := cmp.Diff(want, seconds); diff != "" {
				t.Errorf("worked, idle and lost (-want +got):\n%s", diff)
			}

			if again := g.settleRest(tt.complete); again != (times{}) || !g.isSettled() {
				t.Errorf("settled again: %+v", again)
			}
		})
	}
}

// A collector that begins with its run has no gap.
func TestCollectionGapOfAttendedRun(t *testing.T) {
	t.Parallel()

	begin := fixture.Created
	g := &collectionGap{from: begin, to: begin.Add(3 * time.Second), lostFrom: begin.Add(3 * time.Second)}
	if got := g.settleRest(false); got != (times{}) {
		t.Errorf("a moment before the run counts: %+v", got)
	}
}
