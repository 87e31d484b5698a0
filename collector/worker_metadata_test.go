package collector

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// announce sends the heartbeats that workers send every few seconds.
func (b *bench) announce(workers ...proto.WorkerInfo) {
	b.T.Helper()
	p := b.Bus
	for _, w := range workers {
		fixture.Must(b.T, p.Heartbeats.Send(b.T.Context(), w))
	}
}

func (b *bench) removeWorker(name string) {
	b.T.Helper()
	fixture.Must(b.T, b.Bus.Heartbeats.Remove(b.T.Context(), name))
}

// waitHeard waits until the collector knows of a worker's share.
func (s *process) waitHeard(name string, requests int64) {
	s.t.Helper()
	prototest.Poll(s.t, testrun.Patience, "the worker to be heard", func() bool {
		return slices.ContainsFunc(s.workers.all(), func(session journal.WorkerSession) bool {
			return session.Name == name && session.Usage != nil && session.Usage.Requests == requests
		})
	})
}

func TestDescribe(t *testing.T) {
	t.Parallel()

	w0, w1 := sessionOf("w0", 4, 40), sessionOf("w1", 2, 60)
	w1.Platform, w1.LoadSeconds = "SGLang 0.5", new(12.5)
	before := sessionOf("w1", 2, 100)
	before.Since, before.LoadSeconds = fixture.Created.Add(-time.Hour), new(80.0)
	silent := sessionOf("w1", 2, 60)
	silent.Usage = &proto.RunUsage{Requests: 2}
	missing := w1
	missing.Usage = nil
	idle := sessionOf("idle", 0, 0)
	idle.Usage = nil

	for _, tt := range []struct {
		name     string
		sessions []journal.WorkerSession
		change   func(*journal.State)
		workers  []string
		energy   *float64
		platform string
		load     *float64
	}{
		{"two workers", []journal.WorkerSession{w0, w1}, nil, []string{"w0", "w1"}, new(100.0),
			"SGLang 0.5, vLLM 0.11", new(12.5)},
		{"one has no part in it", []journal.WorkerSession{idle, w0, w1}, nil, []string{"w0", "w1"}, new(100.0),
			"SGLang 0.5, vLLM 0.11", new(12.5)},
		{"one began twice", []journal.WorkerSession{w0, before, w1}, nil, []string{"w0", "w1"}, new(200.0),
			"SGLang 0.5, vLLM 0.11", new(12.5)},
		{"one does not know its energy", []journal.WorkerSession{w0, silent}, nil, []string{"w0", "w1"}, nil,
			"vLLM 0.11", nil},
		{"one has not reported", []journal.WorkerSession{w0, missing}, nil, []string{"w0", "w1"}, nil,
			"SGLang 0.5, vLLM 0.11", new(12.5)},
		{"one was never seen", []journal.WorkerSession{w0}, nil, []string{"w0", "w1"}, nil, "vLLM 0.11", nil},
		{"no worker was seen", nil, nil, []string{"w0", "w1"}, nil, "somewhere", nil},
		{"one has reported a part only", []journal.WorkerSession{sessionOf("w0", 3, 30), w1}, nil,
			[]string{"w0", "w1"}, nil,
			"SGLang 0.5, vLLM 0.11", new(12.5)},
		{"lines of no worker", []journal.WorkerSession{w0, w1}, func(s *journal.State) { s.Counts.Done++ },
			[]string{"w0", "w1"}, nil,
			"SGLang 0.5, vLLM 0.11", new(12.5)},
		{"lines that were not counted", []journal.WorkerSession{w0, w1}, func(s *journal.State) { s.Stats = nil },
			[]string{"w0", "w1"},
			nil, "SGLang 0.5, vLLM 0.11", new(12.5)},
		{"requests that were not run", []journal.WorkerSession{w0, w1},
			func(s *journal.State) { s.Counts.Done++; s.Counts.Skipped++ },
			[]string{"w0", "w1"}, new(100.0), "SGLang 0.5, vLLM 0.11", new(12.5)},
		{"a run of nothing", nil, func(s *journal.State) { *s = journal.State{Stats: &journal.FrameStats{}} }, nil, nil,
			"somewhere", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			s := &journal.State{Counts: proto.Counts{Done: 6}, Stats: statsOf(fixture.Indexes(6)...)}
			if tt.change != nil {
				tt.change(s)
			}

			meta := metadata.Run{Platform: "somewhere", Results: metadata.Results{CompletionTokens: new(int64(50))}}
			addWorkers(&meta, tt.sessions, s)

			var names []string
			for _, w := range meta.Workers {
				names = append(names, w.Name)
			}

			var each *float64
			if tt.energy != nil {
				each = new(*tt.energy * 20)
			}

			r := meta.Results
			if diff := cmp.Diff(
				[]any{tt.workers, tt.energy, each, tt.platform, tt.load},
				[]any{names, r.EnergyJoules, r.JoulesPer1000OutputTokens, meta.Platform, r.ModelLoadTimeSeconds},
			); diff != "" {
				t.Errorf("workers, joules, joules for 1000 tokens, platform, load time (-want +got):\n%s", diff)
			}
		})
	}
}

