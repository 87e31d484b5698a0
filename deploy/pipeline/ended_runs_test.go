package pipeline

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

// recordedEvents records the runs that have ended. Each fails some times first.
type recordedEvents struct {
	// failures is how often a run is refused.
	failures int

	// mu guards the fields below.
	mu    sync.Mutex
	tries map[string]int
	taken map[string]int
}

func newRecordedEvents(failures int) *recordedEvents {
	return &recordedEvents{failures: failures, tries: map[string]int{}, taken: map[string]int{}}
}

// AddRun implements [Events].
func (e *recordedEvents) AddRun(_ context.Context, m proto.Manifest) error {
	e.mu.Lock()
	defer e.mu.Unlock()

	e.tries[m.Run]++
	if e.tries[m.Run] <= e.failures {
		return errors.New("not now")
	}

	e.taken[m.Run]++

	return nil
}

// Run implements [Events].
func (e *recordedEvents) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// count returns how often each run was taken.
func (e *recordedEvents) count() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.taken)
}

// endedManifest returns a run that has ended, and is not kept.
func endedManifest(run string) proto.Manifest {
	now := time.Now().UTC()
	return proto.Manifest{
		Schema:    proto.ManifestSchema,
		Run:       run,
		State:     proto.StateCompleted,
		CreatedAt: now,
		EndedAt:   &now,
	}
}

// A server passes on each run that has ended, also one that it finds at its start, until that succeeds; not a
// run whose owner waits for it. A run leaves the bus only then, although its time is over.
func TestServeEvents(t *testing.T) {
	t.Parallel()

	s := startServer(t)
	runs := bus.New(s.JS).Runs
	before, attended := endedManifest("before"), endedManifest("attended")
	attended.Policy.Attended = true
	must(t, runs.Create(t.Context(), before))
	must(t, runs.Create(t.Context(), attended))

	events := newRecordedEvents(1)
	ctx, cancel := context.WithCancel(t.Context())
	serving := make(chan error)
	go func() {
		serving <- Serve(ctx, ServeConfig{
			Dir:   t.TempDir(),
			Bus:   busconn.Options{Join: s.JoinString(proto.RoleCollector)},
			State: t.TempDir(),
			OpenEvents: func(context.Context, *busconn.Connection) (Events, error) {
				return events, nil
			},
		})
	}()

	prototest.Poll(t, 20*time.Second, "the run of before", func() bool { return events.count()["before"] > 0 })
	must(t, runs.Create(t.Context(), endedManifest("later")))
	prototest.Poll(t, 20*time.Second, "the later run", func() bool { return events.count()["later"] > 0 })
	prototest.Poll(t, 40*time.Second, "the end of all runs", func() bool {
		list, err := runs.List(t.Context())
		must(t, err)
		return len(list) == 0
	})

	cancel()
	if err := <-serving; !errors.Is(err, ErrInterrupted) {
		t.Error(err)
	}

	if diff := cmp.Diff(map[string]int{"before": 1, "later": 1}, events.count()); diff != "" {
		t.Errorf("how often a run was passed on (-want +got):\n%s", diff)
	}
}

// A sweep leaves the runs whose end is not taken, and no others.
func TestSweepWaitsForEvents(t *testing.T) {
	t.Parallel()

	s := startServer(t)
	runs := bus.New(s.JS).Runs
	for _, run := range []string{"a", "b", "c"} {
		must(t, runs.Create(t.Context(), endedManifest(run)))
	}

	errAway := errors.New("away")
	err := sweepEnded(t.Context(), s.JS, runs, time.Now(), func(_ context.Context, m proto.Manifest) error {
		if m.Run == "b" {
			return errAway
		}
		return nil
	}, Hooks{})
	if !errors.Is(err, errAway) {
		t.Errorf("error %v", err)
	}

	if list, err := runs.List(t.Context()); err != nil || len(list) != 1 || list[0].Run != "b" {
		t.Errorf("runs %v, %v", list, err)
	}
}

// A run has another end when it was retried, or is another of its id.
func TestEndedAgain(t *testing.T) {
	t.Parallel()

	events := newRecordedEvents(0)
	e := newEndedRuns(events, func(proto.Manifest) bool { return true }, zerolog.Nop())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- e.run(ctx) }()

	m := endedManifest("r")
	other := m
	other.Retries++
	third := other
	third.CreatedAt = m.CreatedAt.Add(time.Second)

	for i, next := range []proto.Manifest{m, other, third} {
		for range 3 {
			e.add(slices.Values([]proto.Manifest{next}))
			prototest.Poll(t, 20*time.Second, "the end", func() bool { return events.count()["r"] == i+1 })
			must(t, e.pass(ctx, next))
		}
	}

	e.follow(nil)
	e.mu.Lock()
	if len(e.passed)+len(e.waiting) > 0 {
		t.Errorf("of runs that have left the bus: %v, %v", e.passed, e.waiting)
	}
	e.mu.Unlock()

	cancel()
	<-done

	if n := events.count()["r"]; n != 3 {
		t.Errorf("%d ends, want 3", n)
	}
}
