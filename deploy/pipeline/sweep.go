package pipeline

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// answerTime is the time that the pipeline waits for an answer of the bus.
const answerTime = 15 * time.Second

// sweepEndedRuns is sweepEnded for a process that does not stay.
func sweepEndedRuns(ctx context.Context, js jetstream.JetStream, hooks Hooks) error {
	b, err := bus.Open(ctx, js)
	if err != nil {
		return err
	}
	return sweepEnded(ctx, js, b.Runs, time.Now(), nil, hooks)
}

// sweepEnded deletes the ended runs whose time on the bus is over. It calls before, if that is not nil, for
// each of them first, and leaves a run for which that fails.
func sweepEnded(
	ctx context.Context, js jetstream.JetStream, runs *bus.RunStore, now time.Time,
	before func(context.Context, proto.Manifest) error, hooks Hooks,
) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	list, err := runs.List(ctx)
	if err != nil {
		return err
	}

	for _, m := range list {
		if !m.State.Ended() || m.EndedAt == nil ||
			now.Before(m.EndedAt.Add(time.Duration(m.Policy.KeepSeconds)*time.Second)) {
			continue
		}

		if before != nil {
			if beforeErr := before(ctx, m); beforeErr != nil {
				err = beforeErr
				continue
			}
		}

		if err := DeleteRun(ctx, js, runs, m); err != nil {
			return err
		}

		hooks.printf("run %s has left the bus: it ended %s ago", m.Run, terminal.FormatAge(now.Sub(*m.EndedAt)))
	}

	return err
}

// orphanAge is the age at which streams without a manifest are removed.
const orphanAge = time.Minute

// SweepDeleted finishes deletions that were cut short: a run that was deleted has no streams of
// some age. The streams of a run that was never deleted stay, even without its manifest: the
// bus may have lost that.
func SweepDeleted(
	ctx context.Context, js jetstream.JetStream, runs *bus.RunStore, age time.Duration, hooks Hooks,
) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	deleted, err := runs.ListDeleted(ctx)
	if err != nil || len(deleted) == 0 {
		return err
	}

	// There are ever more deleted runs, and few streams: only runs that have one are looked at. A
	// role may not list the streams; it looks at all runs.
	there, listed := listStreams(ctx, js)
	has := func(s jetstream.StreamConfig) bool { return there[s.Name] }
	for _, run := range deleted {
		if listed && !slices.ContainsFunc(bus.RunStreamConfigs(run, bus.Limits{}), has) {
			continue
		}

		left, err := bus.OrphanedStreams(ctx, js, run, age)
		if err != nil {
			return err
		}

		if len(left) == 0 {
			continue
		}

		if err := bus.DeleteStreams(ctx, js, run); err != nil {
			return err
		}

		hooks.printf("run %s had been deleted; its remains are now off the bus", run)
	}

	return nil
}

// listStreams returns the names of all streams, and whether they could be listed.
func listStreams(ctx context.Context, js jetstream.JetStream) (names map[string]bool, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // a request that is not allowed has no answer
	defer cancel()

	names = map[string]bool{}
	streams := js.StreamNames(ctx)
	for name := range streams.Name() {
		names[name] = true
	}

	return names, streams.Err() == nil
}

// DeleteRun takes a run off the bus. The manifest of an ended run goes last, so that the next
// deletion finds the remains of a crash. The manifest of any other run goes first: all processes
// follow it, and the collector of the run would make its streams again.
func DeleteRun(ctx context.Context, js jetstream.JetStream, runs *bus.RunStore, m proto.Manifest) error {
	if !m.State.Ended() {
		return errors.Join(runs.Delete(ctx, m.Run), bus.DeleteStreams(ctx, js, m.Run))
	}
	if err := bus.DeleteStreams(ctx, js, m.Run); err != nil {
		return err
	}
	return runs.Delete(ctx, m.Run)
}
