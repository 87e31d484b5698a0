package collector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// workerOn is the announcement of a worker with one card, with requests in flight.
func workerOn(name string, share *proto.RunUsage) proto.WorkerInfo {
	w := proto.WorkerInfo{
		Name:          name,
		Host:          "box",
		Version:       "v1",
		Flavour:       "vLLM",
		ServerVersion: "0.11",
		Since:         fixture.Created,
		InFlight:      1,
		GPU:           []proto.GPU{{Name: "H200", MemoryBytes: 139 << 30}},
	}
	if share != nil {
		w.Runs = map[string]proto.RunUsage{"r": *share, "other": {Requests: 99}}
	}

	return w
}

func usageOf(requests int64, joules float64) *proto.RunUsage {
	return &proto.RunUsage{Requests: requests, EnergyJoules: &joules}
}

// usageWith returns a share with shards that were delivered once more.
func usageWith(requests int64, joules float64, redeliveries int64) *proto.RunUsage {
	s := usageOf(requests, joules)
	s.Redeliveries = redeliveries
	return s
}

// sessionOf returns a session of a worker with this usage.
func sessionOf(name string, requests int64, joules float64) journal.WorkerSession {
	return observeAnnouncement(journal.WorkerSession{}, workerOn(name, usageOf(requests, joules)), "r")
}

func TestSessionShare(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		shares []*proto.RunUsage // in announcements one after another; nil: it names the run not
		want   *proto.RunUsage
	}{
		{"no word of the run", []*proto.RunUsage{nil}, nil},
		{"nothing so far", []*proto.RunUsage{{}}, nil},
		{"the latest stands", []*proto.RunUsage{nil, usageOf(1, 10), usageOf(3, 35)}, usageOf(3, 35)},
		{"it stands when the worker is done with the run", []*proto.RunUsage{usageOf(3, 35), nil}, usageOf(3, 35)},
		{"the worker counts again from 0", []*proto.RunUsage{usageOf(3, 35), nil, usageOf(1, 5), usageOf(2, 9)},
			usageOf(5, 44)},
		{"and again", []*proto.RunUsage{usageOf(3, 35), usageOf(1, 5), nil, usageOf(0, 1)}, usageOf(4, 41)},
		{"it counts redeliveries", []*proto.RunUsage{usageWith(0, 0, 1), usageWith(0, 0, 2), usageWith(1, 5, 2)},
			usageWith(1, 5, 2)},
		{"it counts them again from 0, with requests", []*proto.RunUsage{usageWith(3, 35, 2), usageWith(1, 5, 1)},
			usageWith(4, 40, 3)},
		{"and with as many requests", []*proto.RunUsage{usageWith(0, 0, 2), usageWith(0, 0, 1)}, usageWith(0, 0, 3)},
		{"and with none of them", []*proto.RunUsage{usageWith(1, 5, 2), nil, usageOf(2, 9)}, usageWith(3, 14, 2)},
		{"and with nothing else", []*proto.RunUsage{usageOf(3, 35), usageWith(0, 0, 1)}, usageWith(3, 35, 1)},
		{"energy that is unknown", []*proto.RunUsage{{Requests: 4}}, &proto.RunUsage{Requests: 4}},
		{"energy that is unknown in part", []*proto.RunUsage{
			{Requests: 4},
			usageOf(1, 5),
		}, &proto.RunUsage{Requests: 5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var s journal.WorkerSession
			for _, share := range tt.shares {
				s = observeAnnouncement(s, workerOn("w", share), "r")
			}

			if diff := cmp.Diff(tt.want, s.TotalUsage()); diff != "" {
				t.Errorf("share (-want +got):\n%s", diff)
			}
		})
	}
}

// The parts of a load time stay with it while the server is down, and are replaced with it.
func TestModelLoadOfSession(t *testing.T) {
	t.Parallel()

	loaded, again := workerOn("w", nil), workerOn("w", nil)
	loaded.LoadSeconds, loaded.ModelLoad = new(60.0), &proto.ModelLoad{WeightsSeconds: new(30.5)}
	again.LoadSeconds = new(20.0)

	s := observeAnnouncement(journal.WorkerSession{}, loaded, "r")
	s = observeAnnouncement(s, workerOn("w", nil), "r")
	if s.LoadSeconds == nil || *s.LoadSeconds != 60 || s.ModelLoad == nil || *s.ModelLoad.WeightsSeconds != 30.5 {
		t.Errorf("while it is down: %v, %+v", s.LoadSeconds, s.ModelLoad)
	}

	s = observeAnnouncement(s, again, "r")
	if *s.LoadSeconds != 20 || s.ModelLoad != nil {
		t.Errorf("after a start whose log has no phases: %v, %+v", *s.LoadSeconds, s.ModelLoad)
	}
}

