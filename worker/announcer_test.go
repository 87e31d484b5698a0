package worker

import (
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// announcedWorkers returns the announcements on the bus.
func (b *testBed) announcedWorkers() []proto.WorkerInfo {
	b.t.Helper()

	opened, err := bus.Open(b.t.Context(), b.js)
	if err != nil {
		b.t.Fatal(err)
	}

	list, err := opened.Heartbeats.Workers(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}

	return list
}

// unusedURL returns a URL at which no server listens.
func unusedURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// A worker is announced on the bus while it works.
func TestWorkerAnnouncesItself(t *testing.T) {
	t.Parallel()

	url := startServer(t, sim.New(sim.Config{Models: []string{"a", "b"}}))
	b := newTestBed(t, url)
	b.cfg.Name, b.cfg.Host, b.cfg.Version, b.cfg.Limiter = "Worker of a, b", "host", "v1", limit.Fixed(5)
	down := b.withServer(unusedURL(t))
	down.cfg.Name = "down"
	other := b.withServer(startServer(t, sim.New(sim.Config{}))) // without a name
	var stops []func()
	for _, b := range []*testBed{b, down, other} {
		_, stop := b.startWorker()
		stops = append(stops, stop)
	}

	prototest.Poll(t, patience, "the announcements", func() bool { return len(b.announcedWorkers()) == len(stops) })
	want := []proto.WorkerInfo{
		{
			Name:                 "Worker of a, b",
			Host:                 "host",
			Version:              "v1",
			Server:               url,
			Flavour:              "vLLM",
			ServerVersion:        "promptmill-sim",
			Ready:                true,
			Models:               []string{"a", "b"},
			Engines:              1,
			Concurrency:          5,
			Shards:               new(int64),
			ContextLength:        map[string]int{"a": 1 << 20, "b": 1 << 20},
			GPUMemoryUtilization: new(0.9),
		},
		{
			Name:        "down",
			Server:      down.cfg.Server.URL(),
			Problem:     "waiting for the model server",
			Concurrency: 8,
			Shards:      new(int64),
		},
		{
			Name:                 "worker",
			Server:               other.cfg.Server.URL(),
			Flavour:              "vLLM",
			ServerVersion:        "promptmill-sim",
			Ready:                true,
			Engines:              1,
			Concurrency:          8,
			Shards:               new(int64),
			GPUMemoryUtilization: new(0.9),
		},
	}

	list := b.announcedWorkers()
	if diff := cmp.Diff(want, list, cmpopts.IgnoreFields(proto.WorkerInfo{}, "ID", "Since", "SentAt", "Samples", "ReceivedAt")); diff != "" {
		t.Errorf("workers (-want +got):\n%s", diff)
	}

	for _, info := range list {
		if info.ID == "" {
			t.Errorf("worker %s has no id", info.Name)
		}
		if info.Since.IsZero() {
			t.Errorf("worker %s has no start time", info.Name)
		}
	}

	for i, stop := range stops {
		stop()
		if got := len(b.announcedWorkers()); got != len(stops)-i-1 {
			t.Errorf("%d workers are announced after the end of %d of %d", got, i+1, len(stops))
		}
	}
}

// messageWatch is a log that closes seen when a message is written.
type messageWatch struct {
	text string
	seen chan struct{}
}

func (s messageWatch) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.text) {
		close(s.seen)
	}
	return len(p), nil
}

// A worker may start before the buckets exist that all runs share.
func TestWorkerWaitsForBus(t *testing.T) {
	t.Parallel()

	b := newEmptyBed(t).withServer(startServer(t, sim.New(sim.Config{})))
	waits := messageWatch{"waiting", make(chan struct{})}
	b.cfg.Log = zerolog.New(waits)
	w, stop := b.startWorker()
	<-waits.seen
	b.createBuckets()
	b.addRun("r", 0, "m")
	b.publishRange("r", "m", 0, 8, 4)
	b.finishRun(w, stop, 8)
}

// A worker that never found a bus still ends with its context.
func TestWorkerStopsBeforeBus(t *testing.T) {
	t.Parallel()
	b := newEmptyBed(t).withServer(startServer(t, sim.New(sim.Config{})))
	waits := messageWatch{"waiting", make(chan struct{})}
	b.cfg.Log = zerolog.New(waits)
	_, stop := b.startWorker()
	<-waits.seen
	stop()
}
