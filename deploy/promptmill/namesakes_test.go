package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/promptmill/promptmill/worker/sim"
)

// Two workers of one name, on one host and with one card, are two: each is shown with a
// part of its id, does its part of the run, and the card's energy is counted once.
func TestTwoWorkersOfOneName(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as workers need to be heard some times")
	}

	t.Parallel()

	const requests, slots, watts = 700, 8, 100
	c := newCommand(t)
	c.serve()
	tools := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nwhile echo '0, GPU-1, Card, 1000, 10, %d, 50, 40, 1'; do sleep 0.2; done\n",
		watts)
	if err := os.WriteFile(filepath.Join(tools, "nvidia-smi"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}

	env := []string{"PATH=" + tools + ":" + os.Getenv("PATH")}
	servers := []*watched{
		newWatched(t, sim.Config{Slots: slots, TTFT: 200 * time.Millisecond, Tokens: 10}),
		newWatched(t, sim.Config{Slots: slots, TTFT: 200 * time.Millisecond, Tokens: 10}),
	}
	for _, s := range servers {
		c.startAs(env, "worker", "--url", s.url, "--name", "gpu1", "--concurrency", fmt.Sprint(slots))
	}

	workers := c.workers(2)
	if a, b := workers[0], workers[1]; a.Name != "gpu1" || b.Name != "gpu1" || a.ID == b.ID || a.Server == b.Server {
		t.Errorf("the workers are %+v and %+v", a, b)
	}

	shown := regexp.MustCompile(`(?m)^gpu1 \([a-z2-9]{4}\) +ready`)
	for _, command := range []string{"workers", "status"} {
		if text := c.must(command); len(shown.FindAllString(text, -1)) != 2 {
			t.Errorf("promptmill %s does not distinguish the workers:\n%s", command, text)
		}
	}

	in := c.input("in.jsonl", requests)
	begin := time.Now()
	c.must("submit", in, "--model", "sim", "--run", "out")
	meta := c.ended("out", patience)
	took := time.Since(begin).Seconds()
	c.verified(in, "out")

	if len(meta.Workers) != 2 {
		t.Fatalf("the metadata has %d workers, want 2: %+v", len(meta.Workers), meta.Workers)
	}

	sum := int64(0)
	for _, w := range meta.Workers {
		if w.Name != "gpu1" || w.Label == "" || w.ID == "" || w.Requests == nil || *w.Requests < requests/4 ||
			len(w.Sessions) != 1 {
			t.Errorf("worker %+v", w)
			continue
		}
		sum += *w.Requests
	}

	if sum*100 < requests*95 || sum*100 > requests*105 { // a shard that comes again counts twice
		t.Errorf("the workers report %d requests, want %d", sum, requests)
	}

	// The card took its watts for as long as the run took, and a moment before.
	if e := meta.Results.EnergyJoules; e == nil || *e > 1.15*watts*(took+1) || *e < 0.5*watts*(took-3) {
		t.Errorf("energy %v J, for %.1f s at %d W", deref(e), took, watts)
	}
}

func deref(p *float64) float64 {
	if p == nil {
		return -1
	}
	return *p
}
