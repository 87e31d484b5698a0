package progress

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// simulated is a server with a fixed number of slots.
type simulated struct {
	slots    int
	requests int
	length   func(r *rand.Rand, begin float64) float64 // seconds of a request that begins then
	stop, on float64                                   // it is paused from, until; no pause if equal
}

// moment is the shown interval at a time.
type moment struct {
	at, end   float64
	done      int
	low, high float64
	known     bool
	working   bool
}

// run lets the server do its requests, and takes a sample every quarter second.
func (s simulated) run(seed uint64, already int) []moment {
	r := rand.New(rand.NewPCG(seed, 1))
	var ends []float64
	free := make([]float64, s.slots)
	end := 0.0
	for range s.requests {
		first := 0
		for i, f := range free {
			if f < free[first] {
				first = i
			}
		}

		begin := free[first]
		if begin >= s.stop && begin < s.on { // requests in flight end, none begin
			begin = s.on
		}

		free[first] = begin + s.length(r, begin)
		ends = append(ends, free[first])
		end = max(end, free[first])
	}

	slices.Sort(ends)
	var rem timeEstimator
	var list []moment
	done := 0
	start := time.Unix(0, 0)
	for tick := 0; float64(tick)/4 < end; tick++ {
		m := moment{at: float64(tick) / 4, end: end}
		for ends[done] <= m.at {
			done++
		}

		m.done = done
		m.working = m.at < s.stop || m.at >= s.on
		left := s.requests - m.done
		rem.addSample(start.Add(time.Duration(m.at*float64(time.Second))), already+m.done, already+s.requests,
			min(left, s.slots), m.working)
		m.low, m.high, m.known = rem.interval()
		list = append(list, m)
	}

	return list
}

func exponential(mean float64) func(*rand.Rand, float64) float64 {
	return func(r *rand.Rand, _ float64) float64 { return mean * r.ExpFloat64() }
}

// The shown time is never negative and never jumps.
func TestRemainingNeverJumps(t *testing.T) {
	t.Parallel()

	servers := map[string]simulated{
		"steady": {slots: 32, requests: 4000, length: exponential(4)},
		"warming up": {
			slots:    32,
			requests: 4000,
			length:   func(r *rand.Rand, at float64) float64 { return (4 + 20*math.Exp(-at/60)) * r.ExpFloat64() },
		},
		"slower": {
			slots:    32,
			requests: 4000,
			length:   func(r *rand.Rand, at float64) float64 { return (4 + at/60) * r.ExpFloat64() },
		},
		"faster": {
			slots:    32,
			requests: 4000,
			length:   func(r *rand.Rand, at float64) float64 { return 8 / (1 + at/200) * r.ExpFloat64() },
		},
		"in bursts": {
			slots:    64,
			requests: 2000,
			length:   func(r *rand.Rand, _ float64) float64 { return 15 + r.Float64()/10 },
		},
		"heavy tails": {
			slots:    32,
			requests: 2000,
			length:   func(r *rand.Rand, _ float64) float64 { return math.Exp(1 + 1.2*r.NormFloat64()) },
		},
		"paused": {slots: 32, requests: 4000, length: exponential(4), stop: 200, on: 900},
		"hanging": {slots: 32, requests: 4000, length: func(r *rand.Rand, at float64) float64 {
			if at > 200 && at < 204 {
				return 120
			}
			return 4 * r.ExpFloat64()
		}},
		"half as fast at once": {slots: 32, requests: 4000, length: func(r *rand.Rand, at float64) float64 {
			if at > 250 {
				return 8 * r.ExpFloat64()
			}
			return 4 * r.ExpFloat64()
		}},
	}
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var before moment
			shown := 0
			for _, m := range server.run(1, 100) {
				if before.known && !m.known {
					t.Fatalf("at %.2f s it is not known any more", m.at)
				}

				if m.low < 0 || m.high < m.low || math.IsNaN(m.low) || math.IsInf(m.high, 0) {
					t.Fatalf("at %.2f s: %f to %f", m.at, m.low, m.high)
				}

				passed := m.at - before.at
				if before.known && m.working {
					for _, b := range [][2]float64{{before.low, m.low}, {before.high, m.high}} {
						if jump := math.Abs(b[1] - max(0, b[0]-passed)); jump > passed*(1+b[0]/100)+1e-9 {
							t.Fatalf("at %.2f s: from %f to %f", m.at, b[0], b[1])
						}
					}
				}

				if before.known && !m.working && (m.low != before.low || m.high != before.high) {
					t.Fatalf("at %.2f s: moved in a pause", m.at)
				}

				if m.known {
					shown++
				}

				before = m
			}

			if shown == 0 {
				t.Error("never known")
			}
		})
	}
}

// countCovered counts the known moments, and those whose interval has the truth, to half a second.
func countCovered(list []moment) (hits, known int) {
	for _, m := range list {
		if !m.known {
			continue
		}

		known++
		if truth := m.end - m.at; truth >= m.low-0.5 && truth <= m.high+0.5 {
			hits++
		}
	}

	return hits, known
}

func TestRemainingHoldsTheTruth(t *testing.T) {
	const seeds = 20
	t.Parallel()

	for name, server := range map[string]simulated{
		"exponential": {slots: 32, requests: 3000, length: exponential(4)},
		"equal": {
			slots:    32,
			requests: 3000,
			length:   func(r *rand.Rand, _ float64) float64 { return 3.8 + 0.4*r.Float64() },
		},
		"slow": {slots: 4, requests: 300, length: exponential(10)},
		"fast": {slots: 64, requests: 8000, length: exponential(0.5)},
		"log-normal": {
			slots:    32,
			requests: 3000,
			length:   func(r *rand.Rand, _ float64) float64 { return math.Exp(1 + 0.8*r.NormFloat64()) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			hits, known, all := 0, 0, 0
			widths := map[string]float64{}
			for seed := range uint64(seeds) {
				list := server.run(seed, 0)
				h, k := countCovered(list)
				hits, known, all = hits+h, known+k, all+len(list)

				for _, p := range []int{30, 60, 90} {
					m := list[len(list)*p/100]
					widths[fmt.Sprint(p)] += (m.high - m.low) / seeds
				}
			}

			part := float64(hits) / float64(known)
			t.Logf("%.1f%% of %d moments, known in %.0f%% of the time; widths %v",
				100*part, known, 100*float64(known)/float64(all), widths)
			if part < 0.85 {
				t.Errorf("the truth is in %.1f%% of the intervals, want 85%%", 100*part)
			}

			if widths["90"] > widths["60"] || widths["60"] > widths["30"] {
				t.Errorf("the interval does not narrow: %v", widths)
			}
		})
	}
}
