package proto_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

func manifest(run string) proto.Manifest {
	return proto.Manifest{
		Schema: proto.ManifestSchema, Run: run, State: proto.StateInProgress,
		CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Input:     proto.Input{Requests: 200, Models: map[string]int{"m": 199, "org/n": 1}, Repeated: "3-4"},
		Settings:  proto.Settings{Set: map[string]string{"seed": "1"}, ShardSize: 32},
		Publish:   proto.Publish{Point: proto.Point{Offset: 5, Seq: 4}},
	}
}

func TestRunsCreateAndGet(t *testing.T) {
	t.Parallel()
	_, js := prototest.Server(t)
	if err := proto.MakeBuckets(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	runs, err := proto.OpenRuns(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := runs.Get(t.Context(), "r"); !errors.Is(err, proto.ErrNoRun) {
		t.Errorf("a run that is not there: %v", err)
	}
	nothing := func(*proto.Manifest) error { return nil }
	if err := runs.Update(t.Context(), "r", nothing); !errors.Is(err, proto.ErrNoRun) {
		t.Errorf("update of a run that is not there: %v", err)
	}
	want := manifest("r")
	if err := runs.Create(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if err := runs.Create(t.Context(), want); err == nil {
		t.Error("a run is created twice")
	}
	// Another process opens the bucket that is there.
	if runs, err = proto.OpenRuns(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	got, err := runs.Get(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}
}

func TestParseManifestErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text string }{
		{"no JSON", `{`},
		{"another schema", `{"schema":2,"run":"r"}`},
		{"no schema", `{"run":"r"}`},
		{"a run id that cannot stand in a subject", `{"schema":1,"run":"a.b"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if m, err := proto.ParseManifest([]byte(tt.text)); !errors.Is(err, proto.ErrFormat) {
				t.Errorf("ParseManifest = %+v, %v; want ErrFormat", m, err)
			}
		})
	}
}

func TestRunsUpdateLosesNothing(t *testing.T) {
	t.Parallel()
	_, js := prototest.Server(t)
	if err := proto.MakeBuckets(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	runs, err := proto.OpenRuns(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	if err := runs.Create(t.Context(), manifest("r")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				err := runs.Update(t.Context(), "r", func(m *proto.Manifest) error {
					m.Counts.Done++
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := runs.Get(t.Context(), "r")
	if err != nil || got.Counts.Done != 200 {
		t.Errorf("%d updates of 200 are there (%v)", got.Counts.Done, err)
	}
}

func TestRunsUpdateStopsAtChangesError(t *testing.T) {
	t.Parallel()
	_, js := prototest.Server(t)
	if err := proto.MakeBuckets(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	runs, err := proto.OpenRuns(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	if err := runs.Create(t.Context(), manifest("r")); err != nil {
		t.Fatal(err)
	}
	err = runs.Update(t.Context(), "r", func(m *proto.Manifest) error {
		m.State = proto.StateFailed
		return proto.ErrConflict
	})
	if !errors.Is(err, proto.ErrConflict) {
		t.Errorf("error %v", err)
	}
	if got, err := runs.Get(t.Context(), "r"); err != nil || got.State != proto.StateInProgress {
		t.Errorf("state %s, %v", got.State, err)
	}
}

func TestRunsFollow(t *testing.T) {
	t.Parallel()
	_, js := prototest.Server(t)
	if err := proto.MakeBuckets(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	runs, err := proto.OpenRuns(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	if err := runs.Create(t.Context(), manifest("r")); err != nil {
		t.Fatal(err)
	}
	errSeen := errors.New("seen")
	var states []proto.State
	err = runs.Follow(t.Context(), "r", func(m proto.Manifest) error {
		states = append(states, m.State)
		if m.State == proto.StatePaused {
			return errSeen
		}
		// Only after the first call: what was before it need not be told.
		return runs.Update(t.Context(), "r", func(m *proto.Manifest) error {
			m.State = proto.StatePaused
			return nil
		})
	})
	if !errors.Is(err, errSeen) {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff([]proto.State{proto.StateInProgress, proto.StatePaused}, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}

	ctx, cancel := context.WithCancel(t.Context())
	err = runs.Follow(ctx, "r", func(proto.Manifest) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v after the context's end", err)
	}
}

// A connection that is closed for good ends the watch with an error to be read.
func TestRunsFollowConnectionClosed(t *testing.T) {
	t.Parallel()
	_, js := prototest.Server(t)
	if err := proto.MakeBuckets(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	runs, err := proto.OpenRuns(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	if err := runs.Create(t.Context(), manifest("r")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = runs.Follow(ctx, "r", func(proto.Manifest) error { js.Conn().Close(); return nil })
	if err == nil || errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "%!") {
		t.Errorf("error %v", err)
	}
}
