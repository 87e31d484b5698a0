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
)

// submit has a producer submit a run until the bus has it. Up to two are killed before,
// at some moment.
func (f *fleet) submit(run string, dice uint64) {
	args := []string{"submit", f.input(run), "--run", run, "--model", modelName, "--progress", "none"}
	if run == "b" {
		args = append(args, "--group-by-prefix") // its shards are in another order than its input
	}

	f.submitting.Go(func() {
		f.producing.Lock()
		defer f.producing.Unlock()

		for kills, first := dice%3, true; f.stop.Err() == nil; first = false {
			timeout := 30 * time.Second
			if kills > 0 {
				kills--
				timeout = time.Duration(dice>>8%400) * time.Millisecond
			}

			_, err := f.command(timeout, "submit-bus", proto.RoleProducer, args...)
			if err == nil || f.settled(run) {
				if err == nil || !first { // else it was there
					f.published(run)
				}
				break
			}

			pause(f.stop, restartPause)
		}

		f.say("run %s is on the bus", run)
		f.mu.Lock()
		defer f.mu.Unlock()

		f.submitted = append(f.submitted, run)
		if run == "a" {
			f.reading.Do(func() { f.processes["reader"].keep(f.stop) })
		}
	})
}

// settled reports whether a run is on the bus, and takes away what there is of one
// whose producer died too early.
func (f *fleet) settled(run string) bool {
	text, err := f.command(30*time.Second, "submit-bus", proto.RoleReader, "list", "--json")
	var list []struct{ Run, State string }
	if err != nil || json.Unmarshal(text, &list) != nil {
		return false
	}

	for _, r := range list {
		if r.Run == run && r.State != string(proto.StateValidating) {
			return true
		}
		if r.Run == run {
			f.command(30*time.Second, "submit-bus", proto.RoleCollector, "delete", "--force", run) // or the next time
		}
	}

	return false
}

// command runs a command of promptmill over a link to the bus, and kills it after some
// time. It returns what it said on stdout.
func (f *fleet) command(timeout time.Duration, link string, role proto.Role, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(f.stop, timeout)
	defer cancel()

	log, err := os.OpenFile(f.log("commands"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	fmt.Fprintf(log, "--- %s: %v\n", f.elapsed(), args)
	cmd := exec.CommandContext(ctx, f.promptmill, append(args, f.bus(link, role)...)...)
	var said bytes.Buffer
	cmd.Dir, cmd.Stderr, cmd.SysProcAttr = f.dir, io.MultiWriter(log, &said), childAttributes()
	cmd.Env = append(os.Environ(), "PROMPTMILL_STATE="+f.state())

	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		exit.Stderr = said.Bytes()
	}

	if err != nil {
		fmt.Fprintf(log, "--- %s: %v\n", f.elapsed(), err)
	}

	return out, err
}

// lose takes note that the bus has lost its store, and of what the collector's files
// have of the runs. Nobody writes to these files now.
func (f *fleet) lose() {
	f.mu.Lock()
	defer f.mu.Unlock()

	f.stored = time.Now()
	for _, run := range []string{"a", "b"} {
		if !f.complete(run) {
			f.did.losses = append(f.did.losses, f.lossOf(run))
		}
	}
}

// damaged takes note that the collector's files were damaged: what the bus had before it
// lost its store is nowhere now.
func (f *fleet) damaged() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, run := range []string{"a", "b"} {
		if !f.stored.IsZero() && !f.complete(run) {
			f.did.losses = append(f.did.losses, f.lossOf(run))
		}
	}
}

// published takes note that a producer has put a whole run on the bus. After the loss of the
// store that is all of it again, whatever the collector has: a producer does not know.
func (f *fleet) published(run string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.stored.IsZero() {
		f.did.losses = append(f.did.losses, loss{run: run, at: f.stored})
	}
}

// lossOf is what is lost of a run whose answers before the store's end are in the
// collector's file alone. The caller holds mu.
func (f *fleet) lossOf(run string) loss {
	l := loss{run: run, at: f.stored, kept: map[int]bool{}}
	lines, err := readJournal(f.file(run, ".part.zst"))
	if err != nil {
		fmt.Fprintf(f.history, "read the journal of %s: %v\n", run, err)
	}

	for _, line := range lines {
		l.kept[line.Extras.Seq] = true
	}

	return l
}

// forget has the producers come again with what is not complete, after the bus has lost
// its store.
func (f *fleet) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()

	f.forgot = append(f.forgot, f.lives)
	// What the collector's file has of a run need not come on the bus again.
	f.unread = f.unread || slices.Contains(f.submitted, "a")

	for _, run := range f.submitted {
		if !f.complete(run) {
			f.submit(run, 0)
		}
	}

	f.submitted = nil
}
