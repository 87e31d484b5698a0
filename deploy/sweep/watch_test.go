package sweep

import (
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/trial"
)

// A variant whose own figures are wanted is measured to its end. Others end once they are beaten.
func TestWholeIsNotBeaten(t *testing.T) {
	t.Parallel()

	for whole, want := range map[bool]trial.State{false: trial.Beaten, true: ""} {
		slow := &variant{
			Variant: trial.Variant{Name: "slow", State: trial.Running, Run: newRun(60, 10)},
			Spec:    Spec{Name: "slow", Whole: whole},
		}
		fast := &variant{Variant: trial.Variant{Name: "fast", State: trial.Measured, Run: newRun(120, 40)}}
		s := &sweeper{
			cfg: Config{
				Precision: 1e-6,
				Budget:    time.Hour,
				Goal:      trial.Throughput,
			},
			record: &record{Variants: []*variant{fast, slow}},
		}

		if d := s.judgeSpeed(slow, 0); d.State != want || d.End == whole {
			t.Errorf("whole %t: %+v, want %q", whole, d, want)
		}

		s.cfg.Budget = time.Minute
		if d := s.judgeSpeed(slow, time.Minute); !d.End || whole && d.State != trial.Measured {
			t.Errorf("whole %t after its budget: %+v", whole, d)
		}
	}
}

// newRun is the metadata of a run with about as many requests in each second.
func newRun(seconds int, requests int64) *metadata.Run {
	at := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	run := &metadata.Run{
		Timestamp: at,
		Results:   metadata.Results{LatencySeconds: &metadata.Distribution{Mean: 1, Max: 2}},
		Series:    &metadata.Series{},
	}
	run.Results.InferenceTimeSeconds = float64(seconds)
	run.Test.NumRequests = 1_000_000

	for i := range seconds {
		n := requests + int64(i%3)
		run.Series.Add(at.Add(time.Duration(i)*time.Second), metadata.Point{Requests: n, InFlight: new(int64(40))})
		run.Results.SuccessCount += int(n)
	}

	return run
}
