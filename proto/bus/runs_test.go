package bus_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

func manifest(run string) proto.Manifest {
	return proto.Manifest{
		Schema: proto.ManifestSchema, Run: run, State: proto.StateInProgress,
		CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Input:     proto.Input{Requests: 200, Models: map[string]int{"m": 199, "org/n": 1}, DuplicateIDs: "3-4"},
		Settings:  proto.Settings{Set: map[string]string{"seed": "1"}, ShardSize: 32},
		Publish:   proto.PublishState{Checkpoint: proto.Checkpoint{Offset: 5, Index: 4}},
	}
}

// openRuns returns a bus with all its buckets for a test.
func openRuns(t *testing.T) (*bus.RunStore, jetstream.JetStream) {
	t.Helper()

	_, js := prototest.Server(t)
	if err := bus.CreateBuckets(t.Context(), js, bus.Limits{}); err != nil {
		t.Fatal(err)
	}

	opened, err := bus.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}

	return opened.Runs, js
}

// create stores manifests.
func create(t *testing.T, runs *bus.RunStore, manifests ...proto.Manifest) {
	t.Helper()
	for _, m := range manifests {
		if err := runs.Create(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRunsCreateAndGet(t *testing.T) {
	t.Parallel()

	runs, js := openRuns(t)
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
	opened, err := bus.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}

	runs = opened.Runs

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
		{"an older schema", `{"schema":1,"run":"r"}`},
		{"a newer schema", `{"schema":99,"run":"r"}`},
		{"no schema", `{"run":"r"}`},
		{"a run id that cannot stand in a subject", `{"schema":1,"run":"a.b"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if m, err := proto.ParseManifest("r", []byte(tt.text)); !errors.Is(err, proto.ErrFormat) {
				t.Errorf("ParseManifest = %+v, %v; want ErrFormat", m, err)
			}
		})
	}
}

func TestRunsUpdateLosesNothing(t *testing.T) {
	t.Parallel()

	runs, _ := openRuns(t)
	create(t, runs, manifest("r"))

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

	runs, _ := openRuns(t)
	create(t, runs, manifest("r"))

	err := runs.Update(t.Context(), "r", func(m *proto.Manifest) error {
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

func TestRunsList(t *testing.T) {
	t.Parallel()

	runs, _ := openRuns(t)
	if list, err := runs.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("no runs: %v, %v", list, err)
	}

	at := func(run string, seconds int) proto.Manifest {
		m := manifest(run)
		m.CreatedAt = m.CreatedAt.Add(time.Duration(seconds) * time.Second)
		return m
	}

	create(t, runs, at("c", 1), at("a", 2), at("gone", 1), at("b", 2), at("z", 0))
	if err := runs.Delete(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}

	if err := runs.Pause(t.Context(), "z"); err != nil { // a change does not make it younger
		t.Fatal(err)
	}

	list, err := runs.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	var got []string
	for _, m := range list {
		got = append(got, m.Run)
	}

	// The oldest first, those of one moment by name.
	if diff := cmp.Diff([]string{"z", "c", "a", "b"}, got); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
}

func TestRunsDelete(t *testing.T) {
	t.Parallel()

	runs, _ := openRuns(t)
	create(t, runs, manifest("r"), manifest("other"))

	for range 2 { // a process that crashed in between deletes again
		if err := runs.Delete(t.Context(), "r"); err != nil {
			t.Fatal(err)
		}
	}

	if _, err := runs.Get(t.Context(), "r"); !errors.Is(err, proto.ErrNoRun) {
		t.Errorf("a deleted run: %v", err)
	}

	if err := runs.Pause(t.Context(), "r"); !errors.Is(err, proto.ErrNoRun) {
		t.Errorf("change of a deleted run: %v", err)
	}

	if _, err := runs.Get(t.Context(), "other"); err != nil {
		t.Errorf("another run: %v", err)
	}

	create(t, runs, manifest("r")) // the name is free again
}

func TestWatch(t *testing.T) {
	t.Parallel()

	runs, _ := openRuns(t)
	create(t, runs, manifest("r"))
	errSeen := errors.New("seen")
	var states []proto.State
	err := watch(t.Context(), runs, "r", func(m proto.Manifest) error {
		states = append(states, m.State)
		if m.State == proto.StatePaused {
			return errSeen
		}

		// Only after the first call: the watch need not report earlier states.
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
	err = watch(ctx, runs, "r", func(proto.Manifest) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v after the context's end", err)
	}
}

// A connection that is closed for good ends the watch with an error to be read.
func TestWatchConnectionClosed(t *testing.T) {
	t.Parallel()

	runs, js := openRuns(t)
	create(t, runs, manifest("r"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	err := watch(ctx, runs, "r", func(proto.Manifest) error { js.Conn().Close(); return nil })
	if err == nil || errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "%!") {
		t.Errorf("error %v", err)
	}
}

// A run of an older schema is left alone, and not silently.
func TestUnreadableRuns(t *testing.T) {
	t.Parallel()

	runs, js := openRuns(t)
	create(t, runs, manifest("a"))

	old := []byte(`{"schema":2,"run":"old","state":"in_progress"}`)
	_, err := js.Publish(t.Context(), "$KV."+proto.RunsBucket+".old", old)
	must(t, err)

	if list, err := runs.List(t.Context()); err != nil || len(list) != 1 || list[0].Run != "a" {
		t.Errorf("runs %v, %v", list, err)
	}

	list, err := runs.ListUnreadable(t.Context())
	must(t, err)

	want := proto.CheckSchema(2).Error()
	if len(list) != 1 || list[0].Run != "old" || list[0].Err.Error() != want ||
		!errors.Is(list[0].Err, proto.ErrFormat) {
		t.Errorf("unreadable runs %v, want old: %s", list, want)
	}

	if _, err := runs.Get(t.Context(), "old"); err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}

	changed := func(*proto.Manifest) error { t.Error("it is changed"); return nil }
	if err := runs.Update(t.Context(), "old", changed); err == nil || err.Error() != want {
		t.Errorf("error %v of an update", err)
	}
}
