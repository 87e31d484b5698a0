package collector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// limited returns a change of a manifest that sets limits.
func limited(t *testing.T, maxTokens int64, failIf ...string) func(*proto.Manifest) {
	t.Helper()

	return func(m *proto.Manifest) {
		m.Policy.MaxTokens = maxTokens
		for _, text := range failIf {
			threshold, err := proto.ParseThreshold(text)
			fixture.Must(t, err)
			m.Policy.FailIf = append(m.Policy.FailIf, threshold)
		}
	}
}

// failedMoreThan2 is the limit failed>2 that is reached by 3 of some requests.
func failedMoreThan2(ended int) proto.ReachedLimit {
	return proto.ReachedLimit{Limit: "failed>2", Metric: proto.MetricFailed, Count: 3, Ended: ended}
}

// startLimited runs a collector whose stops go to a channel, and waits until it has begun: results
// that are there by then do not count.
func (b *bench) startLimited(stops chan proto.ReachedLimit) *process {
	b.T.Helper()

	c := b.start(func(cfg *Config) { cfg.OnStopped = func(r proto.ReachedLimit) { stops <- r } })
	prototest.Poll(b.T, testrun.Patience, "a collector", func() bool {
		_, held, err := b.Bus.Leases.Holder(b.T.Context(), "r")
		return err == nil && held
	})

	return c
}

// checkStop compares a limit that has stopped a run, without the time.
func checkStop(t *testing.T, got, want proto.ReachedLimit) {
	t.Helper()

	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(proto.ReachedLimit{}, "At")); diff != "" || got.At.IsZero() {
		t.Errorf("stopped at %v (-want +got):\n%s", got.At, diff)
	}
}

// checkPaused checks that the run is paused on the bus by a limit.
func (b *bench) checkPaused(want proto.ReachedLimit) {
	b.T.Helper()

	m, err := b.Bus.Runs.Get(b.T.Context(), "r")
	fixture.Must(b.T, err)
	if m.State != proto.StatePaused || m.StoppedBy == nil {
		b.T.Fatalf("the run is %s, stopped by %v", m.State, m.StoppedBy)
	}

	checkStop(b.T.(*testing.T), *m.StoppedBy, want)
}

// resume resumes the run on the bus, and waits until its collector has seen it.
func (b *bench) resume(c *process) {
	b.T.Helper()

	fixture.Must(b.T, b.Bus.Runs.Resume(b.T.Context(), "r"))
	prototest.Poll(b.T, testrun.Patience, "a judge that begins afresh", func() bool {
		c.limits.mu.Lock()
		defer c.limits.mu.Unlock()

		return c.limits.reached == nil && c.limits.working
	})
}

// A run is stopped by what fails since its start: not by results that were there before, and not by
// what failed before it was resumed. It is stopped again if more fails, and ends as any other.
func TestLimitStopsTheRun(t *testing.T) {
	t.Parallel()

	b := newBench(t, 40, 16<<20, limited(t, 0, "failed>2"))
	stops := make(chan proto.ReachedLimit, 8)
	b.Publish("0-0", fixture.Indexes(9)...) // 2, 5 and 8 have failed

	c := b.startLimited(stops)
	c.waitDurable(9)
	b.Publish("0-1", 9, 10, 11, 12, 13, 14, 15, 16)
	c.waitDurable(17)
	if len(stops) > 0 {
		t.Fatalf("stopped by two failures: %v", <-stops)
	}

	b.Publish("0-1", 17)
	checkStop(t, <-stops, failedMoreThan2(9))
	b.checkPaused(failedMoreThan2(9))
	c.waitDurable(18)

	// Requests that were in flight.
	b.Publish("0-2", 20, 23)
	c.waitDurable(20)
	b.checkPaused(failedMoreThan2(9))

	b.resume(c)
	b.Publish("0-2", 26, 29)
	c.waitDurable(22)
	b.Publish("0-2", 32)
	checkStop(t, <-stops, failedMoreThan2(3))
	c.stopped()

	// Another collector finds the run stopped, reports it once, and waits.
	c = b.startLimited(stops)
	checkStop(t, <-stops, failedMoreThan2(3))
	b.checkPaused(failedMoreThan2(3))

	b.resume(c)
	b.Publish("0-3", 18, 19, 21, 22, 24, 25, 27, 28, 30, 31, 33, 34, 36, 37, 39)
	b.Publish("0-3", 35, 38)

	meta := b.waitCompleted(c)
	if len(stops) > 0 {
		t.Errorf("stopped once more: %v", <-stops)
	}

	if len(meta.Results.Stops) != 2 || meta.Manifest.StoppedBy != nil {
		t.Fatalf("the metadata has the stops %v, and %v", meta.Results.Stops, meta.Manifest.StoppedBy)
	}

	checkStop(t, meta.Results.Stops[0], failedMoreThan2(9))
	checkStop(t, meta.Results.Stops[1], failedMoreThan2(3))
}

