package batch

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// after lists the states that may come after a state, of those that OpenAI's API has. A client that
// looks now and then does not see each.
var after = map[proto.State][]proto.State{
	proto.StateValidating: {
		proto.StateFailed, proto.StateInProgress, proto.StateFinalizing, proto.StateCompleted, proto.StateExpired,
		proto.StateCancelling, proto.StateCancelled,
	},
	proto.StateInProgress: {
		proto.StateFailed, proto.StateFinalizing, proto.StateCompleted, proto.StateExpired, proto.StateCancelling,
		proto.StateCancelled,
	},
	proto.StateFinalizing: {
		proto.StateFailed, proto.StateCompleted, proto.StateExpired, proto.StateCancelling, proto.StateCancelled,
	},
	proto.StateCancelling: {proto.StateCancelled},
}

// checkStep checks what a client sees of a batch, and then again.
func checkStep(t testing.TB, then, now Batch) {
	t.Helper()

	if now.Retries < then.Retries {
		t.Errorf("batch %s had %d retries and has %d", now.ID, then.Retries, now.Retries)
	}
	if now.Retries > then.Retries {
		then = reopen(then, now)
	}

	if then.State != now.State && !slices.Contains(after[then.State], now.State) {
		t.Errorf("batch %s was %s and is %s", now.ID, then.State, now.State)
	}

	if then.ID != now.ID || then.Run != now.Run || then.Owner != now.Owner || then.InputFileID != now.InputFileID ||
		!then.CreatedAt.Equal(now.CreatedAt) || !then.ExpiresAt.Equal(now.ExpiresAt) {
		t.Errorf("batch %+v\nis now %+v", then, now)
	}

	for what, is := range map[string]struct{ then, now string }{
		"output file": {then.OutputFileID, now.OutputFileID},
		"error file":  {then.ErrorFileID, now.ErrorFileID},
	} {
		if is.then != "" && is.then != is.now {
			t.Errorf("batch %s had the %s %s and has %q", now.ID, what, is.then, is.now)
		}
	}

	if now.Completed < then.Completed || now.Failed < then.Failed || now.Total < then.Total {
		t.Errorf("batch %s had the counts %d, %d of %d and has %d, %d of %d", now.ID, then.Completed, then.Failed,
			then.Total, now.Completed, now.Failed, now.Total)
	}

	was, is := listTimes(then), listTimes(now)
	for i := range was {
		if !was[i].IsZero() && !was[i].Equal(is[i]) {
			t.Errorf("batch %s (%s): time %d was %s and is %s", now.ID, now.State, i, was[i], is[i])
		}
	}

	checkTimes(t, now)
}

// reopen returns a batch as it has to be once its run is retried: as it was in progress, without failed
// requests and without an end of its time.
func reopen(then, now Batch) Batch {
	if then.State != proto.StateValidating {
		then.State = proto.StateInProgress
	}

	then.Failed, then.ErrorFileID = 0, ""
	then.ExpiresAt = time.Time{}
	then.FinalizingAt, then.CompletedAt, then.ExpiredAt = time.Time{}, time.Time{}, time.Time{}
	then.CancellingAt, then.CancelledAt = time.Time{}, time.Time{}
	then.Retries = now.Retries

	return then
}

// listTimes lists the times of the states.
func listTimes(b Batch) []time.Time {
	return []time.Time{
		b.CreatedAt, b.InProgressAt, b.FinalizingAt, b.CompletedAt, b.FailedAt, b.ExpiredAt,
		b.CancellingAt, b.CancelledAt,
	}
}

