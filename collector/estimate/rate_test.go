package estimate

import (
	"math"
	"testing"
)

// The points are those of tables of Student's distribution (two-sided 90 % and 99.9 %).
func TestStudentT(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		confidence, freedom, want float64
	}{
		{0.9, 4, 2.132}, {0.9, 6, 1.943}, {0.9, 10, 1.812}, {0.9, 30, 1.697}, {0.9, 1e9, 1.645},
		{0.999, 4, 8.610}, {0.999, 6, 5.959}, {0.999, 10, 4.587}, {0.999, 30, 3.646}, {0.999, 1e9, 3.291},
	} {
		got := StudentT(NormalPoint(tt.confidence), tt.freedom)
		if math.Abs(got/tt.want-1) > 0.015 {
			t.Errorf("%v at %v degrees: %.3f, want %.3f", tt.confidence, tt.freedom, got, tt.want)
		}
	}
}

// What gives no estimate gives no rate, for the same reason.
func TestARunThatIsNoBasisHasNoRate(t *testing.T) {
	t.Parallel()

	for _, run := range []Run{{Requests: 10, Seconds: 7.2}, {Requests: 5000, Seconds: 2183}, steadyRun(300), {}} {
		e, r := Of(run, 5000, 0), RateOf(run, 0.9)
		if r != (Rate{Problem: e.Problem, Needed: e.Needed}) || r.Problem == NoProblem {
			t.Errorf("rate %+v, and estimate %+v", r, e)
		}
	}
}

// The last points of a run that was cut off are steady: without them the rate is less sure.
func TestARunThatWasCutOffHasNoTail(t *testing.T) {
	t.Parallel()

	run := cutOff(steadyRun(3000), 600)
	whole := RateOf(run, 0.9)
	run.CutOff = false
	without := RateOf(run, 0.9)
	if whole.Problem != NoProblem || whole.High-whole.Low >= without.High-without.Low {
		t.Errorf("%+v with the last points, and %+v without", whole, without)
	}
}

func TestARateThatGrows(t *testing.T) {
	t.Parallel()

	run := Run{Requests: 6000, Concurrency: 20, MeanLatency: 1, CutOff: true}
	for i := range 120 {
		run.Points = append(run.Points, Point{Seconds: 1, Done: 50 * float64(1+i%2), InFlight: 20})
	}
	if r := RateOf(run, 0.9); r.Growth < 0.95 || r.Growth > 1.05 {
		t.Errorf("steady: %+v, want 1", r)
	}

	for i := range run.Points {
		run.Points[i].Done += float64(i)
	}
	if r := RateOf(run, 0.9); r.Growth < 1.1 {
		t.Errorf("growing: %+v, want more than 1", r)
	}
}

// cutOff returns a run as it is after some requests.
func cutOff(run Run, requests float64) Run {
	run.CutOff = true
	var sum float64
	for i, p := range run.Points {
		if sum += p.Done; sum >= requests {
			run.Points = run.Points[:i+1]
			break
		}
	}

	run.Requests, run.Seconds = int(sum), 0

	return run
}
