package main

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// departureOf returns the departure of a worker in some metadata.
func departureOf(t *testing.T, meta *metadata.Run, name string) metadata.Departure {
	t.Helper()

	for _, d := range meta.Results.Departures {
		if d.Worker == name {
			return d
		}
	}

	t.Fatalf("no departure of %s among %+v", name, meta.Results.Departures)

	return metadata.Departure{}
}

// One worker uses its notice. The machine of another is gone in the middle of its own, and that of a third one without
// any. The run is complete, and its metadata say what each has cost.
func TestDepartureCosts(t *testing.T) {
	t.Parallel()

	const requests, slots, notice = 240, 4, 8 * time.Second

	c := newCommand(t)
	m := newModel(t, sim.Config{Slots: 4 * slots, TTFT: time.Second})
	c.serve()

	start := func(name string) func(syscall.Signal) {
		worker, said := c.start("worker", "--name", name, "--url", m.url, "--concurrency", fmt.Sprint(slots),
			"--grace", notice.String(), "--drain-on", "none")

		return func(s syscall.Signal) {
			must(t, worker.Process.Signal(s))
			if s == syscall.SIGKILL {
				worker.Wait()
				return
			}

			if name == "leaves" {
				t.Cleanup(func() {
					if code := waitExit(t, worker, said, patience); code != 0 {
						t.Errorf("exit code %d:\n%s", code, said)
					}
				})
			}
		}
	}

	start("stays")
	leaves, cut, vanishes := start("leaves"), start("cut"), start("vanishes")
	c.workers(4)
	in := c.input("in.jsonl", requests)
	c.must("submit", in, "--run", "r", "--model", "sim", "--shard-size", "4")
	poll(t, patience, "two rounds of answers", func() bool { return m.sim.Succeeded() >= 2*4*slots })

	leaves(syscall.SIGTERM)
	cut(syscall.SIGTERM)
	poll(t, patience, "the bus to know of both departures, and of requests at the third worker", func() bool {
		n := 0
		for _, w := range c.workers(4) {
			if w.Departure != nil || w.Name == "vanishes" && w.InFlight > 0 {
				n++
			}
		}
		return n == 3
	})
	cut(syscall.SIGKILL)
	vanishes(syscall.SIGKILL)

	meta := c.ended("r", patience)
	c.verified(in, "r")

	left := departureOf(t, meta, "leaves")
	t.Logf("used %.2f of the time, %d requests finished, %d handed back, %d thrown away",
		metadata.OrZero(left.TimeUsed), left.Finished, left.HandedBack, left.ThrownAway)

	used := metadata.OrZero(left.TimeUsed)
	if left.Reason != "SIGTERM" || left.LeftAt == nil || left.VanishedAt != nil || left.Finished < slots ||
		used <= 0.1 || used > 1 {
		t.Errorf("the worker that used its notice: %+v", left)
	}

	d := departureOf(t, meta, "cut")
	if d.NoticedAt == nil || d.LeftAt != nil || d.VanishedAt == nil || d.LostInFlight == 0 {
		t.Errorf("the worker that was gone in the middle of its notice: %+v", d)
	}

	if d := departureOf(t, meta, "vanishes"); d.NoticedAt != nil || d.VanishedAt == nil || d.LostInFlight == 0 {
		t.Errorf("the worker that was gone without a notice: %+v", d)
	}

	if n := len(meta.Results.Departures); n != 3 || meta.Status != proto.StateCompleted {
		t.Errorf("%d departures from the run, which is %s", n, meta.Status)
	}
}
