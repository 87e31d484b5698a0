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
)

// Who uses the id of a run again for another input must be refused, whatever state the run
// is in, and nothing of it changes.

// otherInput is the input with which others use the id of a run again.
func (f *fleet) otherInput(run string) string { return filepath.Join(f.dir, "other-"+run+".jsonl") }

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

// doReuse uses the id of a run that is on the bus.
func (f *fleet) doReuse(e event) error {
	f.producing.Lock() // a run that has no producer yet may take its id
	defer f.producing.Unlock()

	f.mu.Lock()
	known := slices.Contains(f.submitted, e.target)
	f.mu.Unlock()
	if !known {
		return skipped("the run is not on the bus")
	}

	_, err := f.reuse(e.target, e.dice%2 == 0)

	return err
}

// reuse submits or runs another input under the id of a run, and reports whether that was
// refused. A bus that cannot be reached refuses nothing.
func (f *fleet) reuse(run string, submit bool) (refused bool, err error) {
	role, args := proto.RoleProducer, []string{"submit", f.otherInput(run), "--run", run}
	if !submit {
		role = proto.RoleCollector
		args = []string{
			"run", f.otherInput(run), "--run", run, // without --url: the workers are there
			"--output", filepath.Join(f.dir, "aside", "reused-"+run+".jsonl.zst"), "--progress", "none",
		}
	}

	code, text := f.attempt(20*time.Second, "submit-bus", role, args...)
	switch {
	case code == 1 || code == 2:
		if !strings.Contains(errorOf(text), "run "+run) {
			return true, fmt.Errorf("%s another input as run %s: the refusal does not name the run: %s",
				args[0], run, text)
		}
		return true, nil
	case code == 0 || code == 3:
		return false, fmt.Errorf("%s another input as run %s: it was taken, with exit code %d", args[0], run, code)
	}

	return false, nil
}

// attempt runs a command as f.command does, and returns its exit code and what it said on
// stderr; -1: it was killed, or there was none.
func (f *fleet) attempt(timeout time.Duration, link string, role proto.Role, args ...string) (code int, said string) {
	_, err := f.command(timeout, link, role, args...)
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
func (f *fleet) checkReuse(found *findings) {
	before := f.sums(found)

	for _, run := range []string{"a", "b"} {
		for _, submit := range []bool{true, false} {
			if refused, err := f.reuse(run, submit); err != nil {
				found.add("%v", err)
			} else if !refused {
				found.add("the id of run %s, which has ended, is used again: neither taken nor refused", run)
			}
		}
	}

	if after := f.sums(found); !slices.Equal(before, after) {
		found.add("the id of a run was used again, and its files changed: %v, and before: %v", after, before)
	}
}

// checkReuseOfDeleted does the same after the run is deleted from the bus. The bus does not
// know the id then, and may take it; who collects has the files of the first run, and says so.
func (f *fleet) checkReuseOfDeleted(found *findings) {
	before := f.sums(found)
	if code, said := f.attempt(30*time.Second, "submit-bus", proto.RoleCollector, "delete", "--force", "a"); code != 0 {
		found.add("delete run a: exit code %d: %s", code, said)
		return
	}

	refused := func() int {
		log, _ := os.ReadFile(f.log("serve")) // it is there
		return strings.Count(string(log), "of an earlier run a")
	}

	already := refused()
	code, said := f.attempt(30*time.Second, "submit-bus", proto.RoleProducer, "submit", f.otherInput("a"), "--run", "a",
		"--progress", "none")
	for late := time.Now().Add(settling); code == 0 && refused() == already; {
		if pause(f.stop, 100*time.Millisecond) != nil || time.Now().After(late) {
			found.add(
				"another input is submitted as run a, which is deleted: serve does not say that it has files of the first one",
			)
			break
		}
	}

	if code != 0 && code != 1 && code != 2 {
		found.add("another input is submitted as run a, which is deleted: exit code %d: %s", code, said)
	}

	if after := f.sums(found); !slices.Equal(before, after) {
		found.add("the id of a deleted run was used again, and its files changed: %v, and before: %v", after, before)
	}
}

// errorOf is the line of what a command said that is its error.
func errorOf(said string) string {
	for line := range strings.Lines(said) {
		if strings.Contains(line, "error:") {
			return strings.TrimSpace(line)
		}
	}

	return said
}

// sums are the hashes of the files of the runs.
func (f *fleet) sums(found *findings) (sums []string) {
	paths, _ := filepath.Glob(filepath.Join(f.out(), "*")) // the pattern is good
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			found.add("%v", err)
			continue
		}
		sums = append(sums, fmt.Sprintf("%s %x", filepath.Base(path), sha256.Sum256(data)))
	}

	return sums
}
