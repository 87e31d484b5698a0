package worker

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

func TestUsage(t *testing.T) {
	t.Parallel()

	meter := func(joules float64) []proto.GPU { return []proto.GPU{{EnergyJoules: &joules}, {}} }
	u := newUsage()
	if got := u.snapshot(meter(100), true); len(got) != 0 {
		t.Errorf("usage before any request: %v", got)
	}

	u.countRedelivery("r")
	u.countRedelivery("done already")
	check := func(what string, cards []proto.GPU, want map[string]proto.RunUsage) {
		t.Helper()
		if diff := cmp.Diff(want, u.snapshot(cards, false)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}

	check("redelivered shards, and no request", meter(110), map[string]proto.RunUsage{
		"r": {EnergyJoules: new(0.0), Redeliveries: 1}, "done already": {EnergyJoules: new(0.0), Redeliveries: 1},
	})

	for _, run := range []string{"r", "other", "r", "r"} {
		u.countRequest(run, attemptCost{})
	}

	u.countRedelivery("r")
	check("requests of two runs", meter(140), map[string]proto.RunUsage{
		"r": {Requests: 3, EnergyJoules: new(30.0), Redeliveries: 2}, "other": {Requests: 1, EnergyJoules: new(10.0)},
		"done already": {EnergyJoules: new(0.0), Redeliveries: 1},
	})

	u.retainRuns(func(run string) bool { return run != "r" && run != "done already" })
	u.countRequest("r", attemptCost{})
	check("a run that continues", meter(145), map[string]proto.RunUsage{
		"r":     {Requests: 1, EnergyJoules: new(5.0)},
		"other": {Requests: 1, EnergyJoules: new(10.0)},
	})
}

// What the cards take while the worker has nothing to do is of no run.
func TestEnergyOfAnIdleWorker(t *testing.T) {
	t.Parallel()

	meter := func(joules float64) []proto.GPU { return []proto.GPU{{EnergyJoules: &joules}} }
	u := newUsage()
	const idle, busy = true, false
	u.snapshot(meter(100), idle)
	u.snapshot(meter(50_000), idle) // hours later

	u.snapshot(meter(50_030), busy) // a long answer
	u.countRequest("r", attemptCost{})
	u.snapshot(meter(50_040), idle)
	u.snapshot(meter(90_000), idle)

	u.countRequest("r", attemptCost{}) // a short one, between two snapshots
	got := u.snapshot(meter(90_002), idle)

	want := map[string]proto.RunUsage{"r": {Requests: 2, EnergyJoules: new(42.0)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
}

func TestUsageWithoutMeters(t *testing.T) {
	t.Parallel()

	u := newUsage()
	u.countRedelivery("r")
	u.countRedelivery("done already")
	u.countRequest("r", attemptCost{})

	want := map[string]proto.RunUsage{
		"r":            {Requests: 1, Redeliveries: 1},
		"done already": {EnergyJoules: new(0.0), Redeliveries: 1},
	}
	if diff := cmp.Diff(want, u.snapshot([]proto.GPU{{}}, false)); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
}