// checkTimes checks that a batch has the times of its state, in their order, and none of
// another end.
func checkTimes(t testing.TB, b Batch) {
	t.Helper()

	ends := map[proto.State]time.Time{
		proto.StateCompleted: b.CompletedAt,
		proto.StateFailed:    b.FailedAt,
		proto.StateExpired:   b.ExpiredAt,
		proto.StateCancelled: b.CancelledAt,
	}
	for s, at := range ends {
		if at.IsZero() == (b.State == s) {
			t.Errorf("batch %s is %s, and the time of %s is %s", b.ID, b.State, s, at)
		}
	}

	order := slices.DeleteFunc([]time.Time{
		b.CreatedAt, b.InProgressAt, b.FinalizingAt, b.CancellingAt, ends[b.State],
	}, time.Time.IsZero)
	if !slices.IsSortedFunc(order, time.Time.Compare) {
		t.Errorf("batch %s is %s, with the times %v", b.ID, b.State, order)
	}

	if b.State == proto.StateInProgress && b.InProgressAt.IsZero() ||
		b.State == proto.StateCancelling && b.CancellingAt.IsZero() ||
		b.State == proto.StateFinalizing && b.FinalizingAt.IsZero() {
		t.Errorf("batch %s is %s without its time: %+v", b.ID, b.State, b)
	}
}

// Whatever is seen of a run in whatever order, its batch moves along the states, and its counts do
// not fall. A client may have cancelled it. A retry of the run opens the batch again, and what is older than
// the retry changes nothing.
func TestFollow(t *testing.T) {
	t.Parallel()

	states := []proto.State{
		proto.StateValidating, proto.StateInProgress, proto.StatePaused, proto.StateFinalizing, proto.StateCancelling,
		proto.StateCompleted, proto.StateCancelled, proto.StateExpired, proto.StateFailed,
	}

	for seed := range uint64(20_000) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
		created := now
		r := record{
			Run:          "r",
			State:        proto.StateValidating,
			CreatedAt:    now,
			ExpiresAt:    now.Add(time.Hour),
			OutputFileID: "file-a",
			ErrorFileID:  "file-b",
		}

		answered, failed, retries, retriedAt := 0, 0, 0, time.Time{}
		for range 1 + rnd.IntN(12) {
			now = now.Add(time.Duration(rnd.IntN(5)) * time.Second)
			m := proto.Manifest{Run: "r", CreatedAt: created, State: states[rnd.IntN(len(states))]}
			if rnd.IntN(3) > 0 {
				m.StateAt = now.Add(-time.Duration(rnd.IntN(30)) * time.Second)
			}
			if retries > 0 && rnd.IntN(4) == 0 {
				m.Retries, m.StateAt = retries-1, retriedAt.Add(-time.Duration(rnd.IntN(5))*time.Second)
			} else {
				if r.State.Ended() && r.State != proto.StateFailed && rnd.IntN(2) == 0 {
					retries, failed, retriedAt = retries+1, 0, now
					m.StateAt = now
				}
				m.Retries = retries
				if !m.StateAt.IsZero() {
					m.StateAt = latest(m.StateAt, retriedAt)
				}
			}
			if m.State.Ended() && rnd.IntN(5) > 0 {
				m.EndedAt = new(now.Add(-time.Duration(rnd.IntN(5)) * time.Second))
			}

			if m.State != proto.StateValidating {
				m.Input.Requests = 100
				answered = min(70, answered+rnd.IntN(20))
				failed = min(30, failed+rnd.IntN(8))
				m.Counts.Done, m.Counts.Failed = answered+failed, failed
				if rnd.IntN(4) == 0 && !m.State.Ended() {
					m.Counts = proto.Counts{} // the bus has lost them
				}
			}

			before := r.describe()
			cancels := rnd.IntN(6) == 0 && rank(r.State) < rank(proto.StateFinalizing)
			if cancels {
				r.State, r.CancellingAt = proto.StateCancelling, latest(now, r.InProgressAt, r.CreatedAt)
			} else {
				r = r.follow(m, now)
			}

			checkStep(t, before, r.describe())
			if !cancels && m.State != proto.StateValidating && m.Retries == retries && r.Retries != retries &&
				r.State != proto.StateFailed {
				t.Errorf("the batch has %d retries of %d", r.Retries, retries)
			}
		}

		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
