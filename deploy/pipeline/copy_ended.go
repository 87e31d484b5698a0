package pipeline

import (
	"context"
	"errors"
	"fmt"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// endedError is the error of an ended run whose results the bus does not have. Waiting does not help.
type endedError struct{ error }

func (e endedError) Unwrap() error { return e.error }

// refuseCopy returns the error for an ended run that cannot be copied, with the place of its answers.
func refuseCopy(m proto.Manifest, why string) error {
	hint := "promptmill tail " + m.Run + " prints the results that are left"
	if m.Output != "" {
		hint = "its answers are in " + m.Output + output.ResultsSuffix
	}

	return endedError{exit.WithHint(fmt.Errorf("run %s is %s, and %s", m.Run, m.State, why), hint)}
}

// refuseRetried is [refuseCopy] for a run that was retried.
func refuseRetried(m proto.Manifest) error {
	return refuseCopy(m, "was retried: the bus has the failures of its first attempt, too")
}

// copyEnded writes the files of a run that has ended from the results that are on the bus still, and
// changes nothing there. The run is noted in the history where it was collected.
func (c *runCollector) copyEnded(ctx context.Context, runs *bus.RunStore, m proto.Manifest) (*metadata.Run, error) {
	c.unnoted = true

	if m.State == proto.StateFailed {
		return nil, endedError{RefusedRunError(m)}
	}

	j, err := c.openJournal(ctx, m)
	if errors.Is(err, errWritten) {
		return c.finishWritten(ctx, runs)
	}
	if err != nil {
		return nil, err
	}

	defer j.Close()

	if err := claimOutput(j, c.Output); err != nil {
		return nil, err
	}

	err = c.copyInto(ctx, m, j)
	if _, refused := errors.AsType[endedError](err); refused && j.State().Manifest.State.Ended() {
		err = errors.Join(err, c.Output.RemoveStale(), j.Remove()) // it has the lines of a copy alone
	}
	if err == nil || ctx.Err() == nil {
		c.removeInput()
	}
	if err != nil {
		return nil, err
	}

	c.copied = true

	return c.Output.ReadMeta()
}

// copyInto copies the results of an ended run into a journal, and writes the files.
func (c *runCollector) copyInto(ctx context.Context, m proto.Manifest, j *journal.Journal) error {
	then := j.State().Manifest
	if then.Retries != m.Retries || then.State.Ended() && m.Retries > 0 {
		return refuseRetried(m)
	}

	if j.State().Position.Sequence == 0 {
		if err := collector.CheckResultsKept(ctx, c.Bus.JS, c.Run); err != nil {
			return describeCopyError(m, err)
		}
	}

	from, err := collector.New(collector.Config{
		JS:            c.Bus.JS,
		Journal:       j,
		Output:        c.Output,
		Host:          HostName(),
		FlushInterval: c.FlushInterval,
		Format:        c.Table.format(c.Format),
		WriteTables:   c.table.forCollector(m, c.Format),
		OnWritten:     func() { c.reporter().writeFor(c.Output) },
		Input:         Input{Run: m, Files: c.filesOf(m)},
		Info:          collector.RunInfo{Platform: "OpenAI-compatible servers", Version: c.Version},
		Log:           c.Log,
	})
	if err != nil {
		return err
	}

	v := progress.NewStart("collect", m, c.Output, j.State().Counts.Done)
	setPlace(&v, c.Table, c.Upload)
	v.Bus = describeBus(c.Bus)
	c.Hooks.start(v)
	defer c.Hooks.startProgress(&progress.Source{Run: m, Counts: from.Progress, JS: c.Bus.JS})()

	return describeCopyError(m, from.Copy(ctx, m))
}

// describeCopyError describes the error of copying an ended run.
func describeCopyError(m proto.Manifest, err error) error {
	if errors.Is(err, collector.ErrResultsGone) {
		return refuseCopy(m, collector.ErrResultsGone.Error())
	}

	return err
}

// isStaleCopy reports whether a journal is the copy of an ended run that was retried since.
func isStaleCopy(then, now proto.Manifest) bool {
	return then.State.Ended() && (!now.State.Ended() || then.Retries != now.Retries)
}