// Tokens count over all starts: a run that has none left is stopped before anything comes. Other
// limits that come with the resumption count from then on, and are in the metadata.
func TestTokensStopTheRun(t *testing.T) {
	t.Parallel()

	b := newBench(t, 6, 16<<20, limited(t, 24))
	stops := make(chan proto.ReachedLimit, 8)
	c := b.startLimited(stops)
	b.Publish("0-0", 0, 1, 3)

	want := proto.ReachedLimit{Tokens: 24, MaxTokens: 24}
	checkStop(t, <-stops, want)
	b.checkPaused(want)
	c.stopped()

	// A bus that has lost the run does not know that it was stopped.
	b.Update(func(m *proto.Manifest) { m.State, m.StoppedBy = proto.StateInProgress, nil })
	c = b.startLimited(stops)
	checkStop(t, <-stops, want)
	b.checkPaused(want)

	fixture.Must(t, b.Bus.Runs.ResumeWith(t.Context(), "r", proto.RunPolicy{MaxTokens: 1000}))
	b.Publish("0-1", 2, 4, 5)

	meta := b.waitCompleted(c)
	if len(meta.Results.Stops) != 2 || meta.Manifest.Policy.MaxTokens != 1000 {
		t.Errorf("the stops are %v, the limit is %d", meta.Results.Stops, meta.Manifest.Policy.MaxTokens)
	}
}

// What ends a run early ends a stopped run too.
func TestEarlyEndOfAStoppedRun(t *testing.T) {
	t.Parallel()

	for state, end := range map[proto.State]func(*bench){
		proto.StateCancelled: func(b *bench) { fixture.Must(b.T, b.Bus.Runs.Cancel(b.T.Context(), "r")) },
		proto.StateExpired: func(b *bench) {
			b.Update(func(m *proto.Manifest) { m.Policy.ExpiresAt = new(time.Now().Add(-time.Second)) })
		},
	} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 40, 16<<20, limited(t, 0, "failed>2"))
			stops := make(chan proto.ReachedLimit, 8)
			c := b.startLimited(stops)
			b.Publish("0-0", fixture.Indexes(9)...)
			checkStop(t, <-stops, failedMoreThan2(9))

			end(b)
			meta := b.waitEnd(c, state)
			m, err := b.Bus.Runs.Get(t.Context(), "r")
			if err != nil || len(meta.Results.Stops) != 1 || m.StoppedBy != nil || len(stops) > 0 {
				t.Errorf("the metadata has the stops %v, the bus %v, %v; %d more", meta.Results.Stops, m.StoppedBy, err, len(stops))
			}
		})
	}
}

// Publishing lost requests again does not resume a stopped run.
func TestRepublishLeavesAPause(t *testing.T) {
	t.Parallel()

	b := newBench(t, 40, 16<<20)
	fixture.Must(t, b.Bus.Runs.Stop(t.Context(), "r", failedMoreThan2(9)))
	fixture.Must(t, RepublishMissing(t.Context(), b.JS, b.Bus.Runs, "r", 0, openJournal(t, b.out.Journal()).State().Missing()))

	m, err := b.Bus.Runs.Get(t.Context(), "r")
	if err != nil || m.State != proto.StatePaused || m.StoppedBy == nil || m.Publish.Round != 1 {
		t.Errorf("the run is %s in round %d, stopped by %v, %v", m.State, m.Publish.Round, m.StoppedBy, err)
	}
}
