package tune

import (
	"math"

	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/collector/trial"
)

// measure is a measure of the answers of a variant, from 0 to 1, with its 90 % interval.
type measure struct {
	value, low, high float64
}

// isWorse reports whether the answers of a variant are worse than those of another, beyond what chance does: fewer
// succeed, have the wanted form or are right, or their score is lower. A measure that either lacks says nothing.
func isWorse(a, b trial.Variant) bool {
	of, than := measuresOf(a), measuresOf(b)
	for i, m := range of {
		if n := than[i]; m != nil && n != nil && m.isBelow(*n) {
			return true
		}
	}

	return false
}

// measuresOf returns the measures of a variant, always in the same order; nil: unknown.
func measuresOf(v trial.Variant) [4]*measure {
	var all [4]*measure
	if v.Run != nil {
		all[0] = measureShare(quality.NewShare(v.Run.Results.SuccessCount, v.Run.Results.CountSent()))
	}

	q := v.Quality
	if q == nil {
		return all
	}

	all[1], all[2] = measureShare(q.Schema), measureShare(q.Expected)
	if s := q.Score; s != nil && s.Of > 0 {
		all[3] = &measure{value: s.Mean, low: s.Low, high: s.High}
	}

	return all
}

func measureShare(s *quality.Share) *measure {
	if s == nil || s.Of == 0 {
		return nil
	}
	return &measure{value: s.Share, low: s.Low, high: s.High}
}

// isBelow reports whether the 90 % interval of the difference of two measures lies below zero (Newcombe 1998).
func (m measure) isBelow(n measure) bool {
	return m.value-n.value+math.Hypot(m.high-m.value, n.value-n.low) < 0
}
