package main

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/metrics"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/summary"
	"github.com/promptmill/promptmill/deploy/telemetry"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// commonOptions are the flags that commands have in common which stay until their work is done.
type commonOptions struct {
	// progress is the mode of the screen: auto, bar, plain, json or none.
	progress string
	// verbose makes the log more detailed.
	verbose bool
	// metrics is the address to serve metrics at. Empty: none.
	metrics string
	// scaleWithin is the time in which runs are to end, for the boxes that are wanted. 0: the usual one.
	scaleWithin time.Duration
	// otlp is where telemetry is sent.
	otlp otlpOptions
}

// parseCommon reads the flags that commands have in common.
func parseCommon(c *cli.Command, progress string) commonOptions {
	return commonOptions{
		progress:    progress,
		verbose:     c.Bool("verbose"),
		metrics:     c.String("metrics"),
		scaleWithin: c.Duration("scale-within"),
		otlp:        parseOTLP(c),
	}
}

// activeCommand is a command at work: its screen and log, its metrics and telemetry, and the goroutines that wait
// for signals. Close ends all of that.
type activeCommand struct {
	env       environment
	screen    *terminal.Screen
	log       zerolog.Logger
	metrics   *metrics.Exporter
	telemetry *telemetry.Telemetry // nil: none is sent

	ctx         context.Context
	stop        context.CancelFunc
	stopMetrics func()
	goroutines  sync.WaitGroup
	counts      atomic.Pointer[func() collector.Progress] // of the run that is shown
	doing       atomic.Pointer[string]                    // the work after the first signal, if it is not the usual one
}

// openCommand opens a command. It prints its status at each signal that asks for it.
func openCommand(ctx context.Context, env environment, o commonOptions) (*activeCommand, error) {
	screen, err := terminal.Open(env.stderr, o.progress, env.getenv)
	if err != nil {
		return nil, err
	}

	c := &activeCommand{
		env:     env,
		screen:  screen,
		log:     screen.NewLog(o.verbose),
		metrics: &metrics.Exporter{Version: versionText()},
	}

	c.metrics.SetScaleWithin(o.scaleWithin)

	sent, err := o.otlp.config(env.getenv)
	if err != nil {
		return nil, err
	}

	if c.stopMetrics, err = metrics.Serve(o.metrics, c.metrics); err != nil {
		return nil, err
	}

	if c.telemetry, err = c.startTelemetry(ctx, sent); err != nil {
		c.stopMetrics()
		return nil, err
	}

	c.ctx, c.stop = context.WithCancel(ctx)
	c.goroutines.Go(func() { c.screen.PrintStatusOnSignal(c.ctx, env.asked) })
	c.goroutines.Go(func() { c.screen.FollowJobControl(c.ctx) })

	return c, nil
}

// limitMemory keeps this process within a soft limit of memory until the command is closed.
func (c *activeCommand) limitMemory() {
	c.goroutines.Go(func() { limitMemory(c.ctx, c.env.getenv) })
}

// untilSignals returns a context that ends at the first signal, with the cause
// pipeline.ErrInterrupted, and has the process end at the second. doing names the work after the
// first, safe describes the work that neither signal loses, and hint is how to continue after the
// second.
func (c *activeCommand) untilSignals(doing string, safe func() string, hint string) context.Context {
	ctx, stop := context.WithCancelCause(c.ctx)
	c.onSignals(func(os.Signal) {
		c.printStop(doing, safe())
		stop(pipeline.ErrInterrupted)
	}, safe, hint)

	return ctx
}

// onSignals calls first at the first signal, and has the process end at the second: see untilSignals.
func (c *activeCommand) onSignals(first func(os.Signal), safe func() string, hint string) {
	c.goroutines.Go(func() {
		select {
		case s := <-c.env.signals:
			first(s)
		case <-c.ctx.Done():
			return
		}

		select {
		case <-c.env.signals:
			c.stopNow(safe(), hint)
		case <-c.ctx.Done():
		}
	})
}

// printStop prints that the command stops. kept names the work that neither signal loses.
func (c *activeCommand) printStop(doing, kept string) {
	text := "Nothing is lost either way"
	if kept != "" {
		text = "Safe either way: " + kept
	}

	if now := c.doing.Load(); now != nil {
		doing = *now
	}

	c.screen.Printf("stopping: %s; press Ctrl-C again to stop now. %s", doing, text)
}

// stopNow ends the process at once. kept is what it keeps.
func (c *activeCommand) stopNow(kept, hint string) {
	err := errors.New("stopped; nothing is lost")
	if kept != "" {
		err = errors.New("stopped: " + kept)
	}

	if err = c.fail(exit.Interrupted(err, hint)); err != nil {
		terminal.PrintError(c.env.stderr, err)
	}
	c.env.exit(exit.CodeInterrupted)
}

// continueHint is the hint of commands that continue when they are run again.
const continueHint = "run the same command again to continue from there"

// nothingToCount describes the safe work of a command that has nothing to count.
func nothingToCount() string { return "" }

// countSafe describes the safe work of the run on the screen: lines in the synced output, and
// results that the bus keeps for it. The next start counts both.
func (c *activeCommand) countSafe() string {
	counts := c.counts.Load()
	if counts == nil {
		return ""
	}

	p := (*counts)()
	return progress.FormatKept(p.Durable, p.Total, p.Received.Done-p.Durable)
}

// hooks show the pipeline's reports on the screen.
func (c *activeCommand) hooks() pipeline.Hooks {
	display := progress.NewDisplay(c.screen)

	return pipeline.Hooks{
		Printf:     c.screen.Printf,
		Validating: progress.ShowValidation(c.screen),
		Loading:    showLoading(c.screen),
		Collecting: func(counts func() collector.Progress) { c.counts.Store(&counts) },
		Progress:   display.Show,
		Start:      display.ShowStart,
	}
}

// printCauses prints why requests failed, if that has stopped the run.
func (c *activeCommand) printCauses(err error) {
	limit, ok := errors.AsType[*pipeline.LimitError](err)
	if !ok || limit.Reached.Metric != proto.MetricFailed {
		return
	}

	c.screen.Close()
	if len(limit.Failures) > 0 {
		c.screen.Printf("failures of the run so far:")
	}

	summary.PrintCausesSoFar(c.screen, limit.Failures, limit.FailedLines)
}

// fail ends the screen and reports the error there if a program reads it. It returns the error for
// the exit code.
func (c *activeCommand) fail(err error) error {
	c.screen.Close()
	return c.screen.ReportError(err)
}

// Close ends the goroutines of openCommand, and waits for them.
func (c *activeCommand) Close() {
	c.stop()
	c.goroutines.Wait()
	c.telemetry.Close()
	c.stopMetrics()
	c.screen.Close()
}
