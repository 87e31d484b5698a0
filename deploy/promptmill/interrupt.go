package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
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

// interrupt ends ctx at the first signal, and the process at the second. doing is what is
// done after the first, safe is what is not lost at either.
func interrupt(
	ctx context.Context, env environment, screen *terminal.Screen, stop context.CancelCauseFunc, doing string,
	safe func() string,
) {
	select {
	case <-env.signals:
	case <-ctx.Done():
		return
	}

	screen.Printf("stopping: %s; press Ctrl-C again to stop now. %s", doing, safe())
	stop(errInterrupted)

	<-env.signals
	screen.Printf("stopped: %s", safe())
	env.exit(exit.CodeInterrupted)
}

// nothingLost is what is safe where there is nothing to count.
func nothingLost() string { return "Nothing is lost either way" }

// safe says what of a run is not lost: lines in the synced output, and results that the bus
// keeps for it. The next start counts both.
func (r *runner) safe() string {
	c := r.collecting.Load()
	if c == nil {
		return nothingLost()
	}

	p := c.Progress()
	text := fmt.Sprintf("Safe either way: %d of %d requests have their line", p.Durable, p.Total)
	if more := p.Received.Done - p.Durable; more > 0 {
		text += fmt.Sprintf(", and %d more results are on the bus", more)
	}

	return text + "; the same command goes on from there"
}

// untilSignal returns a context that ends at a signal, with errInterrupted, until the
// returned function is called: then signals are left to whoever is next.
func untilSignal(ctx context.Context, env environment) (context.Context, func()) {
	ctx, stop := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-env.signals:
			stop(errInterrupted)
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

// countResults is how many requests that have no line in the journal have a result on the
// bus: what the worker stored, and the collector did not come to write. It is for people,
// so a bus that does not answer has none.
func countResults(ctx context.Context, js jetstream.JetStream, m proto.Manifest, state *journal.State) int {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()

	found, stream, bounds := roaring.New(), proto.ResultsStream(m.Run), m.Bounds()
	next := state.Position.Sequence + 1
	take := func(msg *jetstream.RawStreamMsg) {
		next = msg.Sequence + 1
		if proto.IsDeliveryNote(msg.Header) {
			return
		}

		// else the collector leaves it out, too
		if batch, err := bounds.ParseBatch(msg.Subject, msg.Header); err == nil {
			found.AddMany(batch.Indexes)
		}
	}

	// By direct gets, since a role may make no consumer of its own.
	for {
		messages, err := jetstreamext.GetBatch(ctx, js, stream, 1024, jetstreamext.GetBatchSeq(next),
			jetstreamext.GetBatchMaxBytes(8<<20))
		if err != nil {
			break
		}

		before := next
		for msg, err := range messages {
			if err != nil || len(msg.Header[jetstream.SequenceHeader]) != 1 {
				break // the end, or a message that was published with the headers of an answer
			}
			bus.StripServerHeaders(msg.Header)
			take(msg)
		}

		if next > before {
			continue
		}

		msg, err := bus.NextMessage(ctx, js, stream, next, proto.ResultsSubject(m.Run, "*"))
		if err != nil {
			break
		}

		take(msg)
	}

	found.AndNot(state.Done)

	return int(found.GetCardinality())
}