// Other programs read the shape of a worker in the metadata.
func TestMetaWorkerJSON(t *testing.T) {
	t.Parallel()

	s := sessionOf("gpu1", 4, 40)
	s.Models, s.LoadSeconds = []string{"m"}, new(81.5)
	s.ModelLoad = &proto.ModelLoad{DownloadSeconds: new(0.0), WeightsSeconds: new(30.5)}
	s.MemoryBytes = proto.ServerMemory{Weights: new(int64(14)), KVCache: new(int64(100))}
	s.GPUs = []metadata.GPU{{Name: "H200", MemoryBytes: new(int64(139)), PowerWattsMean: new(612.5), PowerReadings: 3}}
	got, err := json.MarshalIndent(buildWorkers([]journal.WorkerSession{s}, map[string]int64{"gpu1": 4, "gpu2": 1}),
		"", "  ")
	fixture.Must(t, err)

	want := `[
  {
    "name": "gpu1",
    "host": "box",
    "version": "v1",
    "platform": "vLLM 0.11",
    "models": [
      "m"
    ],
    "requests": 4,
    "gpus": [
      {
        "index": 0,
        "name": "H200",
        "memory_bytes": 139,
        "memory_used_bytes_max": null,
        "power_watts_mean": 612.5,
        "power_readings": 3,
        "energy_joules": null
      }
    ],
    "energy_joules": 40,
    "model_load_time_seconds": 81.5,
    "model_load": {
      "download_seconds": 0,
      "weights_seconds": 30.5,
      "compile_seconds": null,
      "graphs_seconds": null,
      "warm_up_seconds": null
    },
    "memory_bytes": {
      "weights": 14,
      "kv_cache": 100,
      "graphs": null
    },
    "sessions": [
      {
        "since": "2026-01-02T03:04:05.000000006Z",
        "version": "v1",
        "platform": "vLLM 0.11",
        "requests": 4,
        "redeliveries": 0,
        "energy_joules": 40
      }
    ]
  },
  {
    "name": "gpu2",
    "host": null,
    "version": null,
    "platform": null,
    "models": null,
    "requests": 1,
    "gpus": null,
    "energy_joules": null,
    "model_load_time_seconds": null,
    "memory_bytes": {
      "weights": null,
      "kv_cache": null,
      "graphs": null
    },
    "sessions": []
  }
]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("workers (-want +got):\n%s", diff)
	}
}

// A journal that resumes from metadata arrives at the same workers.
func TestMetaWorkersGoOn(t *testing.T) {
	t.Parallel()

	first, second := sessionOf("w", 3, 30), sessionOf("w", 4, 40)
	second.Since, second.Platform, second.EarlierUsage = fixture.Created.Add(time.Hour), "vLLM 0.12", usageOf(1, 2)

	for i, s := range []*journal.WorkerSession{&first, &second} {
		s.LoadSeconds, s.ModelLoad = new(float64(80+i)), &proto.ModelLoad{GraphsSeconds: new(float64(5 + i))}
		s.GPUs[0].MemoryUsedBytesMax, s.GPUs[0].EnergyJoules = new(int64(100-i)), new(10.5)
		addPower(&s.GPUs[0], float64(400+100*i), int64(1+2*i))
	}

	first.Slots, second.Slots = &metadata.Slots{
		Count:        4,
		Readings:     10,
		FullReadings: 9,
	}, &metadata.Slots{Count: 4, Readings: 5, FullReadings: 2}

	first.Engines, second.Engines = 8, 8

	other := sessionOf("x", 1, 5)
	other.SeveralServers = true
	requests := map[string]int64{"w": 8, "x": 1}
	want := buildWorkers([]journal.WorkerSession{first, second, other}, requests)
	if gpu := want[0].GPUs[0]; *gpu.PowerWattsMean != 475 || gpu.PowerReadings != 4 || *gpu.EnergyJoules != 21 ||
		*gpu.MemoryUsedBytesMax != 100 {
		t.Errorf("card %+v", gpu)
	}

	if diff := cmp.Diff(&metadata.Slots{Count: 4, Readings: 15, FullReadings: 11}, want[0].Slots); diff != "" ||
		want[0].SeveralServers || !want[1].SeveralServers {
		t.Errorf("several servers: %t and %t; slots (-want +got):\n%s",
			want[0].SeveralServers, want[1].SeveralServers, diff)
	}

	if want[0].Engines != 8 {
		t.Errorf("%d engines of 8", want[0].Engines)
	}

	text, err := json.Marshal(metadata.Run{Workers: want})
	fixture.Must(t, err)
	var meta metadata.Run
	fixture.Must(t, json.Unmarshal(text, &meta))
	if diff := cmp.Diff(want, buildWorkers(journal.SessionsOf(&meta), requests)); diff != "" {
		t.Errorf("workers (-want +got):\n%s", diff)
	}
}

// A URL that leads to several servers has no figures, not even those that were reported before it
// was known.
func TestMetaWorkersOfSeveralServers(t *testing.T) {
	t.Parallel()

	first, second := sessionOf("w", 3, 30), sessionOf("w", 4, 40)
	second.Since, second.SeveralServers = fixture.Created.Add(time.Hour), true
	first.ModelLoad = &proto.ModelLoad{WeightsSeconds: new(30.5)}
	first.Engines = 2
	first.LoadSeconds, first.MemoryBytes.Weights, first.Slots = new(60.0), new(int64(1<<30)), &metadata.Slots{
		Count:    4,
		Readings: 1,
	}

	got := buildWorkers([]journal.WorkerSession{first, second}, map[string]int64{"w": 7})[0]
	if !got.SeveralServers || got.ModelLoadTimeSeconds != nil || got.MemoryBytes != (proto.ServerMemory{}) ||
		got.Slots != nil || got.ModelLoad != nil || got.Engines != 0 {
		t.Errorf("several servers: %t, with %v, %+v, %+v, %d engines",
			got.SeveralServers, got.ModelLoadTimeSeconds, got.MemoryBytes, got.Slots, got.Engines)
	}
}

// The parts of the load time are those of the start that took it.
func TestMetaWorkersHaveTheLoadOfTheLongestStart(t *testing.T) {
	t.Parallel()

	slow, fast, again := sessionOf("slow", 3, 30), sessionOf("fast", 4, 40), sessionOf("slow", 1, 10)
	again.Since, again.LoadSeconds = fixture.Created.Add(time.Hour), new(70.0)
	slow.LoadSeconds, slow.ModelLoad = new(90.0), &proto.ModelLoad{WeightsSeconds: new(80.0)}
	fast.LoadSeconds, fast.ModelLoad = new(20.0), &proto.ModelLoad{WeightsSeconds: new(10.0)}

	for _, tt := range []struct {
		sessions []journal.WorkerSession
		load     float64
		weights  *float64
	}{
		{[]journal.WorkerSession{fast, slow}, 90, new(80.0)},
		{[]journal.WorkerSession{fast, slow, again}, 70, nil}, // the log of the later start has no phases
	} {
		var meta metadata.Run
		addWorkers(&meta, tt.sessions, &journal.State{Stats: statsOf(fixture.Indexes(8)...)})

		got := meta.Results
		if *got.ModelLoadTimeSeconds != tt.load ||
			!cmp.Equal(metadata.OrZero(got.ModelLoad).WeightsSeconds, tt.weights) {
			t.Errorf("a load of %v s with %+v, want %v s", *got.ModelLoadTimeSeconds, got.ModelLoad, tt.load)
		}
	}
}

func TestManyWorkers(t *testing.T) {
	t.Parallel()

	const workers = 60
	b := newBench(t, 4*workers, 16<<20)
	for i := range uint32(workers) {
		w := workerOn(fixture.Worker(4*i), usageOf(4, 10))
		w.ServerVersion = fmt.Sprintf("0.%d", 10+i%2)
		b.announce(w)
		b.Publish(fmt.Sprint("0-", i), 4*i, 4*i+1, 4*i+2, 4*i+3)
	}

	meta := b.waitCompleted(b.start())
	checkStats(t, statsOf(fixture.Indexes(4*workers)...), meta)
	if len(meta.Workers) != workers || metadata.OrZero(meta.Results.EnergyJoules) != 10*workers ||
		meta.Platform != "vLLM 0.10, vLLM 0.11" {
		t.Errorf("%d workers on %s that took %v J",
			len(meta.Workers), meta.Platform, metadata.OrZero(meta.Results.EnergyJoules))
	}
}

// A worker that has gone while another process collected is known nevertheless, and its
// requests in each of its sessions count once.
func TestWorkersOfEarlierSessions(t *testing.T) {
	t.Parallel()

	b := newBench(t, 12, 16<<20)
	b.Publish("0-0", 0, 1, 2, 3)
	b.Publish("0-1", 4, 5)
	b.announce(workerOn("w0", usageOf(4, 40)), workerOn("w1", usageOf(2, 20)))
	c := b.start()
	c.waitDurable(6)
	c.waitHeard("w1", 2)
	c.stopped()

	b.removeWorker("w0")
	again, other := workerOn("w1", usageOf(2, 15)), workerOn("w2", usageOf(3, 33))
	again.Since = fixture.Created.Add(time.Hour)
	b.announce(again, other)
	c = b.start()
	c.waitHeard("w2", 3)
	other.Runs["r"] = *usageOf(4, 44)
	b.announce(other)
	b.Publish("0-1", 6, 7)
	b.Publish("0-2", 8, 9, 10, 11)
	meta := b.waitCompleted(c)
	checkStats(t, statsOf(fixture.Indexes(12)...), meta)

	var energies []float64
	for _, w := range meta.Workers {
		energies = append(energies, metadata.OrZero(w.EnergyJoules))
	}

	if diff := cmp.Diff([]float64{40, 35, 44}, energies); diff != "" {
		t.Errorf("energies (-want +got):\n%s", diff)
	}
}

// The usage that a worker reports of the last requests still counts, although the lines are
// there.
func TestWorkersTellLate(t *testing.T) {
	t.Parallel()

	b := newBench(t, 4, 16<<20)
	j := openJournal(t, b.out.Journal())
	appendLines(t, j, fixture.Indexes(4)...)
	c := newCollector(Config{JS: b.JS, Journal: j, Output: b.out})
	w := workerOn("w0", usageOf(1, 10))
	w.GPU[0].EnergyJoules = new(500.0)
	b.announce(w)

	done := make(chan struct{})
	go func() {
		c.awaitFinalUsage(t.Context())
		close(done)
	}()

	(&process{Collector: c, t: t}).waitHeard("w0", 1)
	w.Runs["r"] = *usageOf(4, 40)
	b.announce(w)
	testrun.Await(t, done, "the worker's last words")

	if got := c.workers.all(); len(got) != 1 || got[0].Usage.Requests != 4 {
		t.Errorf("the worker has reported %+v", got)
	}
}

// A retry adds its usage to that of the run before.
func TestWorkersOfRetry(t *testing.T) {
	t.Parallel()

	b := newBench(t, 3, 16<<20)
	b.Publish("0-0", 0, 1, 2)
	b.announce(workerOn("w0", usageOf(3, 30)), workerOn("w9", usageOf(1, 5))) // of w9 all came too late
	b.waitCompleted(b.start())

	first := b.readMeta()
	if got := metadata.OrZero(first.Results.EnergyJoules); got != 35 {
		t.Errorf("the run took %v J, want 35", got)
	}

	b.removeWorker("w9")

	fixture.Must(t, b.Bus.Runs.Retry(t.Context(), "r"))
	b.reopenOutput(&first)
	b.CreateStreams()
	b.announce(workerOn("w0", usageOf(3, 30)), workerOn("w2", usageOf(1, 12))) // the same session of w0
	c := b.start()
	b.PublishMsg(proto.EncodeResults("r", "1-0", []uint32{2}, fixture.RetriedLine(2)))

	meta := b.waitCompleted(c)
	if got := metadata.OrZero(meta.Results.EnergyJoules); got != 47 {
		t.Errorf("the run took %v J with its retry, want 47", got)
	}
}

// Marks of workers among the results are nothing to complain of.
func TestCollectorPassesOverMarks(t *testing.T) {
	t.Parallel()

	b := newBench(t, 4, 16<<20)
	b.Publish("0-0", 0, 1)
	b.PublishMsg(proto.EncodeDeliveryNote("r", "0-1", proto.Isolating(2)))
	b.Publish("0-1", 2, 3)
	var log bytes.Buffer
	b.waitCompleted(b.start(func(cfg *Config) { cfg.Log = zerolog.New(zerolog.SyncWriter(&log)) }))
	if strings.Contains(log.String(), "drop results") {
		t.Errorf("log:\n%s", log.String())
	}
}

// The metadata of a run with nothing special has no null where something is known.
func TestMetaJSON(t *testing.T) {
	t.Parallel()

	b := newBench(t, 2, 16<<20)
	b.Publish("0-0", 0, 1)
	b.waitCompleted(b.start())
	text, err := os.ReadFile(b.out.Meta())
	fixture.Must(t, err)
	var meta struct{ Results map[string]json.RawMessage }
	fixture.Must(t, json.Unmarshal(text, &meta))

	for name, want := range map[string]string{
		"attempts_histogram":            `{"2":2}`,
		"attempt_failures":              `{"503":2}`,
		"finish_reasons":                `{"length":1,"stop":1}`,
		"failures":                      `{}`,
		"energy_joules":                 `null`,
		"joules_per_1000_output_tokens": `null`,
		"model_load_time_seconds":       `null`,
	} {
		var got bytes.Buffer
		fixture.Must(t, json.Compact(&got, meta.Results[name]))
		if got.String() != want {
			t.Errorf("%s is %s, want %s", name, got.String(), want)
		}
	}
}

// The metadata has the shortest context among the workers that took part, and how
// often shards came again.
func TestConfigurationOfWorkers(t *testing.T) {
	t.Parallel()

	share := func(again int64) *proto.RunUsage { return &proto.RunUsage{Requests: 1, Redeliveries: again} }
	s := &journal.State{Manifest: fixture.Manifest(6), Stats: statsOf(fixture.Indexes(6)...)}
	var meta metadata.Run
	addServerSettings(&meta, []journal.WorkerSession{
		{
			Name:                 "a",
			Usage:                share(2),
			ContextLength:        map[string]int{"m": 4096, "other": 1},
			GPUMemoryUtilization: new(0.9),
		},
		{Name: "b", Usage: share(1), ContextLength: map[string]int{"m": 2048}},
		{Name: "idle", ContextLength: map[string]int{"m": 5}, GPUMemoryUtilization: new(0.1)},
	}, s)

	c := meta.Config
	if metadata.OrZero(c.MaxModelLen) != 2048 || metadata.OrZero(c.GPUMemoryUtilization) != 0.9 ||
		metadata.OrZero(meta.Results.Redeliveries) != 3 {
		t.Errorf("context of %d tokens, %v of the memory, %d redeliveries",
			metadata.OrZero(c.MaxModelLen), metadata.OrZero(c.GPUMemoryUtilization),
			metadata.OrZero(meta.Results.Redeliveries))
	}

	meta = metadata.Run{}
	addWorkers(&meta, []journal.WorkerSession{{Name: "a", Usage: share(2)}, {Name: "b", Usage: share(1)}}, s)
	if n := metadata.OrZero(meta.Results.Redeliveries); n != 3 {
		t.Errorf("%d redeliveries, want 3", n)
	}

	meta = metadata.Run{}
	addServerSettings(&meta, nil, s)
	if meta.Results.Redeliveries != nil || meta.Config.MaxModelLen != nil {
		t.Error("a value that no worker reported is known")
	}
}

// Workers report every few seconds how many requests they have in flight: in a run that is
// over sooner, the highest report is not the peak.
func TestPeakIsNotBelowTheMean(t *testing.T) {
	t.Parallel()

	s := &journal.State{Stats: &journal.FrameStats{}}
	s.Series.Add(fixture.Created, metadata.Point{Requests: 2, InFlight: new(int64(1))})
	s.Stats.AddLine(proto.Line{OK: true, LatencyMS: 1000, TotalMS: 1000}, nil, "")
	s.Stats.AddLine(proto.Line{OK: true, LatencyMS: 1000, TotalMS: 1000}, nil, "")

	for seconds, want := range map[float64]*int64{1: nil, 2: new(int64(1))} {
		r := metadata.Results{SuccessCount: 2, InferenceTimeSeconds: seconds}
		addMeasures(&r, s, &s.Series, nil)
		if diff := cmp.Diff(want, r.PeakConcurrentRequests); diff != "" {
			t.Errorf("two requests of a second in %v s (-want +got):\n%s", seconds, diff)
		}
	}
}

// Workers keep the readings of their last minutes alone. The peak of a run is known where readings are
// near to all of its work, and not where they are of its end.
func TestPeakIsOfTheWholeRun(t *testing.T) {
	t.Parallel()

	const seconds = 100
	for name, test := range map[string]struct {
		isRead func(second int) bool
		want   *int64
	}{
		"every second":      {func(int) bool { return true }, new(int64(7))},
		"every 3 s":         {func(i int) bool { return i%3 == 0 }, new(int64(7))},
		"the first 9 s not": {func(i int) bool { return i >= 9 }, new(int64(7))},
		"the second half":   {func(i int) bool { return i >= seconds/2 }, nil},
		"never":             {func(int) bool { return false }, nil},
	} {
		s := &journal.State{Stats: &journal.FrameStats{}}
		for i := range seconds {
			p := metadata.Point{Requests: 1}
			if test.isRead(i) {
				p.InFlight = new(int64(7))
			}
			s.Series.Add(fixture.Created.Add(time.Duration(i)*time.Second), p)
		}

		var r metadata.Results
		addMeasures(&r, s, &s.Series, nil)
		if diff := cmp.Diff(test.want, r.PeakConcurrentRequests); diff != "" {
			t.Errorf("readings %s (-want +got):\n%s", name, diff)
		}
	}
}

// The requests of the workers, and those of their sessions, add up to those of the run, whatever
// the workers reported last.
func TestRequestsOfSessionsAddUp(t *testing.T) {
	t.Parallel()

	heard := func(id string, requests int64, first, last int) journal.WorkerSession {
		s := journal.WorkerSession{
			ID:        id,
			Name:      "w",
			FirstSeen: fixture.Created.Add(time.Duration(first) * time.Second),
			LastSeen:  fixture.Created.Add(time.Duration(last) * time.Second),
		}
		if requests >= 0 {
			s.Usage = &proto.RunUsage{Requests: requests}
		}

		return s
	}
	for _, tt := range []struct {
		name     string
		sessions []journal.WorkerSession
		total    int64
		want     map[string]int64 // by the id of the session
	}{
		{"all was reported", []journal.WorkerSession{heard("a", 10, 0, 5)}, 10, map[string]int64{"a": 10}},
		{"a short run", []journal.WorkerSession{heard("a", -1, 0, 5)}, 10, map[string]int64{"a": 10}},
		{"the last was not reported", []journal.WorkerSession{heard("a", 277, 0, 5)}, 320, map[string]int64{"a": 320}},
		{"one that was started again", []journal.WorkerSession{heard("a", 7, 0, 5), heard("b", 2, 6, 9)}, 10,
			map[string]int64{"a": 7, "b": 3}},
		{"two at once", []journal.WorkerSession{heard("a", 7, 0, 9), heard("b", 2, 1, 8)}, 10,
			map[string]int64{"a": 8, "b": 2}},
		{"some were answered again", []journal.WorkerSession{heard("a", 7, 0, 5), heard("b", 6, 6, 9)}, 10,
			map[string]int64{"a": 4, "b": 6}},
		{"more than the first did", []journal.WorkerSession{heard("a", 2, 0, 5), heard("b", 12, 6, 9)}, 10,
			map[string]int64{"a": 0, "b": 10}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got, sum := map[string]int64{}, int64(0)
			for _, w := range buildWorkers(tt.sessions, map[string]int64{"w": tt.total}) {
				own := int64(0)
				for _, s := range w.Sessions {
					got[s.ID] = *s.Requests
					own += *s.Requests
				}

				if *w.Requests != own {
					t.Errorf("the worker has %d requests, its sessions %d", *w.Requests, own)
				}

				sum += own
			}

			if diff := cmp.Diff(tt.want, got); diff != "" || sum != tt.total {
				t.Errorf("%d in all, want %d; by session (-want +got):\n%s", sum, tt.total, diff)
			}
		})
	}
}
