package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/webhook"
	"github.com/promptmill/promptmill/worker/sim"
)

// saysEnd is a command for the end of a run.
const saysEnd = `echo "$PROMPTMILL_END_RUN $PROMPTMILL_END_STATE $PROMPTMILL_END_ANSWERED/$PROMPTMILL_END_FAILED ` +
	`$PROMPTMILL_END_OUTPUT $PROMPTMILL_END_META"; cat`

// The command runs once a run has ended, after all else is printed, and changes neither the exit code nor the
// product.
func TestOnEndOfRun(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	in := c.input("in.jsonl", 20)
	args := []string{
		"run", in, "--sim", "--run", "r", "--label", "the run", "-o", "out.jsonl.zst", "--json", "--on-end",
		saysEnd + "; echo $PROMPTMILL_END_LABEL; echo sorry >&2; exit 7",
	}
	stdout, stderr, code := c.output(args...)

	var meta metadata.Run
	if err := json.Unmarshal([]byte(stdout), &meta); err != nil || code != exit.CodeOK {
		t.Errorf("exit code %d, product %v:\n%s", code, err, stdout)
	}

	path := filepath.Join(c.dir, "out")
	for _, want := range []string{
		"--on-end: r completed 20/0 " + path + ".jsonl.zst " + path + ".meta.json\n",
		`"type":"batch.completed","data":{"id":"batch_r"}}` + "\n",
		"--on-end: the run\n--on-end: sorry\n",
		"the command of --on-end has failed; the run is as it was error=\"exit status 7: sorry\" run=r\n",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in\n%s", want, stderr)
		}
	}

	text, _ := c.run("run", in, "--sim", "-o", "table.csv", "--on-end", "echo table $PROMPTMILL_END_TABLE")
	if want := "--on-end: table " + filepath.Join(c.dir, "table.csv") + "\n"; !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}

	if _, stderr, code := c.output(args...); code != exit.CodeOK || strings.Contains(stderr, "--on-end") {
		t.Errorf("a complete run: exit code %d\n%s", code, stderr)
	}

	args = []string{"run", in, "--sim", "--sim-faults", "context=1", "-o", "bad.jsonl.zst", "--on-end", saysEnd}
	if text, code := c.run(args...); code != exit.CodeFailed ||
		!strings.Contains(text, " completed 0/20 ") {
		t.Errorf("a run whose requests fail: exit code %d\n%s", code, text)
	}
}

// A run that a limit has stopped has not ended.
func TestOnEndOfStoppedRun(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	text, code := c.run("run", c.input("in.jsonl", 100), "--sim", "--sim-faults", "context=1", "--max-failures", "1",
		"--on-end", "echo hello")
	if code != exit.CodeLimit || strings.Contains(text, "hello") {
		t.Errorf("exit code %d\n%s", code, text)
	}
}

// Ctrl-C ends the command, and not the run that has ended already.
func TestOnEndInterrupted(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	cmd, out := c.start("run", c.input("in.jsonl", 5), "--sim", "--on-end", "echo begun; sleep 1000; echo no")
	poll(t, patience, "the command", func() bool { return strings.Contains(out.String(), "--on-end: begun") })
	must(t, cmd.Process.Signal(os.Interrupt))

	if code := waitExit(t, cmd, out, pollTime); code != exit.CodeOK ||
		!strings.Contains(out.String(), "stopping: ending the command of --on-end; ") ||
		!strings.Contains(out.String(), "the command of --on-end has failed; the run is as it was error=\"stopped: ") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// submit --wait and collect run the command, too. serve runs it for one run after the other, ends it when it
// ends itself, and runs it again at its next start.
func TestOnEndOnBus(t *testing.T) {
	t.Parallel()

	c, model := newCommand(t), newModel(t, sim.Config{})
	serving, said := c.serve("--on-end", "echo begun $PROMPTMILL_END_RUN; sleep 1000")
	c.start("worker", "--url", model.url)
	in := c.input("in.jsonl", 5)

	path := filepath.Join(c.dir, "r1")
	c.expect(0, "--on-end: r1 completed 5/0 "+path+".jsonl.zst ",
		"submit", in, "--run", "r1", "--model", "sim", "--wait", "--on-end", saysEnd)
	poll(t, pollTime, "the command", func() bool { return strings.Contains(said.String(), "--on-end: begun r1") })
	c.expect(0, "--on-end: r2 completed 5/0 "+filepath.Join(c.dir, "mine")+".jsonl.zst ",
		"submit", in, "--run", "r2", "--model", "sim", "--wait", "-o", "mine.jsonl.zst", "--on-end", saysEnd)
	c.must("submit", in, "--run", "r3", "--model", "sim", "--wait")

	must(t, serving.Process.Signal(syscall.SIGTERM))
	if code := waitExit(t, serving, said, pollTime); code != exit.CodeOK {
		t.Fatalf("exit code %d\n%s", code, said)
	}
	if strings.Contains(said.String(), "begun r2") || strings.Contains(said.String(), "begun r3") {
		t.Errorf("a command of two runs at once, or of a run that is not collected here:\n%s", said)
	}

	_, said = c.serve("--on-end", "echo begun $PROMPTMILL_END_RUN; sleep 1000")
	poll(t, pollTime, "the command again", func() bool { return strings.Contains(said.String(), "--on-end: begun r1") })

	list := c.deliveries()
	if len(list) != 2 || list[0].State != webhook.Pending || list[1].State != webhook.Pending {
		t.Errorf("deliveries %+v", list)
	}
}
