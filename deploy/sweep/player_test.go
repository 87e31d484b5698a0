package sweep

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

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
