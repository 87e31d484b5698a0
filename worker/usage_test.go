package worker

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

func TestShares(t *testing.T) {
	t.Parallel()

	meter := func(joules float64) []proto.GPU { return []proto.GPU{{EnergyJoules: &joules}, {}} }
	var s usage
	if got := s.snapshot(meter(100)); len(got) != 0 {
		t.Errorf("before anything: %v", got)
	}

	s.countRedelivery("r")
	s.countRedelivery("done already")
	check := func(what string, cards []proto.GPU, want map[string]proto.RunUsage) {
		t.Helper()
		if diff := cmp.Diff(want, s.snapshot(cards)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}

	check("shards came again, and nothing was run", meter(110), map[string]proto.RunUsage{
		"r": {EnergyJoules: new(0.0), Redeliveries: 1}, "done already": {EnergyJoules: new(0.0), Redeliveries: 1},
	})

	for _, run := range []string{"r", "other", "r", "r"} {
		s.countRequest(run)
	}

	s.countRedelivery("r")
	check("requests of two runs", meter(140), map[string]proto.RunUsage{
		"r": {Requests: 3, EnergyJoules: new(30.0), Redeliveries: 2}, "other": {Requests: 1, EnergyJoules: new(10.0)},
		"done already": {EnergyJoules: new(0.0), Redeliveries: 1},
	})

	s.retain(func(run string) bool { return run != "r" && run != "done already" })
	s.countRequest("r")
	check("one that goes on", meter(145), map[string]proto.RunUsage{
		"r":     {Requests: 1, EnergyJoules: new(5.0)},
		"other": {Requests: 1, EnergyJoules: new(10.0)},
	})
}

func TestSharesWithoutMeters(t *testing.T) {
	t.Parallel()

	var s usage
	s.countRedelivery("r")
	s.countRedelivery("done already")
	s.countRequest("r")

	want := map[string]proto.RunUsage{
		"r":            {Requests: 1, Redeliveries: 1},
		"done already": {EnergyJoules: new(0.0), Redeliveries: 1},
	}
	if diff := cmp.Diff(want, s.snapshot([]proto.GPU{{}})); diff != "" {
		t.Errorf("shares (-want +got):\n%s", diff)
	}
}
