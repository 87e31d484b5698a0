package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/pipeline"
)

// catchSignals returns where the signals come that stop a command. A terminal that is closed
// is one, too, unless the command was started with nohup.
func catchSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	return signals
}

// untilSignal returns a context that ends at a signal, with pipeline.ErrInterrupted, until the
// returned function is called: then signals are left to whoever is next.
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

// stopThemselves are the commands that bring something to an end at a signal.
var stopThemselves = []string{"run", "worker", "serve", "submit", "collect", "status", "tail", "doctor", "sim"}

// endAtSignal has a command end at once at a signal.
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
