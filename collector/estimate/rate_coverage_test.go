//go:build !race

package estimate

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// The interval of the steady rate is worth its name: of 1,000 runs of each kind of server, nine in ten hold the rate of
// a run without end, and at 99.9 % practically all do.
func TestTheSteadyRateIsInItsInterval(t *testing.T) {
	t.Parallel()

	const runs = 1000
	for _, tt := range []struct {
		name     string
		law      law
		requests int
		cut      float64 // requests after which the run is cut off; 0: it is not
		truth    float64 // requests per second
		widest   float64 // the median width may be, over the truth
	}{
		{"steady", law{32, lognormal(8, 0.5), nil}, 3000, 0, 4, 0.06},
		{"steady, cut off", law{32, lognormal(8, 0.5), nil}, 3000, 1000, 4, 0.1},
		{"short requests", law{64, lognormal(1, 0.5), nil}, 5000, 0, 64, 0.06},
		{"warming up", law{32, lognormal(8, 0.5), warming(60)}, 3000, 0, 4, 0.08},
		{"drifting", law{32, lognormal(8, 0.5), drifting(0.1, 30)}, 5000, 0, 4 * math.Exp(0.005), 0.2},
		{"heavy-tailed, lognormal", law{32, lognormal(8, 1.2), nil}, 3000, 0, 4, 0.4},
		{"heavy-tailed, Pareto", law{32, pareto(8, 3), nil}, 3000, 0, 4, 0.2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			held, below, certain := 0, 0, 0
			var widths []float64
			for i := range uint64(runs) {
				run := tt.law.run(rand.New(rand.NewPCG(1, i)), tt.requests)
				if tt.cut > 0 {
					run = cutOff(run, tt.cut)
				}

				r, wide := RateOf(run, 0.9), RateOf(run, 0.999)
				switch {
				case tt.truth < r.Low:
					below++
				case tt.truth <= r.High:
					held++
				}

				if wide.Low <= tt.truth && tt.truth <= wide.High {
					certain++
				}

				widths = append(widths, (r.High-r.Low)/tt.truth)
			}

			slices.Sort(widths)
			coverage, width := float64(held)/runs, widths[runs/2]
			t.Logf("held %.1f%%, lower %.1f%%, at 99.9%% %.1f%%, median width %.1f%%",
				100*coverage, 100*float64(below)/runs, 100*float64(certain)/runs, 100*width)
			if coverage < 0.85 || coverage > 0.95 {
				t.Errorf("%.1f%% of the intervals hold the truth, want 85 to 95%%", 100*coverage)
			}

			if certain < runs*99/100 {
				t.Errorf("%d of %d intervals at 99.9%% hold the truth, want practically all", certain, runs)
			}

			if width > tt.widest {
				t.Errorf("the median interval is %.1f%% wide, want at most %.0f%%", 100*width, 100*tt.widest)
			}
		})
	}
}
