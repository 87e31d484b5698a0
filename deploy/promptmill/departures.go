package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/notice"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/worker"
)

// drainOnFlag returns the flag of where a worker learns that its box goes away.
func drainOnFlag() cli.Flag {
	return &cli.StringSliceFlag{
		Name:     "drain-on",
		Category: groupModel,
		Value:    []string{notice.Auto},
		Usage: "`SOURCE`: leave this box in time when the source says that it goes away: " +
			"aws, gcp, azure, file:PATH, a URL, SIGUSR1, SIGUSR2; auto finds the cloud of this box, none asks nothing",
	}
}

// parseDrainOn reads and checks the flag --drain-on.
func parseDrainOn(env environment, c *cli.Command) ([]notice.Source, error) {
	sources, err := notice.Parse(c.StringSlice("drain-on"), env.getenv)
	if err != nil {
		return nil, exit.Usage("", "--drain-on: %w", err)
	}

	return sources, nil
}

// departures are the ways in which the workers of a command end: signals, and the news that the box goes away.
//
// SIGTERM comes from a machine that has a deadline (systemd, Kubernetes, Slurm): the workers use the time until then.
// The other signals come from a person who waits: they finish what is in flight.
type departures struct {
	cmd   *activeCommand
	grace time.Duration

	// leave has the nearest departure that pipeline.RunWorkers has not taken yet. It never has more than one, so
	// that neither a signal nor a notice waits for the workers.
	leave chan worker.Departure

	begun atomic.Bool // there are workers, which take departures

	// mu guards sends to leave, and deadline, the earliest of all departures; zero: there was none.
	mu       sync.Mutex
	deadline time.Time
}

// endMargin is the time before a deadline at which what still runs is ended, so that the process ends in time: a killed
// model server takes a moment to be gone.
const endMargin = 200 * time.Millisecond

func newDepartures(cmd *activeCommand, grace time.Duration) *departures {
	return &departures{
		cmd:   cmd,
		grace: grace,
		leave: make(chan worker.Departure, 1),
	}
}

// follow returns a context that ends when the workers are to end without using the time until a deadline. It watches
// some sources of notices until the command ends: what a worker finishes after a signal has to end by a deadline, too.
func (d *departures) follow(sources []notice.Source) context.Context {
	ctx, stop := context.WithCancelCause(d.cmd.ctx)

	d.cmd.onSignals(func(s os.Signal) {
		if s == syscall.SIGTERM && d.begun.Load() {
			left := d.announce(worker.Departure{
				Deadline: time.Now().Add(d.grace),
				Reason:   "SIGTERM",
			})
			d.cmd.screen.Printf("leaving: taking only requests that end within %s; a second signal stops now. "+
				"Nothing is lost either way", left)
			return
		}

		d.cmd.printStop(fmt.Sprintf("finishing the requests in flight, at most %s", d.grace), "")
		stop(pipeline.ErrInterrupted)
	}, nothingToCount, "")

	d.cmd.goroutines.Go(func() {
		err := notice.Watch(d.cmd.ctx, notice.Config{
			Sources:  sources,
			Grace:    d.grace,
			Log:      d.cmd.log,
			Announce: func(n notice.Notice) { d.takeNotice(n, stop) },
		})
		if err != nil {
			stop(err)
		}
	})

	return ctx
}

// takeNotice lets the workers leave at a notice. If there are none by its deadline, stop ends the wait for them.
func (d *departures) takeNotice(n notice.Notice, stop context.CancelCauseFunc) {
	left := d.announce(worker.Departure{
		Deadline: n.Deadline,
		Reason:   n.Reason + " (" + n.Source + ")",
		Stay:     true, // a worker that is started again finds the same notice
	})
	d.cmd.screen.Printf("leaving: this box goes away (%s, %s); taking only requests that end within %s",
		n.Source, n.Reason, left)

	time.AfterFunc(time.Until(n.Deadline), func() {
		if !d.begun.Load() {
			stop(pipeline.ErrInterrupted)
		}
	})
}

// announce lets the workers leave, unless a departure before has a nearer deadline. It returns the time until the
// nearest, in whole seconds.
func (d *departures) announce(departure worker.Departure) (left time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()

	if d.deadline.IsZero() || departure.Deadline.Before(d.deadline) {
		d.deadline = departure.Deadline

		select {
		case <-d.leave: // its deadline is later
		default:
		}

		d.leave <- departure
	}

	return time.Until(d.deadline).Round(time.Second)
}

// endBy returns by when the process has to end; zero: there is no such time.
func (d *departures) endBy() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()

	if d.deadline.IsZero() {
		return time.Time{}
	}

	return d.deadline.Add(-endMargin)
}

// begin returns the departures for workers that begin.
func (d *departures) begin() <-chan worker.Departure {
	d.begun.Store(true)
	return d.leave
}

// describeEnd describes the end of the workers to the user; empty: they have ended for another reason than these.
func (d *departures) describeEnd(ctx context.Context) string {
	switch {
	case errors.Is(context.Cause(ctx), pipeline.ErrInterrupted):
		return "stopped; unfinished requests go to other workers"
	case !d.endBy().IsZero():
		return "left; unfinished requests go to other workers"
	}

	return ""
}
