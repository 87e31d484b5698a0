package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/promptmill/promptmill/proto/bus"
)

// An input that changes while a run reads it, or between two starts of the run: the run is
// refused, or ends with the answers of the requests that it began with. The run has a bus
// and a model server of its own.

// changedRun is such a run.
type changedRun struct {
	fleet *deployment
	name  string
	dir   string
	model string // address
}

const changedRequests = 3000

// inputChanges are the changes of an input, of a dead run or of one that works.
var inputChanges = []struct {
	name       string
	dead, lost bool // the run is killed before; its bus has lost its store
	change     func(path string, lines [][]byte) error
}{
	{"the last lines in place are the first ones", false, false, func(path string, lines [][]byte) error {
		n := len(lines) / 6
		return writeAt(path, bytes.Join(lines[:n], nil), (len(lines)-n)*len(lines[0]))
	}},
	{"the last prompts are changed in place", false, false, func(path string, lines [][]byte) error {
		n := len(lines) / 6
		return writeAt(path, replaceText(bytes.Join(lines[len(lines)-n:], nil)), (len(lines)-n)*len(lines[0]))
	}},
	{"the file is cut off", false, false, func(path string, lines [][]byte) error {
		return os.Truncate(path, int64(len(lines)/2*len(lines[0])))
	}},
	{"another file of the same size and time", true, false, replaceFile},
	{"another file of the same size and time, and the bus has lost its store", true, true, replaceFile},
	{"a line more", true, false, func(path string, lines [][]byte) error {
		return writeAt(path, bytes.Replace(lines[0], []byte(`"c-`), []byte(`"d-`), 1), len(lines)*len(lines[0]))
	}},
}

// replaceText makes other prompts of the same length.
func replaceText(text []byte) []byte { return bytes.ReplaceAll(text, []byte("first"), []byte("other")) }

func writeAt(path string, data []byte, at int) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(data, int64(at))
	return errors.Join(err, file.Close())
}

// replaceFile puts another file in the place of the input, with its size and time.
func replaceFile(path string, lines [][]byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}

	if err := os.WriteFile(path+".new", replaceText(bytes.Join(lines, nil)), 0o644); err != nil {
		return err
	}

	if err := os.Chtimes(path+".new", info.ModTime(), info.ModTime()); err != nil {
		return err
	}

	return os.Rename(path+".new", path)
}

