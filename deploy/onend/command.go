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
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/promptmill/promptmill/deploy/usershell"
	"github.com/promptmill/promptmill/deploy/webhook"
)

// Timeout is the longest time that a command may take.
const Timeout = 10 * time.Minute

// variable begins the names of the variables of a command. Flags have none that begin so: the
// command may call promptmill.
const variable = "PROMPTMILL_END_"

// Command is a command of the user.
type Command struct {
	// Script is a script of the shell, see [usershell.Check]. Required.
	Script string
	// Host is the name of this machine: only of a run whose output is here the command gets
	// paths. Required.
	Host string
	// Print, if not nil, gets each line that the command prints.
	Print func(line string)
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

	out := &usershell.Lines{Print: c.Print}
	cmd := usershell.Command(limited, c.Script)
	cmd.Stdin = strings.NewReader(string(e.Body()) + "\n")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = c.environment(e)

	err := cmd.Start()
	if err == nil {
		err = usershell.Wait(limited, cmd)
	}
	out.Flush()

	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("stopped: %w", context.Cause(ctx))
	case limited.Err() != nil:
		return fmt.Errorf("stopped: not done within %s", timeout)
	case out.Last() != "":
		return fmt.Errorf("%w: %s", err, out.Last())
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
		Timeout: Timeout + 2*usershell.Grace,
		AtOnce:  1,
		Command: true,
	}
}
