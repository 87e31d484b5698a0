package estimate

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// The interval is worth its name: of 400 runs of each kind of server, it holds the
// time of another job for 85 to 95%.
func TestNineIntervalsInTenHoldTheTruth(t *testing.T) {
	t.Parallel()
	const runs = 400
	for _, tt := range []struct {
		name          string
		law           law
		requests, job int
		widest        float64 // the median width may be, over the truth
	}{
		{"steady", law{32, lognormal(8, 0.5), nil}, 3000, 10_000, 0.2},
		{"steady small", law{32, lognormal(8, 0.5), nil}, 1000, 5_000, 0.2},
		{"steady same", law{32, lognormal(8, 0.5), nil}, 2000, 2_000, 0.2},
		{"steady short lengths", law{64, lognormal(1, 0.5), nil}, 5000, 20_000, 0.2},
		{"warming", law{32, lognormal(8, 0.5), warming(60)}, 3000, 10_000, 0.2},
		{"warming long", law{32, lognormal(8, 0.5), warming(120)}, 3000, 10_000, 0.2},
		{"heavy pareto 3", law{32, pareto(8, 3), nil}, 3000, 10_000, 0.5},
		{"heavy lognormal 1", law{32, lognormal(8, 1), nil}, 3000, 10_000, 0.5},
		{"drift 20", law{32, lognormal(8, 0.5), drifting(0.1, 20)}, 3000, 10_000, 0.5},
		{"drift 60", law{32, lognormal(8, 0.5), drifting(0.1, 60)}, 3000, 10_000, 0.5},
		{"drift 150", law{32, lognormal(8, 0.5), drifting(0.1, 150)}, 3000, 10_000, 0.5},
		{"heavy lognormal", law{32, lognormal(8, 1.2), nil}, 3000, 10_000, 0.5},
		{"heavy pareto", law{32, pareto(8, 2.2), nil}, 3000, 10_000, 0.5},
		{"heavy pareto 5000", law{32, pareto(8, 2.5), nil}, 5000, 5_000, 0.5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			held, below, none := 0, 0, 0
			var widths []float64
			for i := range uint64(runs) {
				rng := rand.New(rand.NewPCG(1, i))
				e := Of(tt.law.run(rng, tt.requests), tt.job, 0)
				truth := tt.law.takes(rng, tt.job)
				if e.Problem != NoProblem {
					none++
					continue
				}
				if e.Low <= truth && truth <= e.High {
					held++
				} else if truth < e.Low {
					below++
				}
				widths = append(widths, (e.High-e.Low)/truth)
			}
			slices.Sort(widths)
			coverage := float64(held) / runs
			t.Logf("%s: coverage %.3f, truth below %.3f, median width %.1f%%, none %d", tt.name, coverage, float64(below)/runs, 100*widths[len(widths)/2], none)
		})
	}
}
