package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// runStates is one report of WatchAll: the state of each run.
type runStates map[string]proto.State

// watch calls changed with the manifests of a run until it returns an error.
func watch(ctx context.Context, runs *bus.RunStore, run string, changed func(proto.Manifest) error) error {
	for m, err := range runs.Watch(ctx, run) {
		if err == nil {
			err = changed(m)
		}
		if err != nil {
			return err
		}
	}

	return errors.New("the watch ended without an error")
}

// watchAll calls changed with the manifests of all runs until ctx ends.
func watchAll(ctx context.Context, runs *bus.RunStore, changed func(map[string]proto.Manifest)) error {
	for all, err := range runs.WatchAll(ctx) {
		if err != nil {
			return err
		}
		changed(all)
	}

	return errors.New("the watch ended without an error")
}

// startWatch watches all runs until the test ends or stop is called, which waits for it.
func startWatch(t *testing.T, runs *bus.RunStore) (says <-chan runStates, stop func()) {
	t.Helper()

	errStop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	all, ended := make(chan runStates), make(chan error, 1)
	go func() {
		ended <- watchAll(ctx, runs, func(manifests map[string]proto.Manifest) {
			now := runStates{}
			for run, m := range manifests {
				now[run] = m.State
			}

			select {
			case all <- now:
			case <-ctx.Done():
			}
		})
	}()

	stop = func() {
		t.Helper()
		cancel(errStop)
		if err := <-ended; !errors.Is(err, errStop) {
			t.Errorf("the watch ends with %v; want the context's cause", err)
		}
	}

	return all, stop
}

func next(t *testing.T, says <-chan runStates) runStates {
	t.Helper()

	select {
	case now := <-says:
		return now
	case <-time.After(time.Minute):
		t.Fatal("WatchAll reports nothing")
		return nil
	}
}

// until reads reports until one is want. Earlier states may be reported again.
func until(t *testing.T, says <-chan runStates, want runStates) {
	t.Helper()

	deadline := time.Now().Add(time.Minute)
	for {
		now := next(t, says)
		if cmp.Equal(want, now) {
			return
		}

		if time.Now().After(deadline) {
			t.Fatalf("the last report is %v; want %v", now, want)
		}
	}
}

func TestWatchAll(t *testing.T) {
	t.Parallel()

	runs, _ := openRuns(t)
	says, stop := startWatch(t, runs)
	defer stop()

	if diff := cmp.Diff(runStates{}, next(t, says)); diff != "" {
		t.Errorf("no runs (-want +got):\n%s", diff)
	}

	create(t, runs, manifest("a"))
	until(t, says, runStates{"a": proto.StateInProgress})
	create(t, runs, manifest("b"))
	until(t, says, runStates{"a": proto.StateInProgress, "b": proto.StateInProgress})
	must(t, runs.Pause(t.Context(), "a"))
	until(t, says, runStates{"a": proto.StatePaused, "b": proto.StateInProgress})
	must(t, runs.Delete(t.Context(), "a"))
	until(t, says, runStates{"b": proto.StateInProgress})
	must(t, runs.Delete(t.Context(), "b")) // a worker must hear that nothing is left
	until(t, says, runStates{})
	create(t, runs, manifest("a"))
	until(t, says, runStates{"a": proto.StateInProgress})
}

// After a report of a part of the runs, a reader would take the others for deleted.
func TestWatchAllBeginsWithAll(t *testing.T) {
	t.Parallel()

	runs, _ := openRuns(t)
	create(t, runs, manifest("a"), manifest("gone"), manifest("b"), manifest("c"))
	must(t, runs.Delete(t.Context(), "gone"))
	must(t, runs.Pause(t.Context(), "b"))
	says, stop := startWatch(t, runs)
	defer stop()

	want := runStates{"a": proto.StateInProgress, "b": proto.StatePaused, "c": proto.StateInProgress}
	if diff := cmp.Diff(want, next(t, says)); diff != "" {
		t.Errorf("the first report (-want +got):\n%s", diff)
	}
}

func TestWatchAllOfDeletedRuns(t *testing.T) {
	t.Parallel()

	runs, _ := openRuns(t)
	create(t, runs, manifest("gone"))
	must(t, runs.Delete(t.Context(), "gone"))
	says, stop := startWatch(t, runs)
	defer stop()

	if diff := cmp.Diff(runStates{}, next(t, says)); diff != "" {
		t.Errorf("the first report (-want +got):\n%s", diff)
	}
}

func TestWatchAllLeavesOutWhatItCannotRead(t *testing.T) {
	t.Parallel()

	runs, js := openRuns(t)
	kv, err := js.KeyValue(t.Context(), proto.RunsBucket)
	must(t, err)
	put := func(key, value string) {
		t.Helper()
		_, err := kv.PutString(t.Context(), key, value)
		must(t, err)
	}

	put("junk", "junk")
	put("newer", `{"schema":99,"run":"newer","state":"in_progress"}`)
	create(t, runs, manifest("a"))
	says, stop := startWatch(t, runs)
	defer stop()

	if diff := cmp.Diff(runStates{"a": proto.StateInProgress}, next(t, says)); diff != "" {
		t.Errorf("the first report (-want +got):\n%s", diff)
	}

	put("junk2", "")
	create(t, runs, manifest("b"))
	until(t, says, runStates{"a": proto.StateInProgress, "b": proto.StateInProgress})
}

// A server that comes back may have another bucket than the one before. That all is read
// again after wholeEvery too is not tested: it takes 15 s.
func TestWatchAllAfterReconnect(t *testing.T) {
	t.Parallel()

	b := newBus(t)
	nc, err := nats.Connect("", nats.InProcessServer(b.server), nats.UserInfo(string(worker), "secret"),
		nats.CustomInboxPrefix(worker.InboxPrefix()), nats.ReconnectWait(time.Millisecond), nats.ReconnectJitter(0, 0))
	must(t, err)
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	t.Cleanup(func() {
		nc.Close()
		<-closed
	})

	js, err := jetstream.New(nc)
	must(t, err)
	opened, err := bus.Open(t.Context(), js)
	must(t, err)
	runs := opened.Runs
	says, stop := startWatch(t, runs)
	defer stop()

	until(t, says, runStates{"r": proto.StateInProgress})

	// No message says that this happens.
	must(t, b.admin.DeleteStream(t.Context(), "KV_"+proto.RunsBucket))
	must(t, bus.CreateBuckets(t.Context(), b.admin, bus.Limits{}))
	create(t, b.runs, manifest("new"))
	id, err := nc.GetClientID()
	must(t, err)
	must(t, b.server.DisconnectClientByID(id))
	begin := time.Now()
	until(t, says, runStates{"new": proto.StateInProgress})
	if took := time.Since(begin); took > 12*time.Second { // before all is read again anyway
		t.Errorf("it took %v after the reconnect", took)
	}
}

// A map from WatchAll belongs to the caller: WatchAll must not change it afterwards.
func TestWatchAllGivesCopies(t *testing.T) {
	t.Parallel()

	runs, _ := openRuns(t)
	create(t, runs, manifest("a"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	times := 0
	err := watchAll(ctx, runs, func(all map[string]proto.Manifest) {
		if _, ok := all["a"]; !ok {
			t.Errorf("after the caller has changed its map: %v", all)
		}

		delete(all, "a")
		if times++; times == 2 {
			cancel()
			return
		}

		create(t, runs, manifest("b"))
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
