package sweep

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/proto/bus"
)

// The bus refuses to pause a run that is over, and closes, before the run has written its files. That is the end of the
// run, and no error of the trial. Other errors are, and so is the end of the trial.
func TestRunThatEndsDuringItsTurn(t *testing.T) {
	t.Parallel()

	var (
		wrongState = fmt.Errorf("run r: %w: it is completed", bus.ErrWrongState)
		closed     = errors.New("nats: connection closed")
		never      = time.Duration(-1)
	)
	for name, c := range map[string]struct {
		err   error
		after time.Duration // the run ends
		stop  time.Duration // the trial is interrupted
		want  bool
	}{
		"its files take a minute":      {wrongState, time.Minute, never, true},
		"its bus has closed":           {closed, time.Second, never, true},
		"the bus fails, it goes on":    {closed, time.Hour, never, false},
		"the trial is interrupted":     {errEnded, never, time.Second, false},
		"it had ended before the step": {errEnded, 0, never, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()

				p := &player{ended: make(chan struct{})}
				if c.after >= 0 {
					time.AfterFunc(c.after, func() { close(p.ended) })
				}
				if c.stop >= 0 {
					time.AfterFunc(c.stop, cancel)
				}

				if got := p.isOver(ctx, c.err); got != c.want {
					t.Errorf("the run is over: %t, want %t", got, c.want)
				}
			})
		})
	}
}

// A server that answers nothing in three turns in a row, after it has answered, fails its variant. Before its first
// answer, only the budget ends it: nobody knows how long a request takes.
func TestSilentServer(t *testing.T) {
	t.Parallel()

	failed := trial.Decision{End: true, State: trial.Failed, Reason: "its server answered nothing in 3 turns in a row"}
	spent := trial.Decision{End: true, State: trial.Measured, Reason: "its budget of 10m0s is spent"}
	for name, c := range map[string]struct {
		answered []int // by the end of each turn
		minutes  int   // of each turn
		want     trial.Decision
	}{
		"it answers":           {[]int{5, 6, 7, 8}, 1, trial.Decision{}},
		"two silent turns":     {[]int{5, 5, 5}, 1, trial.Decision{}},
		"it answers again":     {[]int{5, 5, 5, 6, 6}, 1, trial.Decision{}},
		"no answer so far":     {[]int{0, 0, 0, 0}, 1, trial.Decision{}},
		"three silent turns":   {[]int{5, 5, 5, 5}, 1, failed},
		"no answer at all":     {[]int{0, 0}, 5, spent},
		"silent at its budget": {[]int{5, 5}, 5, spent},
	} {
		p := &player{variant: &variant{}}
		turns := &turns{sweeper: &sweeper{
			cfg: Config{
				Precision: 1e-6,
				Budget:    10 * time.Minute,
				Goal:      trial.Throughput,
			},
			record: &record{Variants: []*variant{p.variant}},
		}}
		for i, n := range c.answered {
			from := time.Date(2026, 1, 2, 12, i*c.minutes, 0, 0, time.UTC)
			to := from.Add(time.Duration(c.minutes) * time.Minute)
			p.Rounds = append(p.Rounds, trial.Round{Number: i + 1, From: from, To: to})
			if n > 0 {
				p.Run = newRun(1, int64(n))
			}
			p.countSilence()
		}

		got := turns.judgePlayer(p)
		if got.End != c.want.End || got.State == trial.Failed != (c.want.State == trial.Failed) ||
			got.Reason != c.want.Reason {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
