package trial

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/metadata"
)

// Ten requests against 5,000 are what people compared by hand: 39 % slower, in requests and in tokens, and ten are too
// few to say so.
func TestTenRequestsAreTooFewToSay(t *testing.T) {
	t.Parallel()

	read := func(path string) *metadata.Run {
		run, err := metadata.Read("../metadata/testdata/" + path)
		if err != nil {
			t.Fatal(err)
		}
		return run
	}
	a, b := read("seed.meta.json"), read("baseline.meta.json")

	got := CompareSpeeds(Variant{Run: a}, Variant{Run: b})
	want := Difference{Ratio: 10 / 7.211113 / (5000 / 2183.026), Problem: estimate.TooFew, Needed: 100}
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
		t.Errorf("difference (-want +got):\n%s", diff)
	}

	if slower := math.Round(100 * (1 - got.Ratio)); slower != 39 {
		t.Errorf("%v %% slower, want 39", slower)
	}

	tokens := *a.Results.ThroughputTokensPerSec / *b.Results.ThroughputTokensPerSec
	if math.Round(100*(1-tokens)) != 39 {
		t.Errorf("in tokens: %.4f times, want 39 %% slower", tokens)
	}

	back := CompareSpeeds(Variant{Run: b}, Variant{Run: a})
	if back.Problem != estimate.NoSeries || back.Needed != 100 || back.Real {
		t.Errorf("the other way round: %+v", back)
	}
}

func TestTwoIntervals(t *testing.T) {
	t.Parallel()

	slow, fast := Variant{Run: newRun(flow{120, 20, 0, 40})}, Variant{Run: newRun(flow{120, 40, 0, 40})}
	d := CompareSpeeds(slow, fast)
	if !d.Real || d.Paired || math.Abs(d.Ratio-20.5/40.5) > 0.01 || d.Low >= d.Ratio || d.High <= d.Ratio {
		t.Errorf("%+v, want about a half", d)
	}

	if d := CompareSpeeds(slow, slow); d.Real || d.Ratio != 1 {
		t.Errorf("against itself: %+v", d)
	}
}

// Both slow down by half from the first round to the last, and a is always a tenth faster.
func TestRoundsComeInPairs(t *testing.T) {
	t.Parallel()

	var a, b []flow
	var from []int
	for i := range 6 {
		rate := int64(100 - 10*i)
		a = append(a, flow{10, rate + rate/10, 0, 200}, flow{20, 0, 0, 0})
		b = append(b, flow{10, 0, 0, 0}, flow{10, rate, 0, 200}, flow{10, 0, 0, 0})
		from = append(from, 30*i)
	}

	mine := Variant{Run: newRun(a...), Rounds: newRounds(10, from...)}
	its := Variant{Run: newRun(b...), Rounds: newRounds(30, from...)}

	d := CompareSpeeds(mine, its)
	if !d.Paired || !d.Real || math.Abs(d.Ratio-1.1) > 0.01 || d.Low < 1.08 || d.High > 1.12 {
		t.Errorf("%+v, want 1.1 in pairs", d)
	}

	its.Rounds = its.Rounds[:4]
	if d := CompareSpeeds(mine, its); d.Paired {
		t.Errorf("four pairs are too few: %+v", d)
	}
}

// Five pairs are so few that their 99 % interval is twice as wide as that of 90 %. A cost is no surer than the speed that
// it follows from.
func TestCostIsNoSurerThanSpeed(t *testing.T) {
	t.Parallel()

	var a, b []flow
	var from []int
	for i, rate := range []int64{110, 106, 103, 103, 111} {
		a = append(a, flow{10, rate, 0, 200}, flow{20, 0, 0, 0})
		b = append(b, flow{10, 0, 0, 0}, flow{10, 100, 0, 200}, flow{10, 0, 0, 0})
		from = append(from, 30*i)
	}

	row := Row{
		Variant:            Variant{Run: newRun(a...), Rounds: newRounds(10, from...)},
		CostPer1000Answers: new(1.0),
	}
	best := Row{
		Variant:            Variant{Run: newRun(b...), Rounds: newRounds(30, from...)},
		CostPer1000Answers: new(1 / 1.065),
	}

	speed := CompareSpeeds(row.Variant, best.Variant)
	row.SpeedDifference = &speed
	cost := compareCosts(&row, &best)
	if !speed.Paired || speed.Real || speed.Low <= 1 {
		t.Fatalf("the speeds: %+v, want pairs that differ at 90 %% and not at 99 %%", speed)
	}
	if !cost.Paired || cost.Real || math.Abs(cost.Ratio-1.065) > 1e-9 ||
		math.Abs(cost.High/cost.Low-speed.High/speed.Low) > 1e-9 {
		t.Errorf("the costs: %+v, want them as sure as the speeds %+v", cost, speed)
	}
}
