package worker

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

func TestShares(t *testing.T) {
	t.Parallel()

	meter := func(joules float64) []proto.GPU { return []proto.GPU{{EnergyJoules: &joules}, {}} }
	var s shares
	if got := s.now(meter(100)); len(got) != 0 {
		t.Errorf("before anything: %v", got)
	}

	s.redelivered("r")
	s.redelivered("done already")
	check := func(what string, cards []proto.GPU, want map[string]proto.RunUsage) {
		t.Helper()
		if diff := cmp.Diff(want, s.now(cards)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}

	check("shards came again, and nothing was run", meter(110), map[string]proto.RunUsage{
		"r": {EnergyJoules: new(0.0), Redeliveries: 1}, "done already": {EnergyJoules: new(0.0), Redeliveries: 1},
	})

	for _, run := range []string{"r", "other", "r", "r"} {
		s.ended(run)
	}

	s.redelivered("r")
	check("requests of two runs", meter(140), map[string]proto.RunUsage{
		"r": {Requests: 3, EnergyJoules: new(30.0), Redeliveries: 2}, "other": {Requests: 1, EnergyJoules: new(10.0)},
		"done already": {EnergyJoules: new(0.0), Redeliveries: 1},
	})

	s.keep(func(run string) bool { return run != "r" && run != "done already" })
	s.ended("r")
	check("one that goes on", meter(145), map[string]proto.RunUsage{
		"r":     {Requests: 1, EnergyJoules: new(5.0)},
		"other": {Requests: 1, EnergyJoules: new(10.0)},
	})
}

func TestSharesWithoutMeters(t *testing.T) {
	t.Parallel()

	var s shares
	s.redelivered("r")
	s.redelivered("done already")
	s.ended("r")

	want := map[string]proto.RunUsage{
		"r":            {Requests: 1, Redeliveries: 1},
		"done already": {EnergyJoules: new(0.0), Redeliveries: 1},
	}
	if diff := cmp.Diff(want, s.now([]proto.GPU{{}})); diff != "" {
		t.Errorf("shares (-want +got):\n%s", diff)
	}
}
