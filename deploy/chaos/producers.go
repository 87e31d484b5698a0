package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// startProducer has a producer submit a run until the bus has it. Up to two are killed before,
// at some moment.
func (d *deployment) startProducer(run string, dice uint64) {
	args := []string{"submit", d.inputPath(run), "--run", run, "--model", modelName, "--progress", "none"}
	if run == "b" {
		args = append(args, "--group-by-prefix") // its shards are in another order than its input
	}

	d.submitting.Go(func() {
		d.producing.Lock()
		defer d.producing.Unlock()

		for kills, first := dice%3, true; d.stop.Err() == nil; first = false {
			timeout := 30 * time.Second
			if kills > 0 {
				kills--
				timeout = time.Duration(dice>>8%400) * time.Millisecond
			}

			_, err := d.runPromptmill(timeout, "submit-bus", proto.RoleProducer, args...)
			if err == nil || d.isSettled(run) {
				if err == nil || !first { // else it was there
					d.notePublished(run)
				}
				break
			}

			bus.Sleep(d.stop, restartPause)
		}

		d.logf("run %s is on the bus", run)
		d.mu.Lock()
		defer d.mu.Unlock()

		d.submitted = append(d.submitted, run)
		if run == "a" {
			d.reading.Do(func() { d.processes["reader"].runUntil(d.stop) })
		}
	})
}

// isSettled reports whether a run is on the bus, and removes the parts of one
// whose producer died too early.
func (d *deployment) isSettled(run string) bool {
	text, err := d.runPromptmill(30*time.Second, "submit-bus", proto.RoleReader, "list", "--json")
	var list []struct{ Run, State string }
	if err != nil || json.Unmarshal(text, &list) != nil {
		return false
	}

	for _, r := range list {
		if r.Run == run && r.State != string(proto.StateValidating) {
			return true
		}

		if r.Run == run {
			// or the next time
			d.runPromptmill(30*time.Second, "submit-bus", proto.RoleCollector, "delete", "--force", run)
		}
	}

	return false
}

// runPromptmill runs a command of promptmill over a link to the bus, and kills it after some
// time. It returns stdout.
func (d *deployment) runPromptmill(
	timeout time.Duration, link string, role proto.Role, args ...string,
) ([]byte, error) {
	ctx, cancel := context.WithTimeout(d.stop, timeout)
	defer cancel()

	log, err := os.OpenFile(d.logPath("commands"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	fmt.Fprintf(log, "--- %s: %v\n", d.elapsed(), args)
	cmd := exec.CommandContext(ctx, d.promptmill, append(args, d.busFlags(link, role)...)...)
	var said bytes.Buffer
	cmd.Dir, cmd.Stderr, cmd.SysProcAttr = d.dir, io.MultiWriter(log, &said), childAttributes()
	cmd.Env = append(os.Environ(), "PROMPTMILL_STATE="+d.clientState())

	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		exit.Stderr = said.Bytes()
	}

	if err != nil {
		fmt.Fprintf(log, "--- %s: %v\n", d.elapsed(), err)
	}

	return out, err
}

// noteStoreLoss records that the bus lost its store, and what the collector's files
// have of the runs. No process writes to these files now.
func (d *deployment) noteStoreLoss() {
	d.mu.Lock()
	defer d.mu.Unlock()

	d.storeLostAt = time.Now()
	for _, run := range []string{"a", "b"} {
		if !d.isComplete(run) {
			d.disrupted.losses = append(d.disrupted.losses, d.readStoreLoss(run))
		}
	}
}

// noteJournalDamage records that the collector's files were damaged: the answers that the bus
// had before it lost its store is nowhere now.
func (d *deployment) noteJournalDamage() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, run := range []string{"a", "b"} {
		if !d.storeLostAt.IsZero() && !d.isComplete(run) {
			d.disrupted.losses = append(d.disrupted.losses, d.readStoreLoss(run))
		}
	}
}

// notePublished takes note that a producer has put a whole run on the bus. After the loss of the
// store that is all of it again, whatever the collector has: a producer does not know.
func (d *deployment) notePublished(run string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.storeLostAt.IsZero() {
		d.disrupted.losses = append(d.disrupted.losses, storeLoss{run: run, at: d.storeLostAt})
	}
}

// readStoreLoss returns the loss of a run whose answers before the store's end are in the
// collector's file alone. The caller holds mu.
func (d *deployment) readStoreLoss(run string) storeLoss {
	l := storeLoss{run: run, at: d.storeLostAt, kept: map[int]bool{}}
	lines, err := readJournal(d.runFile(run, ".part.zst"))
	if err != nil {
		fmt.Fprintf(d.history, "read the journal of %s: %v\n", run, err)
	}

	for _, line := range lines {
		l.kept[line.Extras.Seq] = true
	}

	return l
}

// resubmitAll starts the producers of incomplete runs again, after the bus lost
// its store.
func (d *deployment) resubmitAll() {
	d.mu.Lock()
	defer d.mu.Unlock()

	d.afterStoreLoss = append(d.afterStoreLoss, d.incarnations)
	// What the collector's file has of a run need not come on the bus again.
	d.readerCannotFinish = d.readerCannotFinish || slices.Contains(d.submitted, "a")

	for _, run := range d.submitted {
		if !d.isComplete(run) {
			d.startProducer(run, 0)
		}
	}

	d.submitted = nil
}
