package remaining

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// The shown time is never negative and never jumps. While the run is paused there is none, and it
// goes on from where it was.
func TestIntervalNeverJumps(t *testing.T) {
	t.Parallel()

	for name, l := range map[string]law{
		"steady": {slots: 32, requests: 4000, length: exponential(4)},
		"warming up": {slots: 32, requests: 4000, length: always(
			func(r *rand.Rand, at float64) float64 { return (4 + 20*math.Exp(-at/60)) * r.ExpFloat64() },
		)},
		"slower": {slots: 32, requests: 4000, length: always(
			func(r *rand.Rand, at float64) float64 { return (4 + at/60) * r.ExpFloat64() },
		)},
		"faster": {slots: 32, requests: 4000, length: always(
			func(r *rand.Rand, at float64) float64 { return 8 / (1 + at/200) * r.ExpFloat64() },
		)},
		"in bursts": {slots: 64, requests: 4000, length: always(
			func(r *rand.Rand, _ float64) float64 { return 15 + r.Float64()/10 },
		)},
		"heavy tails": {slots: 32, requests: 2000, length: always(
			func(r *rand.Rand, _ float64) float64 { return math.Exp(1 + 1.2*r.NormFloat64()) },
		)},
		"paused": {slots: 32, requests: 4000, length: exponential(4), stop: 200, on: 900},
		"hanging": {slots: 32, requests: 4000, length: always(func(r *rand.Rand, at float64) float64 {
			if at > 200 && at < 204 {
				return 120
			}
			return 4 * r.ExpFloat64()
		})},
		"half as fast at once": {slots: 32, requests: 4000, length: always(func(r *rand.Rand, at float64) float64 {
			if at > 250 {
				return 8 * r.ExpFloat64()
			}
			return 4 * r.ExpFloat64()
		})},
		"one slot":       {slots: 1, requests: 300, length: always(func(*rand.Rand, float64) float64 { return 2 })},
		"a worker joins": {slots: 32, requests: 9000, length: exponential(4), more: 16, joins: 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var before moment // the last one with an interval
			worked := 0.0     // since then
			for _, m := range l.follow(1, 100) {
				if m.working {
					worked++
				}

				switch {
				case m.shown == nil && m.working && before.shown != nil && m.at > l.on:
					t.Fatalf("at %.0f s it is not known any more", m.at)
				case m.shown != nil && !m.working:
					t.Fatalf("at %.0f s it is shown in a pause", m.at)
				case m.shown == nil:
					continue
				case !(0 <= m.shown.Low && m.shown.Low <= m.shown.Expected && m.shown.Expected <= m.shown.High) ||
					math.IsInf(m.shown.High, 0):
					t.Fatalf("at %.0f s: %+v", m.at, m.shown)
				}

				if before.shown != nil {
					for _, b := range [][2]float64{
						{before.shown.Low, m.shown.Low},
						{before.shown.Expected, m.shown.Expected},
						{before.shown.High, m.shown.High},
					} {
						if jump := math.Abs(b[1] - max(0, b[0]-worked)); jump > worked*(1+b[0]/100)+1e-9 {
							t.Fatalf("at %.0f s: from %f to %f", m.at, b[0], b[1])
						}
					}
				}

				before, worked = m, 0
			}

			if before.shown == nil {
				t.Error("never known")
			}
		})
	}
}

// feed adds a sample for each second from, until another, of a run of 10 requests a second.
func feed(e *Estimator, from, until int, working bool) {
	for second := from; second < until; second++ {
		e.Add(Sample{
			At:       time.Unix(int64(second), 0),
			Done:     10 * second,
			Left:     10_000 - 10*second,
			InFlight: 20,
			Workers:  1,
			Working:  working,
		})
	}
}

// Nothing is known until ten blocks of a second were seen: the first answer begins the first one.
func TestUnknownAtFirst(t *testing.T) {
	t.Parallel()

	var e Estimator
	if feed(&e, 0, 11, true); e.Interval() != nil {
		t.Errorf("known after 10 s: %+v", e.Interval())
	}

	feed(&e, 11, 13, true)

	got := e.Interval()
	if got == nil {
		t.Fatal("unknown after 12 s")
	}

	// 10,000 - 120 requests at 10 a second, the last 20 of which take 2 s each, and one of them
	// ln 20 + 0.58 times as long.
	want := (9880-20)/10. + 2*(math.Log(20)+0.58)
	if math.Abs(got.Expected-want) > 1 || got.Low > 988 || got.High < want {
		t.Errorf("%+v, want some %.1f s", got, want)
	}
}

// The remaining time is unknown for a run without an answer so far, and for one that waits.
func TestUnknownWithoutWork(t *testing.T) {
	t.Parallel()

	var e Estimator
	for second := range 1000 {
		e.Add(Sample{At: time.Unix(int64(second), 0), Left: 100, InFlight: 20, Working: true})
	}

	if e.Interval() != nil {
		t.Errorf("known without an answer: %+v", e.Interval())
	}

	e = Estimator{}
	feed(&e, 0, 60, true)

	if e.Interval() == nil {
		t.Error("unknown after a minute")
	}

	feed(&e, 60, 61, false)

	if e.Interval() != nil {
		t.Errorf("known while it waits: %+v", e.Interval())
	}
}

// Once next to nothing ends, the time left grows beyond what a lease may have. It is unknown then, and never
// infinite.
func TestUnknownWhereItTakesDecades(t *testing.T) {
	t.Parallel()

	var e Estimator
	feed(&e, 0, 60, true)

	for second := 60; second < 20_000; second++ {
		e.Add(Sample{
			At:       time.Unix(int64(second), 0),
			Done:     600 + second/1000,
			Left:     1e9,
			InFlight: 20,
			Workers:  1,
			Working:  true,
		})

		if got := e.Interval(); got != nil && !(got.High <= longest) {
			t.Fatalf("after %d s: %+v", second, got)
		}
	}

	if got := e.Interval(); got != nil {
		t.Errorf("at last: %+v", got)
	}
}

// What was done while the process was stopped is not the work of a second.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()

	var e Estimator
	feed(&e, 0, 60, true)
	feed(&e, 600, 660, true) // with a backlog of 5,400

	if got := e.Interval(); got == nil || got.Low > 341 || got.High < 341 {
		t.Errorf("%+v, want 341 s", got)
	}
}

// The memory does not grow with the run.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()

	var e Estimator
	for second := range 400_000 {
		e.Add(Sample{
			At:       time.Unix(int64(second), 0),
			Done:     second,
			Left:     10_000_000 - second,
			InFlight: 20,
			Working:  true,
		})
	}

	if n, m := cap(e.blocks), cap(e.history.blocks); n > 100 || m > 100 {
		t.Errorf("room for %d and %d blocks", n, m)
	}
}
