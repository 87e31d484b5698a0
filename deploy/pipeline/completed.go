package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// completed returns the result of the output if it is complete and belongs to this run. hadState
// is set if the process that completed it may have died before it had removed its state.
func (r *runner) completed(ctx context.Context, hadState bool) (*Result, error) {
	if files.Exists(r.output.Journal()) {
		return nil, nil
	}

	if !files.Exists(r.output.Meta()) {
		return nil, checkNotForeign(r.output)
	}

	meta, err := r.output.ReadMeta()
	if err != nil {
		return nil, exit.WithHint(err, metaHint(err))
	}

	if err := r.checkSameRun(ctx, *meta.Manifest); err != nil {
		return nil, err
	}

	if err := checkWritten(r.output, meta); err != nil {
		return nil, err
	}

	r.finishCleanup(ctx, meta, hadState)
	if r.cfg.Retry && meta.Results.FailureCount > 0 {
		return nil, r.reopen(meta)
	}

	r.cfg.Hooks.printLines(listIgnoredCut(meta.Manifest.Settings.WithDefaults(), r.cfg.Settings))
	r.cfg.Hooks.printLines(listIgnoredFormat(meta.Config, r.cfg.Format))

	if label := r.cfg.Label; label != "" && label != meta.Label {
		r.cfg.Hooks.printf("--label is ignored: the run is complete and %s", describeLabel(meta.Label))
	}

	if err := r.table.complete(ctx, meta); err != nil {
		return nil, r.describeError(ctx, err)
	}

	r.removeState()
	if !files.Exists(r.output.ReportHTML()) {
		r.reporter().write(meta, r.output)
	}

	res := newResult(r.output, meta, r.cfg.Policy)
	res.WasComplete = true

	return res, nil
}

// describeLabel describes the label that a complete run keeps.
func describeLabel(label string) string {
	if label == "" {
		return "has no label"
	}
	return fmt.Sprintf("keeps its label %q", label)
}

// checkNotForeign refuses an output of which a file exists that no run of promptmill has described.
func checkNotForeign(out output.Prefix) error {
	for _, path := range []string{out.Results(), out.Errors(), out.ReportMarkdown(), out.ReportHTML()} {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}

		if !info.Mode().IsRegular() {
			return CheckOutput(out)
		}

		return exit.WithHint(fmt.Errorf("%s is there, and was not written by promptmill, or its metadata is gone",
			path),
			"move it away, or choose another output with -o")
	}

	return nil
}

// checkWritten refuses a complete output whose files do not match its metadata: they must
// not be taken for its answers.
func checkWritten(out output.Prefix, meta *metadata.Run) error {
	err := out.CheckFiles(meta)
	if errors.Is(err, output.ErrModified) {
		return exit.WithHint(fmt.Errorf("run %s is complete, but %w", meta.TestID, err),
			"put the file back, or remove "+files.Short(out.Meta())+
				" and the remaining files of the output to run all of it again")
	}

	return err
}

// finishCleanup does steps that the process that completed the run may have missed: it notes
// the end of the run on the bus, and removes temporary files and the state. Failures are
// warnings.
func (r *runner) finishCleanup(ctx context.Context, meta *metadata.Run, hadState bool) {
	if err := r.output.RemoveStale(); err != nil {
		r.cfg.Log.Warn().Err(err).Msg("failed to remove temporary files")
	}

	if !hadState {
		return
	}

	if r.cfg.Bus.External() {
		if err := r.noteEndOnBus(ctx, meta); err != nil {
			r.endUnnoted = true
			r.cfg.Log.Warn().Err(err).
				Msg("failed to note the end of the run on the bus; the same command tries it again")
		}
	}

	// The store of an earlier embedded server has the failed answers, which a retry must not find.
	if err := statedir.Clear(r.stateDir, r.inputs); err != nil {
		r.cfg.Log.Warn().Err(err).Msg("failed to remove the state of the complete run; it can be deleted")
	}
}

// noteEndOnBus notes the end of a complete run on a NATS server that is not ours.
func (r *runner) noteEndOnBus(ctx context.Context, meta *metadata.Run) error {
	l, err := busconn.Connect(r.cfg.Bus, proto.RoleCollector, r.cfg.Log)
	if err != nil {
		return err
	}
	defer l.Close()

	b, err := bus.Open(ctx, l.JS)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil
	}
	if err != nil {
		return err
	}

	runs := b.Runs
	m, err := runs.Get(ctx, meta.TestID)
	switch {
	case errors.Is(err, proto.ErrNoRun):
	case err != nil:
		return err
	case m.CreatedAt.Equal(meta.Manifest.CreatedAt) && m.Retries == meta.Manifest.Retries:
		// else another run has the name
		out := proto.CollectorInfo{Host: HostName(), Output: string(r.output)}
		if err := noteEnd(ctx, l.JS, runs, meta, out.String()); err != nil {
			return err
		}
	}

	return sweepEnded(ctx, l.JS, runs, time.Now(), nil, r.cfg.Hooks)
}

// reopen makes a journal of a complete output whose failed requests are to be run again.
func (r *runner) reopen(meta *metadata.Run) error {
	if err := CheckOutput(r.output); err != nil {
		return err
	}

	if meta.Config.Plain {
		return exit.WithHint(fmt.Errorf("%s: %w", r.output.Results(), journal.ErrPlain),
			"run the failed lines of the input again, with another output")
	}

	if err := r.table.checkRetry(r.cfg.Format); err != nil {
		return err
	}

	m := *meta.Manifest
	m.Policy = m.Policy.WithLimits(r.cfg.Policy)
	if used := m.FindTokensUsedUp(); used != nil {
		return exit.LimitReached(used.Key(), &LimitError{
			Reached: *used,
			text:    fmt.Sprintf("run %s: %s; the failed requests were not run again", m.Run, used),
		}, raiseTokens)
	}

	m.State, m.EndedAt, m.Publish = proto.StateInProgress, nil, proto.PublishState{}
	m.Policy.ExpiresAt = r.cfg.Policy.ExpiresAt
	m.Retries++
	r.relabel(&m)

	j, err := journal.CreateFromOutput(r.output, meta, m, journal.Position{})
	if err != nil {
		return err
	}

	r.cfg.Hooks.printf("running the %s again",
		terminal.CountOf(meta.Results.FailureCount, "failed request"))

	return j.Close()
}
