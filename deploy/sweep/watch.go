package sweep

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/proto/bus"
)

// watch follows the run of a variant that runs alone, and ends it once enough is known.
type watch struct {
	*sweeper
	refusals

	variant *variant
	shown   trial.Variant               // as it began
	begun   time.Time                   // when its run began in this process
	speed   atomic.Pointer[trial.Speed] // as measured last
}

var _ follower = (*watch)(nil)

// newWatch returns the watch of a variant.
func newWatch(s *sweeper, v *variant) *watch {
	return &watch{
		sweeper:  s,
		refusals: refusals{limit: s.cfg.refusal},
		variant:  v,
		shown:    v.Variant,
	}
}

// follow measures the speed of the run every second, until ctx ends.
func (w *watch) follow(ctx context.Context, run pipeline.LiveRun) error {
	b, err := bus.Open(ctx, run.Bus.JS)
	if err != nil {
		return err
	}

	j := journal.Follow(run.Output.Journal())
	defer j.Close()

	w.begun = time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()

	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}

		if err := w.err(); err != nil {
			return err
		}

		if w.variant.Decided == "" {
			if err := w.variant.readJournal(j); err != nil {
				return err
			}
			if !w.decide() {
				continue
			}
			if err := w.record.write(w.folder); err != nil { // before the run ends: else no one knows why it did
				return err
			}
		}

		err := b.Runs.Cancel(ctx, run.Run)
		if err != nil && !errors.Is(err, bus.ErrWrongState) && ctx.Err() == nil { // else it is over already
			w.cfg.Log.Warn().Err(err).Str("variant", w.variant.Name).Msg("failed to end the run of the variant; retrying")
			continue
		}

		<-ctx.Done() // the run writes its files

		return nil
	}
}

// decide measures the speed of the variant, and decides whether it ends.
func (w *watch) decide() (ends bool) {
	v := w.variant
	measured := time.Since(w.begun)
	if v.Run != nil {
		// The metadata has the time until the last answer, of earlier processes too: a server that is gone gives none.
		measured = max(measured, time.Duration(v.Run.Results.InferenceTimeSeconds*float64(time.Second)))

		v.MeasuredUntil = v.describedAt
		speed := trial.MeasureSpeed(v.Variant)
		w.speed.Store(&speed)
	}

	d := w.judgeSpeed(v, measured)
	if d.End {
		v.Decided, v.Why = d.State, d.Reason
	}

	return d.End
}

// judgeSpeed decides whether a variant ends by its speed, or by the time for which it was measured.
func (s *sweeper) judgeSpeed(v *variant, measured time.Duration) trial.Decision {
	if v.Run == nil {
		return s.decideTime(measured)
	}

	others := s.record.others(v)
	if v.Spec.Whole {
		others = nil
	}

	if d := trial.Decide(v.Variant, others, s.cfg.Precision, s.cfg.Goal); d.End {
		return d
	}

	return s.decideTime(measured)
}

// decideTime ends a variant whose time is over.
func (s *sweeper) decideTime(measured time.Duration) (d trial.Decision) {
	switch {
	case measured >= s.cfg.Budget:
		d.Reason = fmt.Sprintf("its budget of %s is spent", s.cfg.Budget)
	case s.isOver():
		d.Reason = s.describeOver()
	default:
		return d
	}

	d.End, d.State = true, trial.Measured

	return d
}

// progress passes on the progress of the run, with its speed.
func (w *watch) progress(sample progress.Sample) {
	w.note(sample)
	if w.cfg.Hooks.Progress == nil {
		return
	}

	var speed trial.Speed
	if known := w.speed.Load(); known != nil {
		speed = *known
	}

	w.cfg.Hooks.Progress(w.shown, sample, speed)
}
