package main

import (
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker/sim"
)

// Lines that are invalid are no failures of the model server, wherever a run is described.
func TestInvalidLinesAreNotSent(t *testing.T) {
	t.Parallel()

	m := newModel(t, sim.Config{Tokens: 5})
	c := newCommand(t)
	c.write("in.csv", string(tickets(30))+"no text,\n")
	run := []string{"run", "in.csv", "--prompt", "{{.text}}", "--skip-invalid", "--url", m.url, "--progress", "none",
		"-o", "out.jsonl.zst"}

	c.expect(exit.CodeFailed, "done: 30 answered, 0 failed, 1 not sent, in ", run...)
	c.expect(exit.CodeFailed, "error: 1 of 31 requests were not sent", run...)
	c.expect(exit.CodeOK, "31 requests: 30 answered, 0 failed, 1 not sent, 0 without a line", "verify", "in.csv",
		"out.jsonl.zst")
	c.expect(exit.CodeOK, "30 requests were answered, all that were sent; 1 was not sent, since it is invalid.",
		"report", "out.meta.json")

	if r := c.meta("out").Results; r.FailureCount != 1 || r.NotSentCount != 1 || r.CountSent() != 30 {
		t.Errorf("%d failed, %d not sent, %d sent; want 1, 1, 30", r.FailureCount, r.NotSentCount, r.CountSent())
	}
}

// A run that was cancelled before a worker came has no failures, and its output is whole.
func TestCancelledBeforeItsFirstRequest(t *testing.T) {
	t.Parallel()

	_, url := startNATS(t)
	c := newCommand(t)
	c.write("in.csv", string(tickets(20)))
	c.expect(exit.CodeOK, "", "submit", "in.csv", "--prompt", "{{.text}}", "--model", "sim", "--run", "r", "--nats", url)
	c.expect(exit.CodeOK, "", "cancel", "r", "--no-wait", "--nats", url)
	c.expect(exit.CodeFailed, "cancelled: 0 answered, 0 failed, 20 not sent", "collect", "r", "--nats", url,
		"--progress", "none", "-o", "out.jsonl.zst")
	c.expect(exit.CodeOK, "20 requests: 0 answered, 0 failed, 20 not sent, 0 without a line", "verify", "in.csv",
		"out.jsonl.zst")
	c.expect(exit.CodeOK, "No request was sent before the run was cancelled; 20 were not sent.", "report",
		"out.meta.json")
}
