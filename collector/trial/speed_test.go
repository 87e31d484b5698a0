package trial

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/metadata"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// flow is what a server does in each second of a time.
type flow struct {
	seconds        int
	requests       int64
	failed, flight int64
}

// newRun is a cancelled run of which each request took two seconds.
func newRun(flows ...flow) *metadata.Run {
	run := &metadata.Run{
		Timestamp: noon,
		Test:      metadata.Test{NumRequests: 1_000_000},
		Results:   metadata.Results{LatencySeconds: &metadata.Distribution{Mean: 2, Max: 3}},
		Series:    &metadata.Series{},
	}

	at := noon
	for _, f := range flows {
		for i := range f.seconds {
			jitter := int64(i%2) * min(1, f.requests)
			run.Series.Add(at, metadata.Point{Requests: f.requests + jitter, Failed: f.failed, InFlight: new(f.flight)})
			run.Results.SuccessCount += int(f.requests + jitter - f.failed)
			run.Results.FailureCount += int(f.failed)
			run.Results.InferenceTimeSeconds++
			at = at.Add(time.Second)
		}
	}

	return run
}

// newRounds are rounds of some seconds each, from some on.
func newRounds(seconds int, from ...int) (rounds []Round) {
	for i, f := range from {
		at := noon.Add(time.Duration(f) * time.Second)
		rounds = append(rounds, Round{i + 1, at, at.Add(time.Duration(seconds) * time.Second)})
	}
	return rounds
}

func TestTheSpeedIsThatOfTheFullServer(t *testing.T) {
	t.Parallel()

	busy := flow{seconds: 60, requests: 20, flight: 40}
	paused := flow{seconds: 30}
	draining := flow{seconds: 5, requests: 3, flight: 8}
	killed := newRun(busy, flow{seconds: 6, flight: 40}, busy)
	killed.Results.InterruptedAt = []metadata.Interruption{
		{From: noon.Add(60500 * time.Millisecond), To: noon.Add(65500 * time.Millisecond)},
	}
	ended := newRun(busy, busy, draining)
	ended.Test.NumRequests = ended.Results.SuccessCount
	turns := newRun(busy, paused, busy, draining, busy)

	for _, tt := range []struct {
		name   string
		run    *metadata.Run
		rounds []Round
		want   float64
	}{
		{"full all the time", newRun(busy, busy), nil, 20.5},
		{"failed requests are no answers", newRun(flow{120, 20, 5, 40}), nil, 15.5},
		{"a pause and what drains before it", newRun(busy, draining, paused, busy), nil, 20.5},
		{"a kill", killed, nil, 20.5},
		{"a tail", ended, nil, 20.5},
		{"rounds", turns, newRounds(60, 0, 90, 155), 20.5},
		{"rounds at parts of seconds", turns, []Round{
			{1, noon.Add(1500 * time.Millisecond), noon.Add(58500 * time.Millisecond)},
			{2, noon.Add(91500 * time.Millisecond), noon.Add(149 * time.Second)},
		}, 20.5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := MeasureSpeed(Variant{Run: tt.run, Rounds: tt.rounds})
			if s.Problem != "" || math.Abs(s.Rate-tt.want) > 0.2 || s.Low > s.Rate || s.High < s.Rate ||
				s.least > s.Low || s.most < s.High {
				t.Errorf("%+v, want %.1f", s, tt.want)
			}
		})
	}
}

// What comes after the time at which enough was known does not count: the run was being ended, and its server was not
// full.
func TestTheEndOfARunDoesNotCount(t *testing.T) {
	t.Parallel()

	run := newRun(flow{60, 20, 0, 40}, flow{30, 7, 0, 40})
	all := MeasureSpeed(Variant{Run: run})
	until := MeasureSpeed(Variant{Run: run, MeasuredUntil: noon.Add(60500 * time.Millisecond)})
	if math.Abs(until.Rate-20.5) > 0.2 || all.Rate > 18 {
		t.Errorf("%.1f requests/s until the end and %.1f with it, want 20.5 and fewer than 18", until.Rate, all.Rate)
	}
}

