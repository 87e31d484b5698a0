package bus_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

func openBus(t *testing.T) *bus.Bus {
	t.Helper()

	_, js := openRuns(t)
	b, err := bus.Open(t.Context(), js)
	must(t, err)
	kv, err := js.KeyValue(t.Context(), proto.PresenceBucket)
	must(t, err)
	status, err := kv.Status(t.Context())
	must(t, err)
	if status.TTL() != proto.PresenceTTL {
		t.Fatalf("announcements stand for %v, want %v", status.TTL(), proto.PresenceTTL)
	}

	return b
}

func TestWorkers(t *testing.T) {
	t.Parallel()

	b := openBus(t)
	list := func() (names []string) {
		workers, err := b.Heartbeats.Workers(t.Context())
		must(t, err)
		for _, w := range workers {
			names = append(names, w.Name)
		}
		return names
	}
	if got := list(); got != nil {
		t.Errorf("workers %q on a new bus", got)
	}

	// Some of the names cannot stand in a subject.
	for _, name := range []string{"gpu2", "gpu1:0", "ящик", "box.1 *", "gpu10", "gpu1"} {
		must(t, b.Heartbeats.Send(t.Context(), proto.WorkerInfo{Name: name}))
	}

	must(t, b.Leases.Acquire(t.Context(), "r", proto.CollectorInfo{Host: "h"})) // is no worker
	if diff := cmp.Diff([]string{"box.1 *", "gpu1", "gpu10", "gpu1:0", "gpu2", "ящик"}, list()); diff != "" {
		t.Errorf("workers (-want +got):\n%s", diff)
	}

	for _, name := range []string{"gpu1", "box.1 *", "gpu1"} { // once more is no error
		must(t, b.Heartbeats.Remove(t.Context(), name))
	}

	if diff := cmp.Diff([]string{"gpu10", "gpu1:0", "gpu2", "ящик"}, list()); diff != "" {
		t.Errorf("workers after two have gone (-want +got):\n%s", diff)
	}

	must(t, b.Heartbeats.Send(t.Context(), proto.WorkerInfo{Name: "gpu1"}))
	if got := list(); len(got) != 5 {
		t.Errorf("workers %q after one has come back", got)
	}
}

func TestWorkerRoundTrip(t *testing.T) {
	t.Parallel()

	b := openBus(t)
	want := proto.WorkerInfo{
		Name:          "gpu1",
		Host:          "h",
		Version:       "v1",
		Server:        "http://127.0.0.1:8000",
		Models:        []string{"m", "org/n"},
		Concurrency:   64,
		InFlight:      3,
		Done:          5,
		PerSecond:     1.5,
		Since:         time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Flavour:       "vLLM",
		ServerVersion: "0.11.0",
		LoadSeconds:   new(81.5),
		ModelLoad:     &proto.ModelLoad{DownloadSeconds: new(0.0), WeightsSeconds: new(30.25)},
		Waiting:       new(int64(0)),
		MemoryBytes:   proto.ServerMemory{Weights: new(int64(14 << 30)), KVCache: new(int64(100 << 30))},
		GPU: []proto.GPU{
			{Name: "H200", MemoryBytes: 139 << 30},
			{
				Index:              1,
				Name:               "H200",
				MemoryBytes:        139 << 30,
				MemoryUsedBytes:    new(int64(130 << 30)),
				PowerWatts:         new(612.5),
				UtilizationPercent: new(0.0),
				TemperatureC:       new(61.0),
				EnergyJoules:       new(12345.6),
			},
		},
		Runs: map[string]proto.RunUsage{"r": {Requests: 5, EnergyJoules: new(11000.5)}, "s": {}},
	}

	must(t, b.Heartbeats.Send(t.Context(), want))
	want.Ready, want.Done = true, 6
	must(t, b.Heartbeats.Send(t.Context(), want)) // the latest stands
	got, err := b.Heartbeats.Workers(t.Context())
	must(t, err)
	if diff := cmp.Diff(
		[]proto.WorkerInfo{want}, got, cmpopts.IgnoreFields(proto.WorkerInfo{}, "ReceivedAt"),
	); diff != "" {
		t.Errorf("workers (-want +got):\n%s", diff)
	}
}

func TestCollector(t *testing.T) {
	t.Parallel()

	b := openBus(t)
	is := func(want proto.CollectorInfo, announced bool) {
		t.Helper()
		got, ok, err := b.Leases.Holder(t.Context(), "r")
		if err != nil || ok != announced || got != want {
			t.Errorf("the collector is %v, %v, %v; want %v, %v", got, ok, err, want, announced)
		}
	}

	is(proto.CollectorInfo{}, false)

	first := proto.CollectorInfo{Host: "h", Output: "/a"}
	for range 3 { // it renews its announcement
		must(t, b.Leases.Acquire(t.Context(), "r", first))
		is(first, true)
	}

	for _, second := range []proto.CollectorInfo{
		{Host: "h", Output: "/b"},
		{Host: "h2", Output: "/a"}, // the same path elsewhere is another file
	} {
		err := b.Leases.Acquire(t.Context(), "r", second)
		if !errors.Is(err, proto.ErrLeaseHeld) || !strings.Contains(err.Error(), first.String()) {
			t.Errorf("a second collector: %v; want ErrCollected and the name of the collector", err)
		}

		is(first, true)
		must(t, b.Leases.Acquire(t.Context(), "other", second)) // another run is free
		must(t, b.Leases.Release(t.Context(), "other"))
	}

	for range 2 { // once more is no error
		must(t, b.Leases.Release(t.Context(), "r"))
		is(proto.CollectorInfo{}, false)
	}

	second := proto.CollectorInfo{Host: "h2", Output: "/b"}
	must(t, b.Leases.Acquire(t.Context(), "r", second))
	is(second, true)
}