// Figures of one of several servers behind a load balancer are forgotten.
func TestSessionOfSeveralServers(t *testing.T) {
	t.Parallel()

	one := workerOn("w", nil)
	one.GPUMemoryUtilization, one.LoadSeconds, one.MemoryBytes.Weights, one.Slots = new(0.9), new(60.0),
		new(int64(1<<30)), 4
	one.ModelLoad, one.Engines = &proto.ModelLoad{WeightsSeconds: new(30.5)}, 2
	several := workerOn("w", nil)
	several.SeveralServers = true

	got := observeAnnouncement(observeAnnouncement(journal.WorkerSession{}, one, "r"), several, "r")
	if got.GPUMemoryUtilization != nil || got.LoadSeconds != nil || got.MemoryBytes != (proto.ServerMemory{}) ||
		got.Slots != nil || got.ModelLoad != nil || got.Engines != 0 {
		t.Errorf("it is remembered: %v, %v, %+v, %+v, %d engines",
			got.GPUMemoryUtilization, got.LoadSeconds, got.MemoryBytes, got.Slots, got.Engines)
	}

	if !got.SeveralServers {
		t.Error("that there are several is not noted")
	}
}

// The figures of a model server stand while it is down, and after it.
func TestSessionKeepsModelServerFigures(t *testing.T) {
	t.Parallel()

	reported := func(utilization float64, lengths map[string]int) proto.WorkerInfo {
		w := workerOn("w", nil)
		w.ContextLength, w.GPUMemoryUtilization = lengths, &utilization
		return w
	}

	first := observeAnnouncement(journal.WorkerSession{}, reported(0.9, map[string]int{"m": 4096, "n": 8192}), "r")
	down := observeAnnouncement(first, workerOn("w", nil), "r")
	again := observeAnnouncement(down, reported(0.5, map[string]int{"m": 2048}), "r")
	for _, tt := range []struct {
		name        string
		session     journal.WorkerSession
		utilization float64
		lengths     map[string]int
	}{
		{"at first", first, 0.9, map[string]int{"m": 4096, "n": 8192}},
		{"while the server is down", down, 0.9, map[string]int{"m": 4096, "n": 8192}},
		{"after it has begun otherwise", again, 0.5, map[string]int{"m": 2048, "n": 8192}},
	} {
		if diff := cmp.Diff(tt.lengths, tt.session.ContextLength); diff != "" {
			t.Errorf("context lengths %s (-want +got):\n%s", tt.name, diff)
		}
		if got := tt.session.GPUMemoryUtilization; got == nil || *got != tt.utilization {
			t.Errorf("memory utilization %s: %v, want %v", tt.name, got, tt.utilization)
		}
	}

	if none := observeAnnouncement(journal.WorkerSession{}, workerOn("w", nil), "r"); none.ContextLength != nil ||
		none.GPUMemoryUtilization != nil {
		t.Errorf("nothing was reported, and it is %v and %v", none.ContextLength, none.GPUMemoryUtilization)
	}
}

