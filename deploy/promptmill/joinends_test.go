package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/sim"
)

// A worker whose string is revoked or expires in the middle of its shards says so and ends, with exit code 4. What it
// had in flight runs at another box, which notices nothing. Each request has one line in the end.
func TestJoinEndsInRun(t *testing.T) {
	if testing.Short() {
		t.Skip("takes proto.AckWait")
	}

	for what, tt := range map[string]struct {
		expires string
		revoke  bool
		said    string
	}{
		"revoked": {"30d", true, "refuses the join string box7: it was revoked"},
		"expired": {"12s", false, "refuses the join string box7: it expired at "},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()

			const requests, slots = 400, 8
			c := newCommand(t)
			c.serve()
			answer := sim.Config{Slots: slots, TTFT: 700 * time.Millisecond, Tokens: 10}
			gone, stays := newWatched(t, answer), newWatched(t, answer)
			in := c.input("in.jsonl", requests)
			c.must("submit", in, "--model", "sim", "--run", "out")
			_, log := c.start("worker", "--url", stays.url, "--name", "stays", "--concurrency", fmt.Sprint(slots),
				"--join", c.createJoin("stays", "30d"))
			box, boxLog := c.start("worker", "--url", gone.url, "--name", "gone", "--concurrency", fmt.Sprint(slots),
				"--join", c.createJoin("box7", tt.expires))
			poll(t, pollTime, "answers of both", func() bool {
				return gone.Succeeded() > slots && stays.Succeeded() > slots && gone.busy() == slots
			})

			if tt.revoke {
				c.must("join", "revoke", "box7")
			}

			if code := waitExit(t, box, boxLog, patience); code != 4 || !strings.Contains(boxLog.String(), tt.said) {
				t.Errorf("exit code %d, want 4 and %q:\n%s", code, tt.said, boxLog)
			}

			meta := c.ended("out", bus.AckWait+time.Minute)
			c.verified(in, "out")
			if n := meta.Manifest.Counts.Duplicates; n != 0 {
				t.Errorf("%d lines came twice", n)
			}
			if strings.Contains(log.String(), "lost the bus") {
				t.Errorf("the other box noticed:\n%s", log)
			}

			// In flight are the requests at the server, answers that were not stored, and what the worker begins until
			// its second try to connect is refused.
			asked := len(gone.questions()) + len(stays.questions())
			t.Logf("%d of %d requests were asked twice, with %d in flight", asked-requests, requests, slots)
			if asked <= requests || asked > requests+5*slots {
				t.Errorf("%d requests were asked, of %d: want those in flight twice, and no others", asked, requests)
			}
		})
	}
}

// createJoin makes a join string for a box.
func (c command) createJoin(name, expires string) string {
	c.t.Helper()
	stdout, _, code := c.output("join", "create", name, "--expires", expires)
	if code != 0 || strings.Count(stdout, "\n") != 1 || !strings.HasPrefix(stdout, "pm1_") {
		c.t.Fatalf("join create prints %q, exit code %d", stdout, code)
	}
	return strings.TrimSpace(stdout)
}
