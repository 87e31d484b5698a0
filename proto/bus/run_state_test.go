package bus_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

func TestControl(t *testing.T) {
	t.Parallel()

	runs, _ := openRuns(t)
	states := []proto.State{
		proto.StateValidating, proto.StateFailed, proto.StateInProgress, proto.StatePaused, proto.StateFinalizing,
		proto.StateCompleted, proto.StateCancelling, proto.StateCancelled, proto.StateExpired,
	}
	for _, tt := range []struct {
		name   string
		change func(context.Context, string) error
		from   []proto.State // from each other state it is refused
		to     proto.State
	}{
		// A second request for the same state is no error: a client need not look first.
		{"pause", runs.Pause, []proto.State{proto.StateInProgress, proto.StatePaused}, proto.StatePaused},
		{"resume", runs.Resume, []proto.State{proto.StateInProgress, proto.StatePaused}, proto.StateInProgress},
		// Once the files are being written it is too late.
		{"cancel", runs.Cancel, []proto.State{
			proto.StateValidating, proto.StateInProgress, proto.StatePaused, proto.StateCancelling,
		}, proto.StateCancelling},
		// A run whose input was refused has nothing to try again.
		{"retry", runs.Retry, []proto.State{proto.StateCompleted, proto.StateCancelled, proto.StateExpired},
			proto.StateInProgress},
	} {
		for _, state := range states {
			t.Run(tt.name+" "+string(state), func(t *testing.T) {
				t.Parallel()

				m := manifest(tt.name + "-" + string(state))
				m.State, m.Counts.Failed = state, 1
				create(t, runs, m)
				err := tt.change(t.Context(), m.Run)
				got, getErr := runs.Get(t.Context(), m.Run)
				must(t, getErr)

				if slices.Contains(tt.from, state) {
					if err != nil || got.State != tt.to {
						t.Errorf("state %s, %v; want %s", got.State, err, tt.to)
					}
					return
				}

				if !errors.Is(err, bus.ErrWrongState) || !strings.Contains(err.Error(), m.Run) {
					t.Errorf("error %v; want ErrState and the run", err)
				}

				if diff := cmp.Diff(m, got); diff != "" {
					t.Errorf("a refused request changed the manifest (-before +after):\n%s", diff)
				}
			})
		}
	}
}

func TestControlOfNoRun(t *testing.T) {
	t.Parallel()

	runs, _ := openRuns(t)
	for name, change := range map[string]func(context.Context, string) error{
		"pause": runs.Pause, "resume": runs.Resume, "cancel": runs.Cancel, "retry": runs.Retry,
	} {
		if err := change(t.Context(), "nothing"); !errors.Is(err, proto.ErrNoRun) {
			t.Errorf("%s: %v; want ErrNoRun", name, err)
		}
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()

	runs, _ := openRuns(t)
	then := time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC)
	m := manifest("r")
	m.State, m.Retries = proto.StateExpired, 1
	m.Counts = proto.Counts{Done: 9, Failed: 7, Skipped: 3, PromptTokens: 11, CompletionTokens: 12, Attempts: 13}
	m.Failures = map[string]int64{"batch_expired": 7}
	m.EndedAt, m.Policy.ExpiresAt = &then, &then // else it would end again at once
	create(t, runs, m)
	if err := runs.Retry(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}

	got, err := runs.Get(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}

	if age := time.Since(got.StateAt); age < 0 || age > time.Minute {
		t.Errorf("the state is as of %s", got.StateAt)
	}

	want := m
	want.State, want.Retries, want.StateAt = proto.StateInProgress, 2, got.StateAt
	want.EndedAt, want.Policy.ExpiresAt = nil, nil
	want.Publish.Done, want.Publish.Retry = true, true
	want.Counts = proto.Counts{Done: 2, PromptTokens: 11, CompletionTokens: 12, Attempts: 13}
	want.Failures = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}

	// The second of two requests at once.
	if err := runs.Retry(t.Context(), "r"); !errors.Is(err, bus.ErrWrongState) {
		t.Errorf("retry of a run that goes again: %v; want ErrState", err)
	}
}

func TestRetryOfNothing(t *testing.T) {
	t.Parallel()

	runs, _ := openRuns(t)
	for _, state := range []proto.State{
		proto.StateCompleted, proto.StateCancelled, proto.StateExpired, proto.StateFailed,
	} {
		m := manifest(string(state))
		m.State, m.EndedAt = state, &m.CreatedAt
		create(t, runs, m)

		err := runs.Retry(t.Context(), m.Run)
		if !errors.Is(err, bus.ErrWrongState) || !strings.Contains(err.Error(), "none of its requests failed") {
			t.Errorf("retry of a %s run without failures: %v", state, err)
		}

		if got, err := runs.Get(t.Context(), m.Run); err != nil || !cmp.Equal(m, got) {
			t.Errorf("a refused retry made of it %+v, %v", got, err)
		}
	}
}

// A run that a limit has stopped is paused with the reason, until it is resumed or cancelled. One
// that has used all its tokens is resumed only with more of them.
func TestStop(t *testing.T) {
	t.Parallel()

	runs, _ := openRuns(t)
	m := manifest("r")
	m.State, m.Policy.MaxTokens = proto.StateInProgress, 1000
	create(t, runs, m)

	reached := proto.ReachedLimit{Limit: "failed>2", Metric: proto.MetricFailed, Count: 3, Ended: 9, At: m.CreatedAt}
	must(t, runs.Stop(t.Context(), "r", reached))

	want := m
	want.State, want.StoppedBy = proto.StatePaused, &reached
	check := func(what string) {
		t.Helper()
		got, err := runs.Get(t.Context(), "r")
		must(t, err)
		want.StateAt = got.StateAt
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}

	check("a stopped run")

	failIf := []proto.Threshold{{Metric: proto.MetricFailed, Value: 5, Percent: true}}
	must(t, runs.ResumeWith(t.Context(), "r", proto.RunPolicy{FailIf: failIf}))
	want.State, want.StoppedBy, want.Policy.FailIf = proto.StateInProgress, nil, failIf
	check("resumed with another threshold")

	used := proto.ReachedLimit{Tokens: 1200, MaxTokens: 1000, At: m.CreatedAt}
	must(t, runs.Stop(t.Context(), "r", used))

	err := runs.Resume(t.Context(), "r")
	if limit, ok := errors.AsType[*proto.LimitError](err); !ok || limit.Reached.Tokens != 1200 {
		t.Errorf("resume without tokens: %v", err)
	}

	want.State, want.StoppedBy = proto.StatePaused, &used
	check("after the refusal")

	must(t, runs.ResumeWith(t.Context(), "r", proto.RunPolicy{MaxTokens: 5000}))
	want.State, want.StoppedBy, want.Policy.MaxTokens = proto.StateInProgress, nil, 5000
	check("resumed with more tokens")

	must(t, runs.Stop(t.Context(), "r", reached))
	must(t, runs.Cancel(t.Context(), "r"))
	want.State = proto.StateCancelling
	check("cancelled")

	if err := runs.Stop(t.Context(), "r", reached); !errors.Is(err, bus.ErrWrongState) {
		t.Errorf("a cancelled run is stopped: %v", err)
	}
}
