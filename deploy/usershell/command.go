// Package usershell runs commands of the user in the shell.
//
// [Command] prepares one: it runs in a process group of its own, so that it is stopped with all its processes when its
// context ends, and a Ctrl-C at the terminal is for promptmill alone. [Wait] waits for its end. [Lines] splits what it
// prints.
package usershell

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"mvdan.cc/sh/v3/syntax"
)

// Grace is the time from SIGTERM to SIGKILL, and how long the output of a command is read that leaves processes
// behind.
const Grace = 5 * time.Second

// ErrNoShell is returned on a system that has no shell, such as the container image of promptmill.
var ErrNoShell = errors.New("this system has no " + shell +
	", which runs commands; a container needs an image that has it, with promptmill copied into it")

// shell runs the commands.
const shell = "/bin/sh"

// CheckShell returns [ErrNoShell] if there is no shell here.
func CheckShell() error { return checkShell(shell) }

// checkShell is CheckShell for a shell at another place.
func checkShell(path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ErrNoShell
	}
	return nil
}

// Check returns an error that says what is wrong with a script, if the shell would refuse it or if there is none.
func Check(script string) error {
	if err := checkSystem(); err != nil {
		return err
	}

	if strings.TrimSpace(script) == "" {
		return errors.New("the command is empty")
	}

	if err := CheckShell(); err != nil {
		return err
	}

	_, err := syntax.NewParser().Parse(strings.NewReader(script), "")
	if parse, ok := errors.AsType[syntax.ParseError](err); ok {
		return fmt.Errorf("the shell cannot read it at character %d: %s", parse.Pos.Offset()+1, parse.Text)
	}

	return err
}

// Command returns a command that runs a script. All its processes get SIGTERM when ctx ends, and SIGKILL after [Grace].
// [Wait] must wait for it.
func Command(ctx context.Context, script string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, shell, "-c", script)
	useGroup(cmd) // a Ctrl-C is for promptmill, which stops all of it
	cmd.Cancel = func() error { return terminateGroup(cmd) }
	cmd.WaitDelay = Grace

	return cmd
}

// Wait waits for the end of a command that was started, and kills what is left of it if ctx, which it was made with,
// has ended. A process that it leaves behind on purpose is no error.
func Wait(ctx context.Context, cmd *exec.Cmd) error {
	err := cmd.Wait()
	if ctx.Err() != nil {
		killGroup(cmd) // what has outlived the shell
	}

	if errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success() {
		return nil
	}

	return err
}
