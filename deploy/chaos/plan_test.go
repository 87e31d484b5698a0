package main

import (
	"testing"
	"time"
)

func TestPlanFollowsFromSeed(t *testing.T) {
	t.Parallel()

	s := shape{seed: 5, time: 10 * time.Minute, workers: 3}
	first := formatPlan(makePlan(s))
	if again := formatPlan(makePlan(s)); again != first {
		t.Errorf("the same seed has another plan:\n%s\nand\n%s", first, again)
	}

	s.seed = 6
	if other := formatPlan(makePlan(s)); other == first {
		t.Error("another seed has the same plan")
	}
}

func TestPlanIsFair(t *testing.T) {
	t.Parallel()

	seen, last := map[string]bool{}, time.Duration(0)
	for seed := range uint64(50) {
		s := shape{seed: seed, time: 5 * time.Minute, workers: 3, nodes: int(seed%2) * 3}
		events := makePlan(s)
		type span struct{ from, to time.Duration }

		spans := map[string][]span{}
		for i, e := range events {
			seen[e.kind.name] = true
			if i > 0 && e.at < events[i-1].at {
				t.Errorf("seed %d: %s comes after a later event", seed, e)
			}

			if e.target == "" {
				t.Errorf("seed %d: %s has no target", seed, e)
			}

			if e.at+e.duration > s.time {
				t.Errorf("seed %d: %s is not undone in the end", seed, e)
			}

			if e.kind.clear == nil {
				continue
			}

			for _, part := range e.kind.conflicts(e.target) {
				for _, other := range spans[part] {
					if e.at < other.to && other.from < e.at+e.duration {
						t.Errorf("seed %d: %s comes while %s has a fault already", seed, e, part)
					}
				}
				spans[part] = append(spans[part], span{e.at, e.at + e.duration})
			}

			last = max(last, e.duration)
		}

		if n := len(events); n < 50 {
			t.Errorf("seed %d: only %d events in 5 minutes", seed, n)
		}
	}

	for _, d := range faultKinds {
		if !seen[d.name] {
			t.Errorf("no seed has a %s", d.name)
		}
	}

	if last < 30*time.Second {
		t.Errorf("nothing lasts longer than %s, and a shard waits 30 s for its worker", last)
	}
}

func TestPlanOfSomeKinds(t *testing.T) {
	t.Parallel()

	for seed := range uint64(10) {
		for _, e := range makePlan(shape{
			seed:    seed,
			time:    time.Minute,
			workers: 3,
			only:    []string{"kill", "used id"},
		}) {
			if name := e.kind.name; name != "submit" && name != "kill" && name != "used id" {
				t.Errorf("seed %d: %s", seed, e)
			}
		}
	}
}