// injectInputChange runs a third run and changes its input.
func injectInputChange(d *deployment, e event) error {
	way := inputChanges[e.seed%uint64(len(inputChanges))]
	d.mu.Lock()
	d.changedRuns++
	name := fmt.Sprintf("changed-%d", d.changedRuns)
	d.mu.Unlock()

	r := &changedRun{
		fleet: d,
		name:  name,
		dir:   filepath.Join(d.dir, "aside", name),
		model: freeAddress(),
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(d.stop, 3*time.Minute)
	defer cancel()

	text, err := r.changeInput(ctx, way.dead, way.lost, time.Duration(e.seed>>8%300)*time.Millisecond, way.change)
	if ctx.Err() != nil && d.stop.Err() != nil {
		return nil // all is over
	}

	if err != nil {
		return fmt.Errorf("%s: %s: %w", name, way.name, err)
	}

	d.logf("%s: %s: %s", name, way.name, text)

	return nil
}

func (r *changedRun) input() string  { return filepath.Join(r.dir, "in.jsonl") }
func (r *changedRun) output() string { return filepath.Join(r.dir, "out.jsonl.zst") }

// inputLines are the input as it was at first.
func (r *changedRun) inputLines() (lines [][]byte) {
	for i := range changedRequests {
		lines = append(lines,
			fmt.Appendf(nil,
				`{"custom_id":"c-%06d","method":"POST","url":"/v1/chat/completions","body":{"model":%q,"messages":[{"role":"user","content":"first %06d %s"}]}}`+
					"\n",
				i, modelName, i, strings.Repeat("x", 200)))
	}

	return lines
}

// changeInput begins the run, changes its input some time after it has been read for the first
// time, and returns how the run ended.
func (r *changedRun) changeInput(
	ctx context.Context, dead, lost bool, after time.Duration, change func(string, [][]byte) error,
) (string, error) {
	server, err := r.serve(ctx)
	if err != nil {
		return "", err
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()

	lines := r.inputLines()
	if err := os.WriteFile(r.input(), bytes.Join(lines, nil), 0o644); err != nil {
		return "", err
	}

	begun, err := os.Stat(r.input())
	if err != nil {
		return "", err
	}

	input, err := readInput(r.input())
	if err != nil {
		return "", err
	}

	first := r.command(ctx)
	if err := first.Start(); err != nil {
		return "", err
	}

	for !hasJournal(r.output()) && bus.Sleep(ctx, 5*time.Millisecond) == nil { // it has been validated
	}

	if err := bus.Sleep(ctx, after); err != nil {
		return "", err
	}

	stop := syscall.SIGSTOP
	if dead {
		stop = syscall.SIGKILL
	}

	first.Process.Signal(stop)
	if dead {
		first.Wait()
	}

	if lost {
		if err := os.RemoveAll(filepath.Join(r.dir, "state")); err != nil {
			return "", err
		}
	}

	if err := change(r.input(), lines); err != nil {
		return "", err
	}

	last := first
	if dead {
		last = r.command(ctx)
		err = last.Run()
	} else {
		first.Process.Signal(syscall.SIGCONT)
		err = first.Wait()
	}

	code, said := last.ProcessState.ExitCode(), last.Stderr.(*bytes.Buffer).String()
	if code == 0 {
		return "it has the answers of the first input", r.check(input)
	}

	if code != 1 && code != 2 || !strings.Contains(errorText(said), "input") {
		return "", fmt.Errorf("the run ended with %d, without a word on the input: %s (%w)", code, said, err)
	}

	// With the first input again, the same command continues.
	if err := os.WriteFile(r.input(), bytes.Join(lines, nil), 0o644); err != nil {
		return "", err
	}

	if err := os.Chtimes(r.input(), begun.ModTime(), begun.ModTime()); err != nil {
		return "", err
	}

	again := r.command(ctx)
	if err := again.Run(); err != nil {
		return "", fmt.Errorf("refused (%s), and with the first input again: %w: %s",
			errorText(said), err, again.Stderr)
	}

	return "refused: " + errorText(said), r.check(input)
}

// hasJournal reports whether an output has been begun.
func hasJournal(output string) bool {
	_, err := os.Stat(strings.TrimSuffix(output, ".jsonl.zst") + ".part.zst")
	return err == nil
}

// check holds the output against the requests of the first input.
func (r *changedRun) check(input []expected) error {
	var found findings
	lines, err := readOutput(r.output())
	if err != nil {
		return err
	}

	checkNoneMissing(r.name, input, checkNoDuplicates(r.name, input, lines, &found), &found)
	if len(found) > 0 {
		return fmt.Errorf("exit code 0, and %d of %d lines; %s",
			len(lines), len(input), strings.Join(found[:min(3, len(found))], "; "))
	}

	return nil
}

func (r *changedRun) command(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.fleet.promptmill, "run", r.input(), "--output", r.output(), "--run", r.name,
		"--url", "http://"+r.model,
		"--concurrency", "16", "--flush", "300ms", "--progress", "none", "--state", filepath.Join(r.dir, "state"))
	cmd.Dir, cmd.Stderr, cmd.SysProcAttr = r.dir, &bytes.Buffer{}, childAttributes()
	return cmd
}

// serve starts the model server, a fast one.
func (r *changedRun) serve(ctx context.Context) (*exec.Cmd, error) {
	log, err := os.Create(r.fleet.logPath(r.name + "-model"))
	if err != nil {
		return nil, err
	}
	defer log.Close()

	cmd := exec.CommandContext(ctx, r.fleet.self, "model-server", r.model, filepath.Join(r.dir, "answers"),
		"plain", "", "1")
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, childAttributes()
	if err := cmd.Start(); err != nil {
		return nil, err
	}

	for {
		answer, err := http.Post("http://"+r.model+"/chaos?slow=1", "", nil)
		if err == nil {
			return cmd, answer.Body.Close()
		}

		if err := bus.Sleep(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}
