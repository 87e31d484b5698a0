package journal

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/metadata"
)

func TestHistogram(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		values []float64
		want   *metadata.Histogram
	}{
		{"none", nil, nil},
		{"one value", []float64{5000}, &metadata.Histogram{Bounds: []float64{4.9, 5}, Counts: []int64{0, 1}}},
		{"zeros", []float64{0, 0}, &metadata.Histogram{Bounds: []float64{0}, Counts: []int64{2}}},
		{"near each other", []float64{1000, 1040, 1100}, &metadata.Histogram{
			Bounds: []float64{0.95, 1, 1.05, 1.1},
			Counts: []int64{0, 1, 1, 1},
		}},
		{"far from each other", []float64{0, 1, 30, 1000000}, &metadata.Histogram{
			Bounds: []float64{0, .001, .002, .003, .005, .007, .01, .015, .02, .03, .05, .07, .1, .15, .2, .3, .5, .7,
				1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000},
			Counts: []int64{1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
				0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var s *Sketch
			for _, v := range tt.values {
				addValue(&s, v)
			}

			if diff := cmp.Diff(tt.want, s.Histogram(1000, len(tt.values))); diff != "" {
				t.Errorf("histogram (-want +got):\n%s", diff)
			}
		})
	}
}

// A histogram counts each value, has at most 40 buckets with bounds that ascend, and ends at the
// greatest value.
func TestHistogramOfAnyValues(t *testing.T) {
	t.Parallel()

	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var s *Sketch
		values := make([]float64, 1+random.IntN(200))
		lowest, width := float64(random.Int64N(1<<random.IntN(40))), int64(1)<<random.IntN(40)
		for i := range values {
			values[i] = lowest + float64(random.Int64N(width))
			addValue(&s, values[i])
		}

		h := s.Histogram(1, len(values))
		total := int64(0)
		for _, n := range h.Counts {
			total += n
		}

		if total != int64(len(values)) || len(h.Bounds) != len(h.Counts) || len(h.Bounds) > maxBuckets {
			t.Fatalf("%d of %d values in %d buckets with %d bounds", total, len(values), len(h.Counts), len(h.Bounds))
		}

		if !slices.IsSorted(h.Bounds) || len(slices.Compact(slices.Clone(h.Bounds))) != len(h.Bounds) ||
			h.Bounds[len(h.Bounds)-1] != slices.Max(values) {
			t.Fatalf("bounds %v of values up to %v", h.Bounds, slices.Max(values))
		}

		for i, bound := range h.Bounds {
			least, most := int64(0), int64(0)
			for _, v := range values {
				if v <= bound*0.99 {
					least++
				}
				if v <= bound*1.01 {
					most++
				}
			}

			below := int64(0)
			for _, n := range h.Counts[:i+1] {
				below += n
			}

			if below < least || below > most {
				t.Fatalf("%d values up to %v, want %d to %d", below, bound, least, most)
			}
		}
	}
}
