//go:build !race

package trial

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

const (
	precision = 0.05
	tokens    = 300                       // of a request, in the mean
	perSecond = 40.0                      // tokens of one request
	fastest   = 32.0 * perSecond / tokens // requests per second of the first variant
	budget    = 600                       // seconds of a variant
	look      = 10                        // seconds between two decisions
)

// simulated is a trial of variants whose rates are known.
type simulated struct {
	rates  []float64 // of the variants, over that of the first
	law    law
	sigma  float64 // of the log of the lengths
	rounds float64 // seconds of a round; 0: one variant after the other
}

// run runs the trial and returns its variants in the order of rates, with the seconds that each was measured.
func (s simulated) run(rng *rand.Rand, goal Goal) (variants []Variant, took []int) {
	sample := newSample(rng, 20_000, tokens, s.sigma)
	machines := make([]*machine, len(s.rates))
	variants, took = make([]Variant, len(s.rates)), make([]int, len(s.rates))
	for i, rate := range s.rates {
		machines[i] = &machine{slots: 64, each: perSecond, knee: 32 * perSecond * rate, sample: sample}
		variants[i] = Variant{Name: fmt.Sprint(i), State: Running}
	}

	order := rng.Perm(len(s.rates))
	if s.rounds > 0 {
		s.runInTurns(rng, goal, machines, order, variants, took)
		return variants, took
	}

	var at float64
	for _, i := range order {
		m, v := machines[i], &variants[i]
		m.begin, m.speed = at, s.law.newSpeed(rng, at)
		m.run(at, at+budget)

		f := m.film(at + budget)
		for took[i] = look; took[i] < budget && !v.State.HasEnded(); took[i] += look {
			v.Run = f.at(took[i])
			if d := Decide(*v, slices.Delete(slices.Clone(variants), i, i+1), precision, goal); d.End {
				v.State, v.Reason = d.State, d.Reason
			}
		}

		at += float64(took[i]) // whole seconds, as series have
	}

	return variants, took
}

// runInTurns is run for variants that take turns until all have ended. Each is judged after its rounds.
func (s simulated) runInTurns(
	rng *rand.Rand, goal Goal, machines []*machine, order []int, variants []Variant, took []int,
) {
	for _, m := range machines {
		m.speed = s.law.newSpeed(rng, 0)
	}

	at := 0.0
	for round := 1; slices.ContainsFunc(variants, func(v Variant) bool { return !v.State.HasEnded() }); round++ {
		for _, i := range order {
			m, v := machines[i], &variants[i]
			if v.State.HasEnded() {
				continue
			}

			at = m.takeRound(round, at, at+s.rounds)
			took[i] += int(s.rounds)
			at = math.Ceil(at)
			v.Run, v.Rounds = m.film(at).at(int(at)), m.rounds
			d := Decide(*v, slices.Delete(slices.Clone(variants), i, i+1), precision, goal)
			if d.End {
				v.State, v.Reason = d.State, d.Reason
			} else if took[i] >= budget {
				v.State = Measured
			}
		}
	}
}

// trials of each kind are run.
const trials = 100

// tally counts what trials found.
type tally struct {
	ordered  int   // rates in the order of the truth
	real     int   // the first two variants differ for real
	beaten   []int // by variant
	measured int   // variants that were precise
	held     int   // of these, whose interval holds the truth
	seconds  []int // by variant, in the mean
}

func (s simulated) count() tally {
	n := tally{beaten: make([]int, len(s.rates)), seconds: make([]int, len(s.rates))}
	for seed := range uint64(trials) {
		variants, took := s.run(rand.New(rand.NewPCG(3, seed)), Throughput)
		rates := make([]float64, len(variants))
		for i, v := range variants {
			speed := MeasureSpeed(v)
			rates[i] = -speed.Rate
			n.seconds[i] += took[i]

			truth := s.rates[i] * fastest
			switch {
			case v.State == Beaten:
				n.beaten[i]++
			case speed.IsPrecise(precision):
				n.measured++
				if speed.Low <= truth && truth <= speed.High {
					n.held++
				}
			}
		}

		if slices.IsSorted(rates) {
			n.ordered++
		}
		if CompareSpeeds(variants[0], variants[1]).Real {
			n.real++
		}
	}

	for i := range n.seconds {
		n.seconds[i] /= trials
	}

	return n
}

