package quality

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// The bounds of Wilson's interval are the shares from which the one that was seen is z90 standard errors away.
func TestNewShare(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ count, of int }{{0, 1}, {0, 10}, {10, 10}, {81, 100}, {5, 20_000}} {
		s := *NewShare(c.count, c.of)
		if s.Count != c.count || s.Of != c.of || s.Share != float64(c.count)/float64(c.of) ||
			s.Low > s.Share || s.High < s.Share {
			t.Errorf("%+v, want %d of %d", s, c.count, c.of)
		}

		for _, bound := range []float64{s.Low, s.High} {
			away := math.Abs(s.Share-bound) - z90*math.Sqrt(bound*(1-bound)/float64(c.of))
			if math.Abs(away) > 1e-9 && bound != 0 && bound != 1 {
				t.Errorf("%d of %d: the bound %v is off by %v", c.count, c.of, bound, away)
			}
		}
	}

	if s := NewShare(0, 0); *s != (Share{High: 1}) {
		t.Errorf("of no requests: %+v", s)
	}
}

// Few values that are all the same leave much unknown.
func TestSameValues(t *testing.T) {
	t.Parallel()

	for _, n := range []int{1, 5, 100, 20_000} {
		var ones, halves, ties sums
		for range n {
			ones.add(1)
			halves.add(0.5)
			ties.add(0)
		}

		one, half, tie := ones.score(), halves.score(), ties.difference()
		if one.Mean != 1 || one.High != 1 || one.Low > 1-1/float64(n+2) || n > 99 && one.Low < 1-5/float64(n) {
			t.Errorf("%d scores of 1: %+v", n, one)
		}
		if half.Low >= 0.5 || half.High <= 0.5 || math.Abs(half.Low+half.High-1) > 1e-9 {
			t.Errorf("%d scores of 0.5: %+v", n, half)
		}
		if tie.IsReal() || tie.High < 1/float64(n+2) || tie.High > 3/float64(n) || tie.Low != -tie.High {
			t.Errorf("%d differences of 0: %+v", n, tie)
		}
	}

	if s := new(sums).score(); *s != (Score{High: 1}) {
		t.Errorf("no scores: %+v", s)
	}
	if d := new(sums).difference(); *d != (Difference{Low: -1, High: 1}) {
		t.Errorf("no differences: %+v", d)
	}
}

// coverage is the part of intervals that must hold the truth. Nine in ten are promised; an interval of a share cannot
// hold it exactly as often, since shares move in steps.
const coverage = 0.87

// replicates is the number of intervals of a case. Three standard errors of their coverage are 0.02.
const replicates = 2000

// Intervals hold the truth nine times in ten: of shares, of scores of several distributions, and of differences of two
// runs that depend on each other by the same requests. They are not much wider than they need to be.
func TestCoverage(t *testing.T) {
	t.Parallel()

	rnd := rand.New(rand.NewPCG(1, 2))
	check := func(name string, n int, truth float64, most float64, draw func() (low, high float64)) {
		held := 0
		for range replicates {
			if low, high := draw(); low <= truth && truth <= high {
				held++
			}
		}

		share := float64(held) / replicates
		if share < coverage || share > most {
			t.Errorf("%s, %d requests: %.3f of intervals hold the truth, want %.2f to %.2f", name, n, share, coverage, most)
		}
	}

	for _, n := range []int{20, 200, 2000} {
		most := 1.0
		if n > 20 {
			most = 0.95
		}

		for _, p := range []float64{0.5, 0.81, 0.95} {
			check(fmt.Sprint("share of ", p), n, p, most, func() (float64, float64) {
				count := 0
				for range n {
					if rnd.Float64() < p {
						count++
					}
				}
				s := NewShare(count, n)
				return s.Low, s.High
			})
		}

		for _, d := range []struct {
			name  string
			truth float64
			draw  func() float64
		}{
			{"even", 0.5, rnd.Float64},
			{"skewed", 0.8, func() float64 { return math.Sqrt(math.Sqrt(rnd.Float64())) }},
			{"lumpy", 0.7, func() float64 { return []float64{0, 0.5, 1, 1, 1}[rnd.IntN(5)] }},
		} {
			check("score, "+d.name, n, d.truth, most, func() (float64, float64) {
				var s sums
				for range n {
					s.add(d.draw())
				}
				mean := s.score()
				return mean.Low, mean.High
			})
		}

		// Both are right of the easy requests; of the hard ones, the first more often.
		for _, hard := range []float64{0.05, 0.3, 1} {
			check(fmt.Sprint("difference, hard ", hard), n, hard*0.2, most, func() (float64, float64) {
				var s sums
				for range n {
					d := 0.0
					if rnd.Float64() < hard {
						d = isUnder(rnd, 0.6) - isUnder(rnd, 0.4)
					}
					s.add(d)
				}
				d := s.difference()

				return d.Low, d.High
			})
		}
	}
}

// isUnder returns 1 with a probability, and 0 otherwise.
func isUnder(rnd *rand.Rand, p float64) float64 {
	if rnd.Float64() < p {
		return 1
	}
	return 0
}
