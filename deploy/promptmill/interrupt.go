package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// catchSignals returns the signals that stop a command. The end of its terminal is one of them,
// unless the command was started with nohup.
func catchSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	return signals
}

// untilSignal returns a context that ends at a signal, with the cause pipeline.ErrInterrupted.
// After a call of the returned function, signals go to the next receiver.
func untilSignal(ctx context.Context, env environment) (context.Context, func()) {
	ctx, stop := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-env.signals:
			stop(pipeline.ErrInterrupted)
		case <-ctx.Done():
		}
	}()

	return ctx, func() {
		stop(nil)
		<-done
	}
}

// readPlaces has a function ask object stores for the inputs and the output of a command. A signal
// ends that, and requests that are tried again are logged.
func readPlaces(
	ctx context.Context, env environment, o commonOptions, places *objectstore.Client,
	read func(ctx context.Context) error,
) error {
	screen, err := terminal.Open(env.stderr, o.progress, env.getenv)
	if err != nil {
		return err
	}
	defer screen.Close()

	places.LogTo(screen.NewLog(o.verbose))

	reading, signalsToNext := untilSignal(ctx, env)
	err = read(reading)
	stopped := errors.Is(context.Cause(reading), pipeline.ErrInterrupted)
	signalsToNext()
	if stopped { // before the run has begun
		return exit.Interrupted(pipeline.ErrInterrupted, "")
	}

	return err
}

// stopThemselves are the commands that handle signals themselves.
var stopThemselves = []string{"run", "trial", "worker", "serve", "submit", "collect", "status", "tail", "doctor", "sim"}

// endAtSignal ends the process of a command at a signal.
func endAtSignal(c *cli.Command, env environment) {
	action := c.Action
	c.Action = func(ctx context.Context, c *cli.Command) error {
		ended := make(chan struct{})
		defer close(ended)

		go func() {
			select {
			case <-env.signals:
				env.exit(exit.CodeInterrupted)
			case <-ended:
			}
		}()

		return action(ctx, c)
	}
}
