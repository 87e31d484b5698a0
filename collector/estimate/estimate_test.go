package estimate

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var steady = law{32, lognormal(8, 0.5), nil}

// bursting is a run whose rate is as unsure as can be, with nothing done at the beginning.
func bursting() Run {
	run := Run{Requests: 50_000, Seconds: 12.3, Concurrency: 64, Workers: 1, MeanLatency: 0.0124, MaxLatency: 0.094}
	for _, done := range []float64{0, 958, 3506, 3075, 3812, 4516, 4936, 4643, 4098, 4324, 4329, 4705, 4391, 2707} {
		run.Points = append(run.Points, Point{Seconds: 1, Done: done, InFlight: 64})
	}
	run.Points[len(run.Points)-1].Seconds = 0.0286
	return run
}

func steadyRun(requests int) Run { return steady.run(rand.New(rand.NewPCG(7, 7)), requests) }

func TestARunThatIsNoBasisGetsNoInterval(t *testing.T) {
	t.Parallel()

	without := steadyRun(5000)
	without.Points = nil
	long := steadyRun(300)
	long.Concurrency = 0 // as the points have it

	for _, tt := range []struct {
		name string
		run  Run
		job  int
		want Estimate
	}{
		{"ten requests, 100", Run{Requests: 10, Seconds: 7.211113}, 100,
			Estimate{Requests: 100, Naive: 72.11113, Problem: TooFew, Needed: 100}},
		{"ten requests, 5,000", Run{Requests: 10, Seconds: 7.211113}, 5000,
			Estimate{Requests: 5000, Naive: 3605.5565, Problem: TooFew, Needed: 100}},
		{"ten requests, 50,000", Run{Requests: 10, Seconds: 7.211113}, 50_000,
			Estimate{Requests: 50_000, Naive: 36055.565, Problem: TooFew, Needed: 100}},
		{"ten requests, 200,000", Run{Requests: 10, Seconds: 7.211113}, 200_000,
			Estimate{Requests: 200_000, Naive: 144222.26, Problem: TooFew, Needed: 100}},
		{"fewer than three for each in flight", Run{Requests: 767, Seconds: 767, Concurrency: 256}, 1000,
			Estimate{Requests: 1000, Naive: 1000, Problem: TooFew, Needed: 768}},
		{"5,000 without a series", Run{Requests: 5000, Seconds: 2183.026}, 50_000,
			Estimate{Requests: 50_000, Naive: 21830.26, Problem: NoSeries}},
		{"full for too short a time", long, 5000,
			Estimate{Requests: 5000, Workers: 1, Naive: long.Seconds / 300 * 5000, Problem: TooShort, Needed: 393}},
		{"nothing", Run{}, 100, Estimate{Requests: 100, Problem: TooFew, Needed: 100}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, Of(tt.run, tt.job, 0), cmpopts.EquateApprox(1e-9, 0)); diff != "" {
				t.Errorf("estimate (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARunOfTheLengthThatIsNeededDoes(t *testing.T) {
	t.Parallel()

	for i := range uint64(100) {
		rng := rand.New(rand.NewPCG(2, i))
		e := Of(steady.run(rng, 200), 5000, 0)
		if e.Problem == NoProblem {
			continue
		}

		if got := Of(steady.run(rng, e.Needed), 5000, 0); got.Problem != NoProblem {
			t.Errorf("200 requests are said to need %d, and those: %q", e.Needed, got.Problem)
		}
	}
}

func TestTheIntervalIsOrderedAndGrowsWithTheJob(t *testing.T) {
	t.Parallel()

	for name, run := range map[string]Run{
		"steady":   steadyRun(3000),
		"warming":  law{32, lognormal(8, 0.5), warming(60)}.run(rand.New(rand.NewPCG(1, 1)), 3000),
		"drifting": law{32, lognormal(8, 0.5), drifting(0.3, 300)}.run(rand.New(rand.NewPCG(1, 1)), 3000),
		"heavy":    law{32, pareto(8, 1.5), nil}.run(rand.New(rand.NewPCG(1, 1)), 3000),
		"bursting": bursting(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var last Estimate
			for job := 1; job < 10_000_000; job += 1 + job/3 {
				e := Of(run, job, 0)
				if !(0 < e.Low && e.Low <= e.Median && e.Median <= e.High) {
					t.Errorf("not in order: %+v", e)
				}

				if e.Low < last.Low || e.Median < last.Median || e.High < last.High {
					t.Errorf("%d requests take %+v, and %d take %+v", last.Requests, last, job, e)
				}

				last = e
			}
		})
	}
}

// A job that is over before the start-up is, or takes some intervals only, is not known to
// the hundredth of a second.
func TestAShortJobHasAnInterval(t *testing.T) {
	t.Parallel()
	run := law{64, lognormal(0.3, 0.3), warming(20)}.run(rand.New(rand.NewPCG(1, 1)), 5000)
	for _, job := range []int{1, 100, 400} {
		if e := Of(run, job, 0); e.High-e.Low < 0.5 {
			t.Errorf("%d requests take %.2f s to %.2f s, from a series of intervals of a second", job, e.Low, e.High)
		}
	}
}

// That fewer requests were left than came in the last interval does not mean no tail.
func TestATailShorterThanAnIntervalIsOne(t *testing.T) {
	t.Parallel()
	points := slices.Repeat([]Point{{Seconds: 1, Done: 200, InFlight: 64}}, 60)
	e := Of(Run{Points: points, Requests: 12_000, MeanLatency: 0.3, MaxLatency: 0.6}, 64, 0)
	if e.Median < 0.4 || e.High > 1.2 {
		t.Errorf("as many as fit at once, of up to 0.6 s each, take %.2f s, at most %.2f s", e.Median, e.High)
	}
}

func TestTheSameRunGivesTheSameEstimate(t *testing.T) {
	t.Parallel()
	run := steadyRun(3000)
	if diff := cmp.Diff(Of(run, 5000, 0), Of(run, 5000, 0)); diff != "" {
		t.Errorf("second estimate (-first +second):\n%s", diff)
	}
}

func TestFarBeyondTheRunTheIntervalIsWider(t *testing.T) {
	t.Parallel()

	run := steadyRun(5000)
	width := func(job int) float64 {
		e := Of(run, job, 0)
		return (e.High - e.Low) / e.Median
	}

	near, far, further := width(20_000), width(200_000), width(2_000_000)
	t.Logf("5,000: %.1f%%, 20,000: %.1f%%, 200,000: %.1f%%, 2,000,000: %.1f%%",
		100*width(5000), 100*near, 100*far, 100*further)
	if far <= near || further <= far {
		t.Errorf("width for 20,000 %.3f, for 200,000 %.3f, for 2,000,000 %.3f; want them to grow", near, far, further)
	}
}

func TestOtherWorkersScaleTheRateAndWidenTheInterval(t *testing.T) {
	t.Parallel()

	run := steadyRun(5000)
	run.Workers = 2

	as, twice := Of(run, 100_000, 0), Of(run, 100_000, 4)
	if as.Workers != 2 || twice.Workers != 4 {
		t.Errorf("workers are %d and %d, want 2 and 4", as.Workers, twice.Workers)
	}

	if ratio := as.Median / twice.Median; ratio < 1.9 || ratio > 2.1 {
		t.Errorf("twice the workers are %.2f times as fast, want about 2", ratio)
	}

	if as.Naive != 2*twice.Naive {
		t.Errorf("naive: %.0f s, and %.0f s with twice the workers", as.Naive, twice.Naive)
	}

	alike, unlike := run, run
	alike.WorkerRates = []float64{2, 2}
	unlike.WorkerRates = []float64{1, 3}

	width := func(r Run) float64 {
		e := Of(r, 100_000, 4)
		return (e.High - e.Low) / e.Median
	}
	if a, b, c := width(alike), width(run), width(unlike); !(a < b && b < c) {
		t.Errorf("widths with workers alike, unknown, unlike: %.3f, %.3f, %.3f; want them to grow", a, b, c)
	}
}

func TestPausesAreNotTheFleetsSpeed(t *testing.T) {
	t.Parallel()
	run := steadyRun(5000)
	want := Of(run, 50_000, 0)
	run.Points = slices.Insert(slices.Clone(run.Points), 500, slices.Repeat([]Point{{Seconds: 1}}, 1000)...)
	if diff := cmp.Diff(want, Of(run, 50_000, 0)); diff != "" {
		t.Errorf("with a pause (-without +with):\n%s", diff)
	}
}

func FuzzOf(f *testing.F) {
	for _, run := range []Run{steadyRun(10), steadyRun(300), steadyRun(1000), bursting()} {
		var b []byte
		for _, p := range run.Points {
			for _, v := range []float64{p.Seconds, p.Done, p.InFlight} {
				b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
			}
		}

		f.Add(b, run.Requests, run.Seconds, run.Concurrency, max(run.MeanLatency, 8), 1, 5000, 2)
	}

	f.Add([]byte{}, 0, math.NaN(), math.Inf(1), -1.0, -1, math.MaxInt, math.MaxInt)
	f.Fuzz(func(
		t *testing.T, b []byte, requests int, seconds, concurrency, latency float64, workers, job, jobWorkers int,
	) {
		run := Run{Requests: requests, Seconds: seconds, Concurrency: concurrency, Workers: workers,
			WorkerRates: []float64{seconds, concurrency, latency}, MeanLatency: latency, MaxLatency: seconds}
		for len(b) >= 24 && len(run.Points) < 2000 {
			v := func(i int) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:])) }
			run.Points = append(run.Points, Point{v(0), v(1), v(2)})
			b = b[24:]
		}

		e := Of(run, job, jobWorkers)
		for _, v := range []float64{e.Low, e.Median, e.High, e.Naive} {
			if !(v >= 0) || math.IsInf(v, 0) {
				t.Fatalf("not a time: %+v", e)
			}
		}

		if e.Low > e.Median || e.Median > e.High || e.Needed < 0 {
			t.Fatalf("not in order: %+v", e)
		}

		for _, confidence := range []float64{0.9, 0.999} {
			r := RateOf(run, confidence)
			if !(0 <= r.Low && r.Low <= r.Median && r.Median <= r.High) || math.IsInf(r.Median, 0) ||
				r.Problem != e.Problem || (r.Problem != NoProblem) != (r.Median == 0) {
				t.Fatalf("rate %+v, and estimate %+v", r, e)
			}
		}

		if e.Problem != NoProblem && (e.High != 0 || e.Problem != NoSeries && e.Needed <= min(requests, most)) {
			t.Fatalf("a problem with an interval, or a problem that such a run would solve: %+v", e)
		}
	})
}
