package metadata

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var born = time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC)

// A run's series that is merged from parts, in any order, has the sums of the run, and
// it stays short.
func TestSeriesOfParts(t *testing.T) {
	t.Parallel()

	random := rand.New(rand.NewPCG(1, 2))
	for _, length := range []time.Duration{time.Second, time.Hour, 40 * time.Hour, 2000 * time.Hour} {
		t.Run(length.String(), func(t *testing.T) {
			var direct, merged, part Series
			direct.Add(born, Point{})
			merged.Add(born, Point{})

			var want Point
			for i := range 5000 {
				at := born.Add(time.Duration(random.Int64N(int64(length))))
				p := Point{
					Requests:         3,
					Failed:           1,
					PromptTokens:     10,
					CompletionTokens: random.Int64N(100),
					InFlight:         new(random.Int64N(64)),
				}

				direct.Add(at, p)
				part.Add(at, p)
				want.Requests, want.Failed, want.PromptTokens = want.Requests+3, want.Failed+1, want.PromptTokens+10
				want.CompletionTokens += p.CompletionTokens
				want.InFlight = Most(want.InFlight, p.InFlight)

				if i%100 == 99 {
					text, err := json.Marshal(part)
					if err != nil {
						t.Fatal(err)
					}

					part = Series{}
					if err := json.Unmarshal(text, &part); err != nil {
						t.Fatal(err)
					}

					merged.Merge(&part)
					part = Series{}
				}
			}

			for name, s := range map[string]*Series{"direct": &direct, "merged": &merged} {
				var got Point
				for i := range s.Len() {
					p := s.At(i)
					got.Requests, got.Failed = got.Requests+p.Requests, got.Failed+p.Failed
					got.PromptTokens, got.CompletionTokens = got.PromptTokens+
						p.PromptTokens, got.CompletionTokens+p.CompletionTokens
					got.InFlight = Most(got.InFlight, p.InFlight)
				}

				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: sums (-want +got):\n%s", name, diff)
				}

				if s.Len() > MaxPoints || time.Duration(s.Len()*s.IntervalSeconds)*time.Second < length/2 ||
					s.validate() != nil {
					t.Errorf("%s: %d points of %d s for %v: %v", name, s.Len(), s.IntervalSeconds, length, s.validate())
				}
			}

			if !direct.Start.Equal(merged.Start) || direct.IntervalSeconds != merged.IntervalSeconds {
				t.Errorf("from %v by %d s, and from %v by %d s",
					direct.Start, direct.IntervalSeconds, merged.Start, merged.IntervalSeconds)
			}
		})
	}
}

func TestSeriesIsPlacedInTime(t *testing.T) {
	t.Parallel()

	var s Series
	s.Add(born, Point{Requests: 1})
	s.Add(born.Add(-time.Hour), Point{Requests: 1}) // a clock was set back
	s.Add(born.Add(2500*time.Millisecond), Point{Requests: 5, MemoryUsedBytes: new(int64(7))})
	s.Add(born.Add(2600*time.Millisecond), Point{MemoryUsedBytes: new(int64(6))})
	if diff := cmp.Diff([]int64{2, 0, 5}, s.Requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}

	if diff := cmp.Diff([]*int64{nil, nil, new(int64(7))}, s.MemoryUsedBytes); diff != "" {
		t.Errorf("memory (-want +got):\n%s", diff)
	}
}

// Two series in one begin with the earlier one, in whichever order.
func TestJoin(t *testing.T) {
	t.Parallel()

	var load, results Series
	load.Add(born, Point{InFlight: new(int64(3))})
	load.Add(born.Add(2*time.Second), Point{InFlight: new(int64(5))})
	results.Add(born.Add(time.Second), Point{Requests: 7})

	want := Series{
		Start:            load.Start,
		IntervalSeconds:  1,
		Requests:         []int64{0, 7, 0},
		Failed:           []int64{0, 0, 0},
		PromptTokens:     []int64{0, 0, 0},
		CompletionTokens: []int64{0, 0, 0},
		InFlight:         []*int64{new(int64(3)), nil, new(int64(5))},
		MemoryUsedBytes:  []*int64{nil, nil, nil},
	}
	for _, got := range []Series{Join(*load.Clone(), results), Join(*results.Clone(), *load.Clone())} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("joined (-want +got):\n%s", diff)
		}
	}

	if got := Join(Series{}, load); !cmp.Equal(load, got) {
		t.Errorf("with an empty one: %+v", got)
	}
}
