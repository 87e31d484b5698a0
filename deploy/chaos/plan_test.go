package main

import (
	"testing"
	"time"
)

func TestPlanFollowsFromSeed(t *testing.T) {
	t.Parallel()

	s := shape{seed: 5, time: 10 * time.Minute, workers: 3}
	first := text(plan(s))
	if again := text(plan(s)); again != first {
		t.Errorf("the same seed has another plan:\n%s\nand\n%s", first, again)
	}

	s.seed = 6
	if other := text(plan(s)); other == first {
		t.Error("another seed has the same plan")
	}
}

func TestPlanIsFair(t *testing.T) {
	t.Parallel()

	seen, last := map[string]bool{}, time.Duration(0)
	for seed := range uint64(50) {
		s := shape{seed: seed, time: 5 * time.Minute, workers: 3, nodes: int(seed%2) * 3}
		events := plan(s)
		type span struct{ from, to time.Duration }

		spans := map[string][]span{}
		for i, e := range events {
			seen[e.deed.name] = true
			if i > 0 && e.at < events[i-1].at {
				t.Errorf("seed %d: %s comes after a later event", seed, e)
			}

			if e.target == "" {
				t.Errorf("seed %d: %s has no target", seed, e)
			}

			if e.at+e.length > s.time {
				t.Errorf("seed %d: %s is not undone in the end", seed, e)
			}

			if e.deed.undo == nil {
				continue
			}

			for _, part := range e.deed.harms(e.target) {
				for _, other := range spans[part] {
					if e.at < other.to && other.from < e.at+e.length {
						t.Errorf("seed %d: %s comes while %s is hurt already", seed, e, part)
					}
				}
				spans[part] = append(spans[part], span{e.at, e.at + e.length})
			}

			last = max(last, e.length)
		}

		if n := len(events); n < 50 {
			t.Errorf("seed %d: only %d events in 5 minutes", seed, n)
		}
	}

	for _, d := range deeds {
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
		for _, e := range plan(shape{seed: seed, time: time.Minute, workers: 3, only: []string{"kill", "used id"}}) {
			if name := e.deed.name; name != "submit" && name != "kill" && name != "used id" {
				t.Errorf("seed %d: %s", seed, e)
			}
		}
	}
}
