package worker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// A request passes the gate as soon as nothing closes it any more, and not at all if the server is
// down for too long.
func TestSendGate(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		shut  func(*serverSide)
		open  func(*serverSide) // after a second; nil: nothing does
		after time.Duration
		want  bool
	}{
		{
			name: "open",
			shut: func(*serverSide) {},
			want: true,
		},
		{
			name:  "the server was down",
			shut:  func(s *serverSide) { s.state.markDown("down", errors.New("gone")) },
			open:  func(s *serverSide) { s.state.markUp() },
			after: time.Second,
			want:  true,
		},
		{
			name:  "the server stays down",
			shut:  func(s *serverSide) { s.state.markDown("down", errors.New("gone")) },
			after: downGrace,
		},
		{
			name: "the server hangs",
			shut: func(s *serverSide) { s.state.markHung(errors.New("no answer")) },
		},
		{
			name:  "the server begins to hang",
			shut:  func(s *serverSide) { s.state.markDown("down", errors.New("gone")) },
			open:  func(s *serverSide) { s.state.markHung(errors.New("no answer")) },
			after: time.Second,
		},
		{
			name: "refusals were undecided, until a request is let in",
			shut: func(s *serverSide) {
				for range enoughSureRefusals {
					s.refusals.add(&task{}, classification{}, 0)
				}
			},
			open: func(s *serverSide) {
				s.admissions.record(chatRequests(0, 0)[0], classification{}, time.Now(), 0)
			},
			after: time.Second,
			want:  true,
		},
		{
			name: "refusals were undecided, until they are taken out",
			shut: func(s *serverSide) {
				for range enoughSureRefusals {
					s.refusals.add(&task{}, classification{}, 0)
				}
			},
			open:  func(s *serverSide) { s.refusals.take(func(refusal) bool { return true }) },
			after: time.Second,
			want:  true,
		},
		{
			name:  "one request was sent alone",
			shut:  func(s *serverSide) { s.cutoffs.setBlocked(true) },
			open:  func(s *serverSide) { s.cutoffs.endProbe(1, false) },
			after: time.Second,
			want:  true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				w := newWorker(t, Config{JS: noBus{}, Server: new(modelserver.Server), Limiter: limit.Fixed(1)})
				begin := time.Now()
				tt.shut(w.server)

				if tt.open != nil {
					time.AfterFunc(time.Second, func() { tt.open(w.server) })
				}

				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()

				if got := w.server.gate.await(ctx); got != tt.want {
					t.Errorf("the gate opens: %t, want %t", got, tt.want)
				}

				if took := time.Since(begin); took != tt.after {
					t.Errorf("it took %v, want %v", took, tt.after)
				}
			})
		})
	}
}

// A request that waits for the throttle passes when another one has ended.
func TestSendGateThrottled(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		limiter := limit.Fixed(4)
		w := newWorker(t, Config{JS: noBus{}, Server: new(modelserver.Server), Limiter: limiter})
		w.server.cutoffs.throttle.setLimit(1, 0)

		slot, err := limiter.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}

		begin := time.Now()
		time.AfterFunc(time.Minute, func() {
			limiter.Release(slot, limit.Outcome{})
			w.server.cutoffs.recordFreedSlot()
		})

		if !w.server.gate.await(t.Context()) || time.Since(begin) != time.Minute {
			t.Errorf("the gate opens after %v", time.Since(begin))
		}
	})
}
