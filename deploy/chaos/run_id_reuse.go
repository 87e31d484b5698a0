package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Who uses the id of a run again for another input must be refused, whatever state the run
// is in, and nothing of it changes.

// writeOther writes an input with the custom_ids of a run's, and other prompts.
func writeOther(path, run string, requests int) error {
	var text bytes.Buffer
	for i := range requests {
		fmt.Fprintf(&text,
			`{"custom_id":"%s-%d","method":"POST","url":"/v1/chat/completions","body":{"model":%q,"messages":[{"role":"user","content":"another %s %d"}]}}`+
				"\n",
			run, i, modelName, run, i)
	}

	return os.WriteFile(path, text.Bytes(), 0o644)
}

// injectRunIDReuse uses the id of a run that is on the bus.
func injectRunIDReuse(d *deployment, e event) error {
	d.producing.Lock() // a run that has no producer yet may take its id
	defer d.producing.Unlock()

	d.mu.Lock()
	known := slices.Contains(d.submitted, e.target)
	d.mu.Unlock()
	if !known {
		return skipped("the run is not on the bus")
	}

	_, err := d.reuseRunID(e.target, e.seed%2 == 0)

	return err
}

// reuseRunID submits or runs another input under the id of a run, and reports whether that was
// refused. A bus that cannot be reached refuses nothing.
func (d *deployment) reuseRunID(run string, submit bool) (refused bool, err error) {
	role, args := proto.RoleProducer, []string{"submit", d.otherInput(run), "--run", run}
	if !submit {
		role = proto.RoleCollector
		args = []string{
			"run", d.otherInput(run), "--run", run, // without --url: the workers are there
			"--output", filepath.Join(d.dir, "aside", "reused-"+run+".jsonl.zst"), "--progress", "none",
		}
	}

	code, text := d.runCommand(20*time.Second, "submit-bus", role, args...)
	switch {
	case code == 1 || code == 2:
		if !strings.Contains(errorText(text), "run "+run) {
			return true, fmt.Errorf("%s another input as run %s: the refusal does not name the run: %s",
				args[0], run, text)
		}
		return true, nil
	case code == 0 || code == 3:
		return false, fmt.Errorf("%s another input as run %s: it was taken, with exit code %d", args[0], run, code)
	}

	return false, nil
}

// runCommand runs a command as runPromptmill does, and returns its exit code and its
// stderr; -1: it was killed, or there was none.
func (d *deployment) runCommand(
	timeout time.Duration, link string, role proto.Role, args ...string,
) (code int, said string) {
	_, err := d.runPromptmill(timeout, link, role, args...)
	if err == nil {
		return 0, ""
	}

	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), strings.TrimSpace(string(exit.Stderr))
	}

	return -1, err.Error()
}

// checkReuse has others use the ids of both runs, which have ended, and again when the runs
// are deleted. The files of the runs stay as they are.
func (a *auditor) checkReuse() {
	before := a.hashOutputs()

	for _, run := range []string{"a", "b"} {
		for _, submit := range []bool{true, false} {
			if refused, err := a.reuseRunID(run, submit); err != nil {
				a.found.add("%v", err)
			} else if !refused {
				a.found.add("the id of run %s, which has ended, is used again: neither taken nor refused", run)
			}
		}
	}

	if after := a.hashOutputs(); !slices.Equal(before, after) {
		a.found.add("the id of a run was used again, and its files changed: %v, and before: %v", after, before)
	}
}

// checkReuseOfDeleted does the same after the run is deleted from the bus. The bus does not
// know the id then, and may take it; who collects has the files of the first run, and says so.
func (a *auditor) checkReuseOfDeleted() {
	before := a.hashOutputs()
	if code, said := a.runCommand(
		30*time.Second, "submit-bus", proto.RoleCollector, "delete", "--force", "a",
	); code != 0 {
		a.found.add("delete run a: exit code %d: %s", code, said)
		return
	}

	refused := func() int {
		log, _ := os.ReadFile(a.logPath("serve")) // it is there
		return strings.Count(string(log), "of an earlier run a")
	}

	already := refused()
	code, said := a.runCommand(30*time.Second, "submit-bus", proto.RoleProducer, "submit",
		a.otherInput("a"), "--run", "a",
		"--progress", "none")
	for late := time.Now().Add(settleTime); code == 0 && refused() == already; {
		if bus.Sleep(a.stop, 100*time.Millisecond) != nil || time.Now().After(late) {
			a.found.add(
				"another input is submitted as run a, which is deleted: serve does not say that it has files of the first one",
			)
			break
		}
	}

	if code != 0 && code != 1 && code != 2 {
		a.found.add("another input is submitted as run a, which is deleted: exit code %d: %s", code, said)
	}

	if after := a.hashOutputs(); !slices.Equal(before, after) {
		a.found.add("the id of a deleted run was used again, and its files changed: %v, and before: %v", after, before)
	}
}

// errorText returns the line of a command's stderr that is its error.
func errorText(said string) string {
	for line := range strings.Lines(said) {
		if strings.Contains(line, "error:") {
			return strings.TrimSpace(line)
		}
	}

	return said
}

// hashOutputs are the hashes of the files of the runs.
func (a *auditor) hashOutputs() (sums []string) {
	paths, _ := filepath.Glob(filepath.Join(a.outputDir(), "*")) // the pattern is good
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			a.found.add("%v", err)
			continue
		}
		sums = append(sums, fmt.Sprintf("%s %x", filepath.Base(path), sha256.Sum256(data)))
	}

	return sums
}
