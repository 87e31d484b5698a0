package main

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker/sim"
)

// A run that a limit has stopped, and whose process is killed before it ends, has left the pause on
// its bus. The next start continues it all the same.
func TestKilledWhileStoppedByALimit(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	in := c.input("in.jsonl", 400)
	// Requests that hang keep the process from its end.
	faulty := newModel(t, sim.Config{TTFT: 5 * time.Millisecond, Faults: sim.Faults{"context": 0.2, "hang": 0.05}})
	args := []string{
		"run", in, "-o", "out.jsonl.zst", "--concurrency", "16", "--max-failures", "5", "--flush", "100ms",
		"--progress", "none", "--url",
	}

	cmd, out := c.start(append(args, faulty.url)...)
	poll(t, patience, "the stop", func() bool { return strings.Contains(out.String(), "stopping: ") })
	cmd.Process.Kill()
	cmd.Wait()
	if strings.Contains(out.String(), "error: ") {
		t.Fatalf("the run has ended before it was killed:\n%s", out)
	}

	good := newModel(t, sim.Config{})
	text, code := c.run(append(args, good.url)...)
	for _, want := range []string{
		`the run was stopped by the limit failed>5; it continues`,
		`error: the run is complete, and the limit failed>5 is reached: \d+ of 400 requests failed`,
	} {
		if code != exit.CodeLimit || !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("exit code %d, want %q in:\n%s", code, want, text)
		}
	}

	c.proved(in)
}
