package sweep

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/gpu"
)

// Run runs the variants that the strategy proposes, or goes on with a trial that an earlier process has begun with
// the same configuration, and returns its result. The files of the trial are written after each variant.
//
// The end of ctx stops the trial gracefully. The error wraps [pipeline.ErrInterrupted] then, and the next Run with
// the same configuration goes on. A process that is killed loses nothing either. A variant that fails is a row of the
// result; an error ends the trial.
func Run(ctx context.Context, cfg Config) (*trial.Result, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}

	s := &sweeper{
		cfg:    cfg,
		folder: folder(cfg.Output + folderSuffix),
		cards:  cardReader{query: gpu.Query, log: cfg.Log},

		compared: map[[2]string]quality.Comparison{},
	}

	return s.run(ctx)
}

// sweeper is one call of [Run].
type sweeper struct {
	cfg    Config
	folder folder
	begun  time.Time

	record *record
	cards  cardReader
	// compared has the comparisons of the answers of variants, by their names.
	compared map[[2]string]quality.Comparison
}

// run runs the trial.
func (s *sweeper) run(ctx context.Context) (*trial.Result, error) {
	s.begun = time.Now()

	lock, err := statedir.Lock(s.cfg.State, statedir.ForOutput(s.cfg.State, string(s.folder)))
	if errors.Is(err, statedir.ErrLocked) {
		return nil, exit.WithHint(fmt.Errorf("another promptmill is working on this trial: %w", err),
			"wait for it, stop that process, or choose another name with -o")
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	defer statedir.RemoveEmpty(filepath.Dir(lock.Name()))

	if err := s.prepare(ctx); err != nil {
		return nil, s.describeError(ctx, err)
	}

	if err := s.judgeAgain(ctx); err != nil {
		return nil, s.describeError(ctx, err)
	}

	if err := s.runVariants(ctx); err != nil {
		return nil, s.describeError(ctx, err)
	}

	return s.writePage(true)
}

// prepare reads the record of the trial and its sample, or begins both.
func (s *sweeper) prepare(ctx context.Context) (err error) {
	if s.record, err = readRecord(s.folder); err != nil {
		return err
	}

	if s.record == nil {
		return s.begin(ctx)
	}

	return s.resume(ctx)
}

// runVariants runs what the strategy proposes until that is all.
func (s *sweeper) runVariants(ctx context.Context) error {
	for {
		list, err := s.listNext()
		if err != nil || len(list) == 0 {
			return err
		}

		if err := s.runBatch(ctx, list); err != nil {
			return err
		}
	}
}

// listNext returns the variants that the strategy proposes and that are still to run.
func (s *sweeper) listNext() (list []*variant, err error) {
	proposed := map[string]bool{}
	for _, spec := range s.cfg.Strategy.Next(s.record.ended()) {
		if proposed[spec.Name] {
			return nil, fmt.Errorf("sweep: the strategy proposes two variants of the name %q", spec.Name)
		}
		proposed[spec.Name] = true

		v, err := s.record.add(spec)
		if err != nil {
			return nil, err
		}
		if s.isToRun(v) {
			list = append(list, v)
		}
	}

	return list, nil
}

// isToRun reports whether a variant is still to run. One that has failed, or had no turn, is run again if the
// configuration wants it, once.
func (s *sweeper) isToRun(v *variant) bool {
	if s.cfg.Retry && (v.State == trial.Failed || v.State == trial.Skipped) && v.EndedAt.Before(s.begun) {
		v.begin()
	}
	return !v.State.HasEnded()
}

// runBatch runs variants: side by side where their servers can run so, and the others one after the other.
func (s *sweeper) runBatch(ctx context.Context, list []*variant) error {
	alone := func(v *variant) bool { return v.Spec.URL == "" && !s.cfg.SideBySide }
	together := slices.DeleteFunc(slices.Clone(list), alone)

	switch {
	case len(together) == 1:
		if err := s.runAlone(ctx, together[0]); err != nil {
			return err
		}
	case len(together) > 1:
		if err := s.runTurns(ctx, together); err != nil {
			return err
		}
	}

	for _, v := range list {
		if !alone(v) {
			continue
		}
		if err := s.runAlone(ctx, v); err != nil {
			return err
		}
	}

	return nil
}

// runAlone runs a variant while no other one runs. It returns an error that ends the trial.
func (s *sweeper) runAlone(ctx context.Context, v *variant) error {
	if s.isOver() {
		return s.end(ctx, v, trial.Skipped, s.describeOver())
	}

	if err := s.start(v); err != nil {
		return err
	}

	if v.isComplete(s.folder) {
		return s.conclude(ctx, v, nil)
	}

	server, err := s.openServer(ctx, v)
	if err == nil {
		err = s.runSample(ctx, v, server, newWatch(s, v))
		server.close(ctx)
	}

	return s.conclude(ctx, v, err)
}

// start notes that a variant begins.
func (s *sweeper) start(v *variant) error {
	if v.StartedAt.IsZero() {
		v.StartedAt = time.Now().UTC()
	}
	v.State = trial.Running

	if s.cfg.Hooks.Begin != nil {
		s.cfg.Hooks.Begin(v.Variant, v.number, len(s.record.Variants))
	}

	return s.record.write(s.folder)
}

// conclude ends a variant whose run has ended with err. It returns an error that ends the trial.
func (s *sweeper) conclude(ctx context.Context, v *variant, err error) error {
	over, isOver := errors.AsType[*overError](err)
	switch {
	case err == nil:
		state, reason := v.decided()
		return s.end(ctx, v, state, reason)
	case isOver && ctx.Err() == nil:
		return s.end(ctx, v, trial.Skipped, over.text)
	case ctx.Err() != nil || !isOfVariant(err):
		return err
	}

	return s.end(ctx, v, trial.Failed, describeFailure(err))
}

// end notes the end of a variant, judges its answers and writes the files of the trial.
func (s *sweeper) end(ctx context.Context, v *variant, state trial.State, reason string) error {
	if err := v.readRun(s.folder, s.record.SampleSHA256); err != nil {
		return err
	}

	switch {
	case v.Run == nil || state != trial.Measured:
	case v.Run.Results.SuccessCount == 0:
		state, reason = trial.Failed, "no request was answered"
	case v.Run.Status == proto.StateCancelled && v.Decided == "":
		reason = "its run was cancelled"
	}

	if err := s.judge(ctx, v); err != nil {
		return err
	}

	if err := v.noteMeta(); err != nil {
		return err
	}

	v.State, v.Reason, v.EndedAt = state, reason, time.Now().UTC()
	if err := s.record.write(s.folder); err != nil {
		return err
	}

	if s.cfg.Hooks.End != nil {
		s.cfg.Hooks.End(v.Variant)
	}

	_, err := s.writePage(false)

	return err
}

// isOver reports whether the time of the trial is over.
func (s *sweeper) isOver() bool { return s.cfg.Within > 0 && time.Since(s.begun) >= s.cfg.Within }

// describeOver says that the time of the trial is over.
func (s *sweeper) describeOver() string {
	return fmt.Sprintf("the %s of the trial were over", s.cfg.Within)
}

// overError is the error of a variant that the end of the trial's time kept from being measured: it has not failed.
type overError struct{ text string }

func (e *overError) Error() string { return e.text }

// describeError puts an error into words for the person who waits for the trial.
func (s *sweeper) describeError(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}

	done := 0
	if s.record != nil {
		done = len(s.record.ended())
	}

	return exit.Interrupted(&interruptedError{
		text:  fmt.Sprintf("interrupted: %s ended so far", terminal.CountOf(done, "variant")),
		cause: context.Cause(ctx),
	}, "run the same command again to continue; nothing is lost")
}

// interruptedError is the error of a trial whose context has ended.
type interruptedError struct {
	text  string
	cause error
}

func (e *interruptedError) Error() string   { return e.text }
func (e *interruptedError) Unwrap() []error { return []error{pipeline.ErrInterrupted, e.cause} }

// isOfVariant reports whether an error is of a variant: of its server, or of what that answers. Other errors, such as
// a full disk, would end all variants.
func isOfVariant(err error) bool {
	_, failed := errors.AsType[*serverError](err)
	return failed || exit.Code(err) == exit.CodeUnreachable
}

// serverError is an error of the server of a variant.
type serverError struct{ error }

func (e *serverError) Unwrap() error { return e.error }

// describeFailure puts the error of a variant into one line.
func describeFailure(err error) string {
	if failed, ok := errors.AsType[*serverError](err); ok { // without what the run adds
		err = failed.error
	}

	text := err.Error()
	if hint := exit.Hint(err); hint != "" {
		text += "; " + hint
	}

	return text
}