// One request reads the leases of all runs: those that stand, and no announcement of a worker.
func TestLeases(t *testing.T) {
	t.Parallel()

	_, js := openRuns(t)
	b, err := bus.Open(t.Context(), js)
	must(t, err)
	is := func(want map[string]proto.CollectorLease) {
		t.Helper()
		got, err := b.Leases.List(t.Context())
		for run, lease := range got {
			if age := time.Since(lease.ReceivedAt); age < 0 || age > time.Minute {
				t.Errorf("the lease of run %s was received %s ago", run, age)
			}
		}

		received := cmpopts.IgnoreFields(proto.CollectorLease{}, "ReceivedAt")
		if diff := cmp.Diff(want, got, received); err != nil || diff != "" {
			t.Errorf("leases (-want +got), %v:\n%s", err, diff)
		}
	}

	is(map[string]proto.CollectorLease{})

	first := proto.CollectorLease{CollectorInfo: proto.CollectorInfo{Host: "h", Output: "/a"}}
	second := proto.CollectorLease{
		CollectorInfo: proto.CollectorInfo{Host: "h", Output: "/b"},
		Progress:      &proto.CollectorProgress{Done: 3, Failed: 1},
	}
	must(t, b.Heartbeats.Send(t.Context(), proto.WorkerInfo{ID: "w", Name: "w"}))
	must(t, b.Leases.Renew(t.Context(), "one", first))
	must(t, b.Leases.Renew(t.Context(), "two", second))
	must(t, b.Leases.Renew(t.Context(), "three", first))
	must(t, b.Leases.Release(t.Context(), "three"))
	is(map[string]proto.CollectorLease{"one": first, "two": second})

	kv, err := js.KeyValue(t.Context(), proto.PresenceBucket)
	must(t, err)
	_, err = kv.PutString(t.Context(), "collector.one", "no lease")
	must(t, err)
	is(map[string]proto.CollectorLease{"two": second})
}

func TestCollectorsAtOnce(t *testing.T) {
	t.Parallel()

	b := openBus(t)
	for i := range 20 {
		run := fmt.Sprintf("r%d", i)
		if i%2 > 0 { // there was another, which leaves a deletion marker in the bucket
			must(t, b.Leases.Acquire(t.Context(), run, proto.CollectorInfo{Host: "before"}))
			must(t, b.Leases.Release(t.Context(), run))
		}

		var errs [2]error
		var wg sync.WaitGroup
		for n := range errs {
			wg.Go(func() {
				errs[n] = b.Leases.Acquire(t.Context(), run, proto.CollectorInfo{Host: fmt.Sprint(n)})
			})
		}

		wg.Wait()

		winner := 0
		if errs[0] != nil {
			winner = 1
		}

		if errs[winner] != nil || !errors.Is(errs[1-winner], proto.ErrLeaseHeld) {
			t.Fatalf("%s: two at once: %v, and %v; want one nil and one ErrCollected", run, errs[0], errs[1])
		}

		got, ok, err := b.Leases.Holder(t.Context(), run)
		if err != nil || !ok || got.Host != fmt.Sprint(winner) {
			t.Errorf("%s: %d has won, and the collector is %v, %v, %v", run, winner, got, ok, err)
		}
	}
}

// An announcement that cannot be true hides no other, and a lease that cannot be read keeps
// no collector away.
func TestForgedAnnouncements(t *testing.T) {
	t.Parallel()

	_, js := openRuns(t)
	b, err := bus.Open(t.Context(), js)
	must(t, err)
	kv, err := js.KeyValue(t.Context(), proto.PresenceBucket)
	must(t, err)

	for key, text := range map[string]string{
		"worker.a": `{`, "worker.b": `[]`, "worker.c": `{"id":"d"}`, "worker.e": `{"id":"e","concurrency":-1}`,
		"worker.f": `{"id":"f","name":"` + strings.Repeat("x", 1000) + `"}`, "collector.r": `no JSON`,
	} {
		_, err := kv.Put(t.Context(), key, []byte(text))
		must(t, err)
	}

	for _, id := range []string{"one", "two"} {
		must(t, b.Heartbeats.Send(t.Context(), proto.WorkerInfo{ID: id, Name: "gpu1"}))
	}

	workers, err := b.Heartbeats.Workers(t.Context())
	if err != nil || len(workers) != 2 || workers[0].ID != "one" || workers[1].ID != "two" ||
		b.Heartbeats.Unreadable() != 5 {
		t.Errorf("workers %+v, %d left out (%v)", workers, b.Heartbeats.Unreadable(), err)
	}

	if who, ok, err := b.Leases.Holder(t.Context(), "r"); ok || err != nil {
		t.Errorf("the collector is %s (%v)", who, err)
	}

	mine := proto.CollectorInfo{Host: "h", Output: "/o"}
	must(t, b.Leases.Acquire(t.Context(), "r", mine))
	if who, ok, err := b.Leases.Holder(t.Context(), "r"); who != mine || !ok || err != nil {
		t.Errorf("the collector is %s, %v (%v)", who, ok, err)
	}

	if err := b.Leases.Acquire(t.Context(), "r", proto.CollectorInfo{Host: "h", Output: "/p"}); !errors.Is(err,
		proto.ErrLeaseHeld) {
		t.Errorf("a second collector: %v", err)
	}
}
