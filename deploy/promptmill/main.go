// Command promptmill runs files of prompts through language models that people host
// themselves.
package main

import (
	"context"
	"io"
	"os"
	_ "time/tzdata" // a container image without an operating system has no time zones: TZ would mean UTC, silently

	"github.com/promptmill/promptmill/deploy/terminal"
)

func main() {
	asked := make(chan os.Signal, 1)
	notifyAsked(asked)
	os.Exit(run(context.Background(), environment{
		args:    ownArguments(),
		getenv:  os.Getenv,
		signals: catchSignals(),
		asked:   asked,
		exit:    os.Exit,
		stdin:   os.Stdin,
		stdout:  os.Stdout,
		stderr:  os.Stderr,
	}))
}

// environment is the part of the operating system that the program uses.
type environment struct {
	args    []string
	getenv  func(string) string
	signals <-chan os.Signal
	asked   <-chan os.Signal // each asks for the status
	exit    func(int)
	stdin   io.Reader
	stdout  io.Writer
	stderr  *os.File
}

// printf prints a message for the user of a command without a screen of its own.
func (e environment) printf(format string, args ...any) {
	if screen, err := terminal.Open(e.stderr, "plain", e.getenv); err == nil { // plain is a mode
		screen.Printf(format, args...)
	}
}
