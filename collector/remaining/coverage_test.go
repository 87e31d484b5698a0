//go:build !race

// The package starts no goroutine, and the simulations take the race detector minutes.

package remaining

import (
	"math"
	"math/rand/v2"
	"testing"
)

// coverage is how often the interval of the moments of some runs holds the truth, to a half second.
type coverage struct {
	moments, known, held int
	longer               int     // the truth is longer than expected
	widths               float64 // of the intervals over the truth, in the first three quarters of a run
	early                int     // moments that these are of
}

// add adds the moments of a run from which on all is as the estimator may know it.
func (c *coverage) add(l law, list []moment) {
	for _, m := range list {
		if m.at < l.joins || !m.working {
			continue
		}

		c.moments++
		if m.shown == nil {
			continue
		}

		c.known++
		truth := m.end - m.at
		if m.at < l.stop { // the estimator does not know of the pause
			truth -= l.on - l.stop
		}

		if truth >= m.shown.Low-0.5 && truth <= m.shown.High+0.5 {
			c.held++
		}
		if truth > m.shown.Expected {
			c.longer++
		}
		if m.at < 0.75*m.end {
			c.widths += (m.shown.High - m.shown.Low) / truth
			c.early++
		}
	}
}

// The interval is worth its name: it holds the truth in the share of moments that the comment of the
// package promises, is no wider than it must be, and is known soon.
func TestNineIntervalsInTenHoldTheTruth(t *testing.T) {
	t.Parallel()

	const runs = 40
	for _, tt := range []struct {
		name   string
		law    law
		least  float64 // share of moments that hold the truth
		widest float64 // mean width over the truth
	}{
		{"exponential", law{slots: 32, requests: 3000, length: exponential(4)}, 0.9, 0.5},
		{"equal", law{slots: 32, requests: 3000, length: always(
			func(r *rand.Rand, _ float64) float64 { return 3.8 + 0.4*r.Float64() },
		)}, 0.9, 0.4},
		{"few slots, long requests", law{slots: 4, requests: 300, length: exponential(10)}, 0.9, 1.3},
		{"short requests", law{slots: 64, requests: 8000, length: exponential(0.5)}, 0.9, 0.3},
		{"log-normal", law{slots: 32, requests: 3000, length: always(
			func(r *rand.Rand, _ float64) float64 { return math.Exp(1 + 0.8*r.NormFloat64()) },
		)}, 0.88, 0.5},
		{"an hour", law{slots: 32, requests: 30_000, length: exponential(4)}, 0.9, 0.2},
		{"warming up", law{slots: 32, requests: 6000, length: always(
			func(r *rand.Rand, at float64) float64 { return (4 + 8*math.Exp(-at/60)) * r.ExpFloat64() },
		)}, 0.75, 2},
		{"paused", law{slots: 32, requests: 6000, length: exponential(4), stop: 200, on: 900}, 0.9, 0.5},
		{"wandering within half a minute", law{slots: 32, requests: 6000, length: drifting(4, 0.2, 30)}, 0.85, 1},
		{"wandering within five minutes", law{slots: 32, requests: 30_000, length: drifting(4, 0.2, 300)}, 0.8, 1.2},
		{"wandering within half an hour", law{slots: 32, requests: 30_000, length: drifting(4, 0.2, 1800)}, 0.7, 0.8},
		{"a worker joins", law{slots: 32, requests: 9000, length: exponential(4), more: 16, joins: 400}, 0.78, 0.5},
		{"a worker leaves", law{slots: 32, requests: 9000, length: exponential(4), more: -16, joins: 400}, 0.85, 0.5},
		{"sagging", law{slots: 32, requests: 9000, length: always(
			func(r *rand.Rand, at float64) float64 { return 4 * (1 + at/2000) * r.ExpFloat64() },
		)}, 0.55, 0.7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var c coverage
			for seed := range uint64(runs) {
				c.add(tt.law, tt.law.follow(seed, 0))
			}

			share, width := float64(c.held)/float64(c.known), c.widths/float64(c.early)
			known := float64(c.known) / float64(c.moments)
			t.Logf("%.1f%% hold the truth, which is longer than expected in %.0f%%; width %.2f, known in %.0f%% of the time",
				100*share, 100*float64(c.longer)/float64(c.known), width, 100*known)

			if share < tt.least {
				t.Errorf("%.1f%% of the intervals hold the truth, want %.0f%%", 100*share, 100*tt.least)
			}

			if width > tt.widest {
				t.Errorf("the mean interval is %.2f of the truth wide, want at most %.2f", width, tt.widest)
			}

			if known < 0.8 {
				t.Errorf("known in %.0f%% of the time, want 80%%", 100*known)
			}
		})
	}
}