var (
	calm    = law{noise: 0.02, keeps: 5}
	noisy   = law{noise: 0.05, keeps: 20}
	warming = law{warm: 20, noise: 0.02, keeps: 5}
	slowing = law{drift: 0.2, over: 1200, noise: 0.02, keeps: 5}
)

// Variants that differ by a tenth come out in their order in 95 of 100 trials.
func TestTrialsFindTheOrder(t *testing.T) {
	t.Parallel()

	rates := []float64{1, 0.9, 0.81}
	for _, tt := range []struct {
		name string
		simulated
	}{
		{"one after the other", simulated{rates, calm, 0.5, 0}},
		{"warming up", simulated{rates, warming, 0.5, 0}},
		{"noisy, lengths that spread widely", simulated{rates, noisy, 0.8, 0}},
		{"in rounds", simulated{rates, calm, 0.5, 40}},
		{"in rounds, slowing down by a fifth", simulated{rates, slowing, 0.5, 40}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := tt.count()
			t.Logf("%+v", n)
			if n.ordered < 95 {
				t.Errorf("the order is right in %d of %d trials, want 95", n.ordered, trials)
			}
		})
	}
}

// Equal variants are called equal in 90 of 100 trials.
func TestTrialsFindNoDifferenceWhereThereIsNone(t *testing.T) {
	t.Parallel()

	rates := []float64{1, 1}
	for _, tt := range []struct {
		name string
		simulated
	}{
		{"one after the other", simulated{rates, calm, 0.5, 0}},
		{"warming up", simulated{rates, warming, 0.5, 0}},
		{"noisy, lengths that spread widely", simulated{rates, noisy, 0.8, 0}},
		{"in rounds", simulated{rates, calm, 0.5, 40}},
		{"in rounds, slowing down by a fifth", simulated{rates, slowing, 0.5, 40}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := tt.count()
			t.Logf("%+v", n)
			if n.real > 10 {
				t.Errorf("a difference is called real in %d of %d trials, want at most 10", n.real, trials)
			}
			if n.beaten[0]+n.beaten[1] > 0 {
				t.Errorf("%v of equals are beaten, want none", n.beaten)
			}
		})
	}
}

// Half as fast is enough to be beaten, and the best is never dropped.
func TestTrialsNeverDropTheBest(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		simulated
	}{
		{"three", simulated{[]float64{1, 0.97, 0.5}, calm, 0.5, 0}},
		{"four, warming up for long", simulated{[]float64{1, 0.97, 0.9, 0.5}, law{60, 0, 0, 0.02, 5}, 0.5, 0}},
		{"five, of which two are the best", simulated{[]float64{1, 1, 0.97, 0.9, 0.5}, warming, 0.5, 0}},
		{"noisy", simulated{[]float64{1, 0.97, 0.9, 0.5}, noisy, 0.8, 0}},
		{"in rounds", simulated{[]float64{1, 0.97, 0.5}, calm, 0.5, 40}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := tt.count()
			t.Logf("%+v", n)
			for i, beaten := range n.beaten {
				if tt.rates[i] == 1 && beaten > 0 {
					t.Errorf("variant %d, the best, is dropped in %d of %d trials", i, beaten, trials)
				}
			}
			if last := n.beaten[len(n.beaten)-1]; last < trials/2 {
				t.Errorf("the one half as fast is beaten in %d of %d trials, want half of them", last, trials)
			}
		})
	}
}
