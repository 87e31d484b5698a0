// Package onend runs a command of the user when a run has ended.
//
// A [Command] runs in a shell, with the run in its environment (PROMPTMILL_END_RUN and others)
// and its event on standard input. It has 10 minutes, and is stopped with all its processes
// when they are over, or when promptmill is to end. What it does changes nothing about the run:
// its failure is an error in words, for a warning.
//
// [Command.Run] runs it for one run, in the foreground. [Command.Endpoint] makes it an endpoint
// of package webhook, whose sender runs it for each run of a server, one after the other, and
// remembers that on the bus.
package onend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mvdan.cc/sh/v3/syntax"

	"github.com/promptmill/promptmill/deploy/webhook"
)

// Timeout is the longest time that a command may take.
const Timeout = 10 * time.Minute

// grace is the time from SIGTERM to SIGKILL, and how long the output of a command is read that
// leaves processes behind.
const grace = 5 * time.Second

// variable begins the names of the variables of a command. Flags have none that begin so: the
// command may call promptmill.
const variable = "PROMPTMILL_END_"

// Command is a command of the user.
type Command struct {
	// Script is a script of the shell, see [Check]. Required.
	Script string
	// Host is the name of this machine: only of a run whose output is here the command gets
	// paths. Required.
	Host string
	// Print, if not nil, gets each line that the command prints.
	Print func(line string)
}

// Check returns an error that says what is wrong with a script, if the shell would refuse it.
func Check(script string) error {
	if strings.TrimSpace(script) == "" {
		return errors.New("the command is empty")
	}

	_, err := syntax.NewParser().Parse(strings.NewReader(script), "")
	if parse, ok := errors.AsType[syntax.ParseError](err); ok {
		return fmt.Errorf("the shell cannot read it at character %d: %s", parse.Pos.Offset()+1, parse.Text)
	}

	return err
}

// Run runs the command for an event and waits for its end. The error says in words how it
// failed; it wraps the cause of ctx's end.
func (c Command) Run(ctx context.Context, e webhook.Event) error {
	return c.runFor(ctx, e, Timeout)
}

// runFor is Run with a time limit.
func (c Command) runFor(ctx context.Context, e webhook.Event, timeout time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	out := &lineWriter{print: c.Print}
	cmd := exec.CommandContext(limited, "/bin/sh", "-c", c.Script)
	cmd.Stdin = strings.NewReader(string(e.Body()) + "\n")
	cmd.Stdout, cmd.Stderr = out, out // one writer: os/exec then writes from one goroutine
	cmd.Env = c.environment(e)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for promptmill, which stops all of it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace

	err := cmd.Run()
	out.flush()

	if limited.Err() != nil && cmd.Process != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what has outlived the shell
	}

	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success():
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("stopped: %w", context.Cause(ctx))
	case limited.Err() != nil:
		return fmt.Errorf("stopped: not done within %s", timeout)
	case out.last != "":
		return fmt.Errorf("%w: %s", err, out.last)
	}

	return err
}

// environment returns the environment of the command: that of this process, without the command
// itself, and the run.
func (c Command) environment(e webhook.Event) []string {
	env := slices.DeleteFunc(os.Environ(), func(pair string) bool {
		return strings.HasPrefix(pair, "PROMPTMILL_ON_END=") || strings.HasPrefix(pair, variable)
	})

	var run webhook.Run
	if e.Run != nil {
		run = *e.Run
	}

	results, meta := run.OutputFiles(c.Host)
	state := string(run.State)
	if e.Run == nil {
		state = strings.TrimPrefix(e.Type, "batch.")
	}

	return append(env,
		variable+"RUN="+run.ID,
		variable+"BATCH="+e.BatchID,
		variable+"LABEL="+run.Label,
		variable+"STATE="+state,
		variable+"OUTPUT="+results,
		variable+"META="+meta,
		variable+"TABLE="+run.Table(c.Host),
		variable+"ANSWERED="+strconv.Itoa(run.Answered),
		variable+"FAILED="+strconv.Itoa(run.Failed))
}

// Endpoint returns the command as an endpoint. process names the process that runs it, see
// [webhook.Config].
func (c Command) Endpoint(process string) webhook.Endpoint {
	return webhook.Endpoint{
		ID:   webhook.HashAddress(process + "\x00" + c.Script),
		Name: "--on-end of " + c.Host,
		Send: func(ctx context.Context, e webhook.Event) webhook.Answer {
			if err := c.Run(ctx, e); err != nil {
				return webhook.Answer{Text: err.Error()}
			}
			return webhook.Answer{Delivered: true, Text: "done"}
		},
		Timeout: Timeout + 2*grace,
		AtOnce:  1,
		Command: true,
	}
}

// maxLine is how much of a line is kept, in bytes.
const maxLine = 4 << 10

// lineWriter splits an output into lines.
type lineWriter struct {
	print func(string)
	part  []byte // of a line that has not ended
	last  string // the last line that is not empty
}

var _ io.Writer = (*lineWriter)(nil)

// Write implements [io.Writer].
func (w *lineWriter) Write(p []byte) (int, error) {
	for _, b := range p {
		switch {
		case b == '\n':
			w.flush()
		case len(w.part) < maxLine:
			w.part = append(w.part, b)
		}
	}

	return len(p), nil
}

// flush ends the line.
func (w *lineWriter) flush() {
	line := strings.TrimRight(strings.ToValidUTF8(string(w.part), "?"), "\r\t ")
	w.part = w.part[:0]
	if line == "" {
		return
	}

	w.last = line
	if w.print != nil {
		w.print(line)
	}
}
