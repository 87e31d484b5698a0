package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/worker/sim"
)

// While a run works, its status has the rate and the remaining time, and results that are not in
// the synced output yet; while it is paused, neither rate nor time.
func TestStatusShowsProgress(t *testing.T) {
	t.Parallel()

	const slots, seconds = 4, 0.1
	c := newCommand(t)
	_, out := c.start("serve", "--listen", "127.0.0.1:0", "--flush", "60s")
	poll(t, pollTime, "the bus", func() bool { return strings.Contains(out.String(), "serving ") })
	m := newModel(t, sim.Config{TTFT: 100 * time.Millisecond, Tokens: 1})
	c.start("worker", "--url", m.url, "--concurrency", "4")
	c.must("submit", c.input("in.jsonl", 5000), "--model", "sim", "--run", "r", "--label", "works")

	look := func() status.Progress {
		var found struct{ Runs []status.Run }
		must(t, json.Unmarshal([]byte(c.must("status", "works", "--json")), &found))
		return found.Runs[0].Progress
	}

	var p status.Progress
	poll(t, pollTime, "a rate", func() bool {
		p = look()
		return p.RequestsPerS != nil && *p.RequestsPerS > 0
	})

	if p.Done == 0 || p.Durable != 0 || p.Total != 5000 || *p.RequestsPerS > 1.2*slots/seconds {
		t.Errorf("progress %+v at %.1f requests/s, want at most %.0f", p, *p.RequestsPerS, slots/seconds)
	}

	// The collector estimates the rest once it has seen some seconds.
	poll(t, pollTime, "a remaining time", func() bool {
		p = look()
		return p.RemainingS != nil
	})

	if left := float64(p.Total - p.Done); *p.RemainingLowS > *p.RemainingS || *p.RemainingS > *p.RemainingHighS ||
		*p.RemainingHighS < left/(slots/seconds) {
		t.Errorf("%.0f s remain, %.0f to %.0f; %.0f requests take %.0f s at least", *p.RemainingS, *p.RemainingLowS,
			*p.RemainingHighS, left, left/(slots/seconds))
	}

	c.must("pause", "works")
	if p := look(); p.RequestsPerS != nil || p.RemainingS != nil || p.RemainingLowS != nil || p.RemainingHighS != nil ||
		p.Done == 0 {
		t.Errorf("progress of a paused run: %+v", p)
	}
}