// The slots of a model server, and how often they were taken while requests of the run ended.
func TestSessionSlots(t *testing.T) {
	t.Parallel()

	// reported returns an announcement of these slots, requests in flight, and requests of the run
	// that have ended.
	reported := func(slots int, inFlight, ended int64) proto.WorkerInfo {
		w := workerOn("w", usageOf(ended, 1))
		w.Slots, w.InFlight = slots, inFlight
		return w
	}
	for _, tt := range []struct {
		name    string
		reports []proto.WorkerInfo
		want    *metadata.Slots
	}{
		{"not reported", []proto.WorkerInfo{reported(0, 4, 1), reported(0, 4, 2)}, nil},
		{"full", []proto.WorkerInfo{reported(4, 4, 1), reported(4, 5, 2)},
			&metadata.Slots{Count: 4, Readings: 2, FullReadings: 2}},
		{"not full", []proto.WorkerInfo{reported(4, 5, 1), reported(4, 3, 2), reported(4, 1, 3)},
			&metadata.Slots{Count: 4, Readings: 3, FullReadings: 1}},
		{"at rest", []proto.WorkerInfo{reported(4, 5, 1), reported(4, 0, 2)},
			&metadata.Slots{Count: 4, Readings: 1, FullReadings: 1}},
		{"full of another run", []proto.WorkerInfo{reported(4, 2, 1), reported(4, 5, 1), reported(4, 5, 1)},
			&metadata.Slots{Count: 4, Readings: 1}},
		{"the server is down", []proto.WorkerInfo{reported(4, 5, 1), reported(0, 0, 1), reported(0, 4, 2)},
			&metadata.Slots{Count: 4, Readings: 2, FullReadings: 2}},
		{"it has more of them later", []proto.WorkerInfo{reported(4, 5, 1), reported(4, 5, 2), reported(32, 5, 3)},
			&metadata.Slots{Count: 32, Readings: 3}},
		{"the worker counts again from 0", []proto.WorkerInfo{reported(4, 5, 9), reported(4, 5, 1)},
			&metadata.Slots{Count: 4, Readings: 2, FullReadings: 2}},
	} {
		var s journal.WorkerSession
		for _, w := range tt.reports {
			s = observeAnnouncement(s, w, "r")
		}

		if diff := cmp.Diff(tt.want, s.Slots); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestSessionReadings(t *testing.T) {
	t.Parallel()

	var s journal.WorkerSession
	hear := func(inFlight int64, cards ...proto.GPU) {
		w := workerOn("w", nil)
		w.InFlight, w.GPU = inFlight, cards
		before := s
		s = observeAnnouncement(s, w, "r")
		if diff := cmp.Diff(before, observeAnnouncement(before, proto.WorkerInfo{
			Name:    before.Name,
			Host:    before.Host,
			Version: before.Version,
			Since:   before.Since,
		}, "r")); before.Name != "" && diff != "" {
			t.Errorf("an announcement without news changes the session (-before +after):\n%s", diff)
		}
	}

	card := func(index int, used int64, watts, joules float64) proto.GPU {
		return proto.GPU{
			Index:           index,
			Name:            "H200",
			MemoryBytes:     139 << 30,
			MemoryUsedBytes: &used,
			PowerWatts:      &watts,
			EnergyJoules:    &joules,
		}
	}

	hear(0, card(0, 10, 70, 1000), proto.GPU{Index: 1, Name: "H200"})
	if s.GPUs[0].EnergyJoules != nil || s.GPUs[0].PowerWattsMean != nil {
		t.Errorf("the first reading, of an idle card, is taken for %+v", s.GPUs[0])
	}

	hear(1, card(0, 30, 600, 1100), card(1, 5, 200, 50))
	hear(2, card(0, 20, 300, 1400), card(1, 6, 100, 60))
	hear(0, card(0, 1, 70, 1401.5))

	want := []metadata.GPU{
		{
			Name:               "H200",
			MemoryBytes:        new(int64(139 << 30)),
			MemoryUsedBytesMax: new(int64(30)),
			PowerWattsMean:     new(450.0),
			PowerReadings:      2,
			EnergyJoules:       new(401.5),
		},
		{
			Index:              1,
			Name:               "H200",
			MemoryBytes:        new(int64(139 << 30)),
			MemoryUsedBytesMax: new(int64(6)),
			PowerWattsMean:     new(150.0),
			PowerReadings:      2,
			EnergyJoules:       new(10.0),
		},
	}
	if diff := cmp.Diff(want, s.GPUs); diff != "" {
		t.Errorf("cards (-want +got):\n%s", diff)
	}
}

func TestRegistryNews(t *testing.T) {
	t.Parallel()

	f := newWorkerRegistry("r", nil)
	state := &journal.State{
		Stats:          &journal.FrameStats{Workers: map[string]int64{"named": 1}},
		WorkerSessions: map[string]journal.WorkerSession{},
	}

	names := func(fresh journal.FrameStats, all bool) (names []string) {
		news := f.changes(state, fresh, all)
		for _, s := range news {
			names = append(names, s.Name)
			state.WorkerSessions[s.Key()] = s
		}
		return names
	}

	check := func(what string, want, got []string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: news (-want +got):\n%s", what, diff)
		}
	}

	f.observe([]proto.WorkerInfo{
		workerOn("a", usageOf(1, 10)), workerOn("idle", nil), workerOn("named", nil), workerOn("fresh", nil),
	})

	check("those with a part in the run", []string{"a", "named"}, names(journal.FrameStats{}, false))
	check("one more", []string{"fresh"}, names(journal.FrameStats{Workers: map[string]int64{"fresh": 2}}, false))
	f.observe([]proto.WorkerInfo{workerOn("a", usageOf(2, 20)), workerOn("b", usageOf(1, 10))})
	check("new sessions and vanished ones now, others later", []string{"b", "named"}, names(journal.FrameStats{}, false))
	f.saved = time.Now().Add(-saveInterval)
	check("after a while", []string{"a"}, names(journal.FrameStats{}, false))
	f.observe([]proto.WorkerInfo{workerOn("a", usageOf(3, 30))})
	check("at the end, with one that has vanished", []string{"a", "b"}, names(journal.FrameStats{}, true))
	check("nothing new", nil, names(journal.FrameStats{}, true))

	if got := state.WorkerSessions[sessionOf("a", 0, 1).Key()].TotalUsage().Requests; got != 3 {
		t.Errorf("the journal knows of %d requests, want 3", got)
	}
}

// A worker that begins again and again without a part in the run is known once.
func TestRegistryForgets(t *testing.T) {
	t.Parallel()

	f := newWorkerRegistry("r", nil)
	for i := range 100 {
		w := workerOn("w", nil)
		if i == 50 {
			w.Runs = map[string]proto.RunUsage{"r": {Requests: 1}}
		}
		w.Since = fixture.Created.Add(time.Duration(i))
		f.observe([]proto.WorkerInfo{w})
	}

	if got := f.all(); len(got) != 2 || !got[0].Since.Equal(fixture.Created.Add(50)) ||
		!got[1].Since.Equal(fixture.Created.Add(99)) {
		t.Errorf("%d sessions are known, want the one with a part in the run and the latest", len(got))
	}
}

func TestRegistryBehind(t *testing.T) {
	t.Parallel()

	metered := func(share *proto.RunUsage) proto.WorkerInfo {
		w := workerOn("w", share)
		w.GPU[0].EnergyJoules = new(100.0)
		return w
	}

	earlier := sessionOf("w", 3, 30)
	earlier.Since = fixture.Created.Add(-time.Hour)

	for _, tt := range []struct {
		name  string
		known []journal.WorkerSession
		now   []proto.WorkerInfo
		want  bool
	}{
		{"no worker is there", nil, nil, false},
		{"it knows nothing of energy", nil, []proto.WorkerInfo{workerOn("w", nil)}, false},
		{"it has reported nothing", nil, []proto.WorkerInfo{metered(nil)}, true},
		{"it has not reported all", nil, []proto.WorkerInfo{metered(usageOf(4, 40))}, true},
		{"it has reported all", nil, []proto.WorkerInfo{metered(usageOf(5, 50))}, false},
		{"all together", []journal.WorkerSession{earlier}, []proto.WorkerInfo{metered(usageOf(2, 20))}, false},
		{"it has gone", []journal.WorkerSession{earlier}, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			f := newWorkerRegistry("r", nil)
			for _, s := range tt.known {
				f.sessions[s.Key()] = s
			}

			f.observe(tt.now)
			if got := f.isUsagePending(map[string]int64{"w": 5, "x": 9}); got != tt.want {
				t.Errorf("behind = %v", got)
			}
		})
	}
}

// A card that several workers of a host see has its memory counted once, also where it has no id; the cards of two
// hosts are two.
func TestMemoryOfSharedCards(t *testing.T) {
	t.Parallel()

	on := func(host string, cards ...proto.GPU) proto.WorkerInfo {
		return proto.WorkerInfo{Host: host, GPU: cards}
	}
	first := proto.GPU{Index: 0, MemoryUsedBytes: new(int64(3))}
	second := proto.GPU{Index: 1, UUID: "GPU-1", MemoryUsedBytes: new(int64(40))}

	used := memoryUsed([]proto.WorkerInfo{on("a", first, second), on("a", first), on("a", second), on("b", first)})
	if used == nil || *used != 46 {
		t.Errorf("%v bytes are in use, want 46", metadata.OrZero(used))
	}

	if used := memoryUsed([]proto.WorkerInfo{on("a")}); used != nil {
		t.Errorf("%d bytes of no card", *used)
	}
}
