package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
)

// trialArgs returns the arguments of a trial of two settings of a simulated server.
func trialArgs(in string, more ...string) []string {
	const server = "promptmill sim --listen 127.0.0.1:{port} --model {model} --sim-slots {slots} --sim-tpot 1ms --sim-ttft 20ms"
	return append([]string{
		"trial", in, "-o", "t", "--model", "org/small", "--exec", server, "--vary", "slots=4,16", "--precision", "30%",
		"--budget", "20s",
	}, more...)
}

// readTrial returns the result of a trial.
func (c command) readTrial(name string) (r trial.Result) {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, name+trial.JSONSuffix))
	must(c.t, err)
	must(c.t, json.Unmarshal(text, &r))

	return r
}

// A trial is interrupted in its second variant; the same command goes on there, and chooses the faster one; again, it
// only shows its result. A page of it beside itself alone needs no server.
func TestTrial(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	in := c.input("in.jsonl", 4000)

	cmd, out := c.start(trialArgs(in)...)
	poll(t, patience, "the second variant", func() bool { return strings.Contains(out.String(), "\n2/2 slots=16: promptmill sim") })
	must(t, cmd.Process.Signal(syscall.SIGINT))
	if code := waitExit(t, cmd, out, patience); code != exit.CodeInterrupted {
		t.Fatalf("exit code %d after Ctrl-C:\n%s", code, out)
	}
	mentions(t, "interrupted trial", out.String(), []string{
		"trial of 2 variants", "1/2 slots=4: promptmill sim", "press Ctrl-C again to stop now",
		"hint: run the same command again to continue",
	})

	_, said, code := c.output(trialArgs(in)...)
	if code != exit.CodeOK || strings.Contains(said, "1/2 slots=4: promptmill") {
		t.Fatalf("exit code %d when it goes on, and the first variant may not run again:\n%s", code, said)
	}
	mentions(t, "trial", said, []string{"slots=16: ", "VARIANT", "t.trial.html", "promptmill run "})

	if r := c.readTrial("t"); r.Chosen != "slots=16" || !r.Done || len(r.Variants) != 2 {
		t.Errorf("chosen %q of %d variants, done %t", r.Chosen, len(r.Variants), r.Done)
	}

	stdout, said, code := c.output(trialArgs(in, "--json")...)
	var again trial.Result
	must(t, json.Unmarshal([]byte(stdout), &again))
	if code != exit.CodeOK || again.Chosen != "slots=16" || strings.Contains(said, "2/2 ") {
		t.Errorf("exit code %d, chosen %q when nothing is left to do:\n%s", code, again.Chosen, said)
	}

	c.must("trial", "--with", "t"+trial.JSONSuffix, "-o", "beside")
	if r := c.readTrial("beside"); len(r.Variants) != 2 || !strings.Contains(r.Chosen, "slots=16") {
		t.Errorf("chosen %q of %d variants beside", r.Chosen, len(r.Variants))
	}
}

// A command that fails is a row: with the others the exit code is 3, and 4 if no server starts.
func TestTrialFails(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	in := c.input("in.jsonl", 500)
	_, said, code := c.output(trialArgs(in, "--exec", "sh -c 'echo out of memory; exit 3' {port}", "--sample", "200")...)
	if code != exit.CodeFailed {
		t.Errorf("exit code %d with one variant that fails:\n%s", code, said)
	}
	mentions(t, "trial", said, []string{"failed: ", "out of memory", "1 of 3 variants failed", "--retry runs them again"})

	_, said, code = c.output("trial", in, "-o", "none", "--exec", "sh -c 'exit 3' {port}")
	if code != exit.CodeUnreachable {
		t.Errorf("exit code %d without a server that starts:\n%s", code, said)
	}
}

// A trial that was over before its first variant began has not succeeded.
func TestTrialOfNoTime(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	_, said, code := c.output(trialArgs(c.input("in.jsonl", 10), "--within", "1ms")...)
	if code != exit.CodeFailed {
		t.Errorf("exit code %d without any variant that was measured:\n%s", code, said)
	}
	mentions(t, "trial", said, []string{"slots=4 and slots=16 were not run", "--retry and more time in --within"})
}

// Ctrl-C ends a command of --score that does not answer, before the trial has begun.
func TestTrialStopsScorer(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	began := filepath.Join(c.dir, "began")
	cmd, out := c.start(trialArgs(c.input("in.jsonl", 10), "--score", "touch began; exec sleep 1000")...)
	poll(t, patience, "the command", func() bool { return files.Exists(began) })
	must(t, cmd.Process.Signal(syscall.SIGINT))
	if code := waitExit(t, cmd, out, patience); code != exit.CodeInterrupted {
		t.Errorf("exit code %d after Ctrl-C:\n%s", code, out)
	}
}

// With --progress json, the trial and its variants are objects.
func TestTrialProgressJSON(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	model := c.simulate(t)
	in := c.input("in.jsonl", 300)
	_, said, code := c.output("trial", in, "-o", "t", "--url", "one="+model, "--progress", "json", "--budget", "10s")
	if code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, said)
	}

	types, states := map[string]int{}, map[string]bool{}
	for line := range strings.Lines(said) {
		var v struct{ Type, Name, State string }
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		types[v.Type]++
		if v.Type == "variant" {
			states[v.State] = true
		}
	}

	if types["trial"] != 1 || types["variant"] < 2 || !states["loading"] || !states["measured"] {
		t.Errorf("objects %v with the states %v:\n%s", types, states, said)
	}
}

// simulate starts a model server of its own process, and returns its URL.
func (c command) simulate(t *testing.T) string {
	t.Helper()

	address := freeAddress(t)
	_, out := c.start("sim", "--listen", address, "--model", "sim")
	poll(t, pollTime, "the model server", func() bool { return strings.Contains(out.String(), address) })

	return fmt.Sprintf("http://%s", address)
}

// A trial that only says what it would do starts nothing, and writes nothing.
func TestTrialDryRun(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	in := c.input("in.jsonl", 3)
	before := c.left()
	stdout := c.must(trialArgs(in, "--dry-run")...)
	mentions(t, "dry run", stdout, []string{"VARIANT", "slots=4 ", "org/small", "--sim-slots 16"})
	if after := c.left(); len(after) != len(before) {
		t.Errorf("the folder has %q, and had %q", after, before)
	}
}

// mentions fails the test for each text that is not in what a command said.
func mentions(t *testing.T, what, said string, want []string) {
	t.Helper()

	for _, text := range want {
		if !strings.Contains(said, text) {
			t.Errorf("%s: %q is not in\n%s", what, text, said)
		}
	}
}
