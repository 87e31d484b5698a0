package collector

import (
	"fmt"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// sampleSteadily gives a ledger a minute of samples of a run of 1,000 requests, of which 200 were there,
// and 10 a second come.
func sampleSteadily(l *ledger, load workerLoad) {
	l.received, l.found = proto.Counts{Done: 200}, proto.Counts{Done: 200}
	for second := range 61 {
		l.received.Done = 200 + 10*second
		l.sampleWork(time.Unix(int64(second), 0), 1000, load, true)
	}
}

// The remaining time is that of the requests without a line, at the rate of those that came.
func TestRemainingTime(t *testing.T) {
	t.Parallel()

	var l ledger
	sampleSteadily(&l, workerLoad{inFlight: 10, ready: 1})

	// 190 at 10 a second, and the last 10 of a second each, the longest of which takes 2.9 s.
	got := l.progress(1000).Remaining
	if got == nil || got.Low > 20 || got.Expected < 19 || got.Expected > 24 || got.High < 22 || got.High > 30 {
		t.Errorf("%+v, want some 22 s", got)
	}

	l.sampleWork(time.Unix(61, 0), 1000, workerLoad{ready: 1}, false)

	if got := l.progress(1000).Remaining; got != nil {
		t.Errorf("%+v while it does not work", got)
	}
}

// The lease has the remaining time while the run is in progress, and none once it is paused.
func TestLeaseHasRemainingTime(t *testing.T) {
	t.Parallel()

	const requests = 100_000
	b := newBench(t, requests, 64<<20)
	c := b.start()

	var published uint32
	remaining := func() *proto.Interval { // with a few more results
		worker := proto.WorkerInfo{ID: "w-1", Name: "w", Ready: true, InFlight: 10}
		fixture.Must(t, b.Bus.Heartbeats.Send(t.Context(), worker))
		b.Publish(fmt.Sprintf("0-%d", published), published, published+1)
		published += 2

		lease, _, err := b.Bus.Leases.Read(t.Context(), b.Manifest.Run)
		fixture.Must(t, err)

		if lease.Progress == nil {
			return nil
		}

		return lease.Progress.Remaining
	}

	prototest.Poll(t, testrun.Patience, "a remaining time", func() bool {
		got := remaining()
		if got != nil && (got.Low <= 0 || got.Low > got.Expected || got.Expected > got.High) {
			t.Errorf("%+v", got)
		}
		return got != nil
	})

	b.SetState(proto.StatePaused)
	prototest.Poll(t, testrun.Patience, "no remaining time of a paused run", func() bool { return remaining() == nil })
	c.stopped()
}
