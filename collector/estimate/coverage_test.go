//go:build !race

// The package starts no goroutine, and the simulations take the race detector minutes.

package estimate

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// The interval is worth its name: of 400 runs of each kind of server, it holds the
// time of another job on that server in 85 to 95%, and is no wider than it must be.
func TestNineIntervalsInTenHoldTheTruth(t *testing.T) {
	t.Parallel()

	const runs = 400
	for _, tt := range []struct {
		name          string
		law           law
		requests, job int
		widest        float64 // the median width may be, over the truth
	}{
		{"steady", law{32, lognormal(8, 0.5), nil}, 3000, 10_000, 0.06},
		{"steady, a shorter job than the run", law{32, lognormal(8, 0.5), nil}, 5000, 1000, 0.2},
		{"steady, short requests", law{64, lognormal(1, 0.5), nil}, 5000, 20_000, 0.06},
		{"warming up", law{32, lognormal(8, 0.5), warming(60)}, 3000, 10_000, 0.08},
		{"drifting", law{32, lognormal(8, 0.5), drifting(0.1, 30)}, 5000, 20_000, 0.2},
		{"heavy-tailed, lognormal", law{32, lognormal(8, 1.2), nil}, 3000, 10_000, 0.4},
		{"heavy-tailed, Pareto", law{32, pareto(8, 3), nil}, 3000, 10_000, 0.2},
		{"warming up, a job that is over before", law{32, lognormal(8, 0.5), warming(60)}, 3000, 100, 0.9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			held, below := 0, 0
			var widths []float64
			for i := range uint64(runs) {
				rng := rand.New(rand.NewPCG(1, i))
				e := Of(tt.law.run(rng, tt.requests), tt.job, 0)
				truth := tt.law.takes(rng, tt.job)
				switch {
				case truth < e.Low:
					below++
				case truth <= e.High:
					held++
				}

				widths = append(widths, (e.High-e.Low)/truth)
			}

			slices.Sort(widths)
			coverage, width := float64(held)/runs, widths[runs/2]
			t.Logf("held %.1f%%, shorter %.1f%%, median width %.1f%%", 100*coverage, 100*float64(below)/runs, 100*width)
			if coverage < 0.85 || coverage > 0.95 {
				t.Errorf("%.1f%% of the intervals hold the truth, want 85 to 95%%", 100*coverage)
			}

			if width > tt.widest {
				t.Errorf("the median interval is %.1f%% wide, want at most %.0f%%", 100*width, 100*tt.widest)
			}
		})
	}
}
