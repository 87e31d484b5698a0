package journal

import (
	"math"

	"github.com/promptmill/promptmill/collector/metadata"
)

// maxBuckets is the most buckets of a histogram.
const maxBuckets = 40

// Histogram returns the values, divided by unit, in at most 40 buckets with round bounds. A value is
// in its bucket within 1%, and all values are counted. It returns nil if fewer than requests values
// were added.
func (s *Sketch) Histogram(unit float64, requests int) *metadata.Histogram {
	if requests == 0 || s.Count() < int64(requests) {
		return nil
	}

	lowest, err := s.sketch.GetMinValue()
	if err != nil {
		return nil
	}

	highest, err := s.sketch.GetMaxValue()
	if err != nil {
		return nil
	}

	bounds := roundBounds(lowest, highest)
	h := &metadata.Histogram{Bounds: bounds, Counts: make([]int64, len(bounds))}
	s.sketch.ForEach(func(value, count float64) (stop bool) {
		value = min(max(math.Round(value), lowest), highest)
		for i, bound := range bounds {
			if value <= bound {
				h.Counts[i] += int64(count)
				break
			}
		}
		return false
	})

	for i := range bounds {
		bounds[i] /= unit
	}

	return h
}

// roundBounds returns ascending whole bounds for values from lowest to highest, which is the last
// bound. The first bucket has no value above lowest, unless that is the only bucket.
func roundBounds(lowest, highest float64) []float64 {
	if highest < 10*max(1, lowest) {
		return linearBounds(lowest, highest)
	}

	for _, steps := range [][]float64{
		{1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2, 2.2, 2.5, 2.8, 3.2, 3.6, 4, 4.5, 5, 6, 7, 8, 9},
		{1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8},
		{1, 1.5, 2, 3, 5, 7},
		{1, 2, 5},
		{1, 3},
	} {
		if bounds := steppedBounds(lowest, highest, steps); len(bounds) <= maxBuckets {
			return bounds
		}
	}

	return steppedBounds(lowest, highest, []float64{1})
}

// linearBounds returns bounds at multiples of 1, 2 or 5 times a power of 10. A sketch has
// one bucket for values that differ by less than 1%.
func linearBounds(lowest, highest float64) []float64 {
	const most = 30 // a first and a last bound come on top

	least := max(1, (highest-lowest)/most, highest/50)
	step := 1.0
	for i := 0; step < least; i++ {
		step *= []float64{2, 2.5, 2}[i%3]
	}

	var bounds []float64
	for b := max(0, math.Ceil(lowest/step)-1) * step; b < highest; b += step {
		bounds = append(bounds, b)
	}

	return append(bounds, highest)
}

// steppedBounds returns bounds at steps of each power of 10.
func steppedBounds(lowest, highest float64, steps []float64) (bounds []float64) {
	if lowest < 1 {
		bounds = []float64{0}
	}

	for decade := 1.0; decade < highest; decade *= 10 {
		for _, step := range steps {
			b := math.Round(step * decade)
			switch n := len(bounds); {
			case b >= highest:
				return append(bounds, highest)
			case n > 0 && b == bounds[n-1]:
			case n > 0 && b < lowest:
				bounds[n-1] = b // the bucket before has no values
			default:
				bounds = append(bounds, b)
			}
		}
	}

	return append(bounds, highest)
}