// While the workers find how many requests the server takes at once, its speed is not that of a longer run.
func TestTheSearchForTheLimitDoesNotCount(t *testing.T) {
	t.Parallel()

	run := newRun(flow{30, 10, 0, 16}, flow{30, 14, 0, 32}, flow{30, 20, 0, 64})
	run.Series.Limit = make([]*int64, run.Series.Len())
	for i := range run.Series.Limit {
		if i%3 == 0 { // not each second has a reading
			run.Series.Limit[i] = new(int64(16) << (i / 30))
		}
	}

	if s := MeasureSpeed(Variant{Run: run}); s.Problem != "" || math.Abs(s.Rate-20.5) > 0.3 {
		t.Errorf("%+v, want 20.5", s)
	}
}

// A second is left out if a part of it is outside, unless a round has no other.
func TestAPointThatIsPartlyOutside(t *testing.T) {
	t.Parallel()

	run := newRun(flow{10, 20, 0, 40}, flow{10, 0, 0, 0}, flow{10, 20, 0, 40})
	full := slices.Repeat([]bool{true}, 30)
	points := estimate.FromMetadata(run).Points
	at := func(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }
	for _, tt := range []struct {
		name     string
		from, to int // milliseconds
		want     []estimate.Point
	}{
		{"whole ones", 2900, 5100, []estimate.Point{{Seconds: 1, Done: 21, InFlight: 40}, {Seconds: 1, Done: 20, InFlight: 40}}},
		{"none is whole", 2250, 3500, []estimate.Point{{Seconds: 0.75, Done: 15, InFlight: 40}}},
		{"within one", 2250, 2500, []estimate.Point{{Seconds: 0.25, Done: 5, InFlight: 40}}},
		{"after the end", 40_000, 50_000, nil},
	} {
		got := pointsOf(Round{1, at(tt.from), at(tt.to)}, run.Series, points, full)
		if diff := cmp.Diff(tt.want, got, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestWhatIsTooShortHasAMeanRateOnly(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		run  *metadata.Run
		want Speed
	}{
		{"no run", nil, Speed{Problem: estimate.TooFew, Needed: 100}},
		{"nothing ended", newRun(flow{5, 0, 0, 40}), Speed{Problem: estimate.TooFew, Needed: 120}},
		{"ten requests", newRun(flow{1, 10, 0, 10}), Speed{Mean: 10, Problem: estimate.TooFew, Needed: 100}},
		{"all failed", newRun(flow{100, 20, 20, 10}), Speed{Mean: 0.5, Problem: estimate.TooFew, Needed: 100}},
	} {
		got := MeasureSpeed(Variant{Run: tt.run})
		if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreUnexported(Speed{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestPrecision(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		speed Speed
		want  bool
	}{
		{Speed{Rate: 10, Low: 9.8, High: 10.2}, true},
		{Speed{Rate: 10, Low: 9.7, High: 10.3}, false},
		{Speed{}, false},
		{Speed{Mean: 10, Problem: estimate.TooFew}, false},
	} {
		if got := tt.speed.IsPrecise(0.05); got != tt.want {
			t.Errorf("%+v: %v", tt.speed, got)
		}
	}
}

// A speed from a file lacks the interval at the certain level: it decides nothing.
func TestASpeedFromAFileBeatsNone(t *testing.T) {
	t.Parallel()

	slow := MeasureSpeed(Variant{Run: newRun(flow{120, 20, 0, 40})})
	fast := MeasureSpeed(Variant{Run: newRun(flow{120, 40, 0, 40})})
	if !slow.IsBeaten(fast) || fast.IsBeaten(slow) || slow.IsBeaten(slow) {
		t.Errorf("%+v against %+v", slow, fast)
	}

	text, err := json.Marshal(fast)
	if err != nil {
		t.Fatal(err)
	}

	var read Speed
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}

	if diff := cmp.Diff(fast, read, cmpopts.IgnoreUnexported(Speed{})); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}

	if slow.IsBeaten(read) || read.IsBeaten(fast) {
		t.Errorf("a speed from a file decides: %+v", read)
	}
}

// The mean rate is that of the rounds: a run counts as worked on in the pauses between them if they are short.
func TestTheMeanIsThatOfTheRounds(t *testing.T) {
	t.Parallel()

	run := newRun(flow{3, 30, 0, 60}, flow{3, 0, 0, 0}, flow{3, 30, 0, 60}, flow{3, 0, 0, 0})
	run.Results.InferenceTimeSeconds = 12
	v := Variant{Run: run, Rounds: newRounds(3, 0, 6)}
	if s := MeasureSpeed(v); s.Problem != estimate.TooFew && s.Problem != estimate.TooShort || s.Mean != 30 {
		t.Errorf("the speed is %+v, want a mean of 30 requests/s", s)
	}
}
