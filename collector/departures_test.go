package collector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// announced returns the announcement of a worker with requests of the run "r" at its model server.
func announced(name string, inFlight int64) proto.WorkerInfo {
	w := workerOn(name, usageOf(5, 0))
	w.ReceivedAt = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	w.Samples = []proto.LoadSample{{At: w.ReceivedAt, InFlight: inFlight + 1, Runs: map[string]int64{"r": inFlight}}}

	return w
}

// departureAt returns the departure of a worker that was asked to leave at a second, with 100 s left.
func departureAt(second int) *proto.Departure {
	noticed := time.Date(2026, 5, 1, 12, 0, second, 0, time.UTC)

	return &proto.Departure{
		Reason:      "the cloud takes it back",
		NoticedAt:   noticed,
		Deadline:    noticed.Add(100 * time.Second),
		Slots:       4,
		UsedSeconds: 320,
		Runs: map[string]proto.DepartureUsage{
			"r":     {Finished: 10, HandedBack: 7, ThrownAway: 1, ThrownAwaySeconds: 12},
			"other": {Finished: 1},
		},
	}
}

// The ways in which a worker can go are kept apart.
func TestDepartures(t *testing.T) {
	t.Parallel()

	staying, gone := announced("stays", 2), announced("gone", 3)
	leaving, cut := announced("leaves", 2), announced("cut", 4)
	leaving.Departure, cut.Departure = departureAt(1), departureAt(2)

	f := newWorkerRegistry("r", nil)
	f.observe([]proto.WorkerInfo{staying, gone, leaving, cut, announced("stops", 1)})

	last := leaving
	last.Departure = departureAt(1)
	last.Departure.LeftAt = last.Departure.NoticedAt.Add(90 * time.Second)
	f.observe([]proto.WorkerInfo{staying}, last, announced("stops", 0))
	f.observe([]proto.WorkerInfo{staying}) // the last reports do not stay for long

	got := buildDepartures("r", f.all(), nil, time.Date(2026, 5, 1, 13, 0, 0, 0, time.UTC))
	vanished := gone.ReceivedAt
	want := []metadata.Departure{
		{Worker: "gone", ID: gone.ID, VanishedAt: &vanished, LostInFlight: 3},
		{
			Worker: "leaves", ID: leaving.ID, Reason: "the cloud takes it back",
			NoticedAt: &last.Departure.NoticedAt, Deadline: &last.Departure.Deadline, LeftAt: &last.Departure.LeftAt,
			Finished: 10, HandedBack: 7, ThrownAway: 1, ThrownAwaySeconds: 12, TimeUsed: new(0.8),
		},
		{
			Worker: "cut", ID: cut.ID, Reason: "the cloud takes it back",
			NoticedAt: &cut.Departure.NoticedAt, Deadline: &cut.Departure.Deadline, VanishedAt: &vanished,
			Finished: 10, HandedBack: 7, ThrownAway: 1, ThrownAwaySeconds: 12, LostInFlight: 4, TimeUsed: new(0.8),
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}

	if got := buildDepartures("r", nil, nil, time.Now()); got != nil {
		t.Errorf("departures %v of a run without workers", got)
	}

	// A run that goes on from its output has them still, also of workers that the metadata have not.
	bare := metadata.Run{TestID: "r", Results: metadata.Results{Departures: want}}
	meta := bare
	addWorkers(&meta, f.all(), &journal.State{})
	for _, m := range []metadata.Run{bare, meta} {
		again := buildDepartures("r", journal.SessionsOf(&m), nil, time.Date(2026, 5, 2, 13, 0, 0, 0, time.UTC))
		if diff := cmp.Diff(want, again); diff != "" {
			t.Errorf("departures of the run that goes on (-want +got):\n%s", diff)
		}
	}
}

// A worker whose announcements come again has not vanished, and one that had nothing of the run costs
// nothing.
func TestNoDeparture(t *testing.T) {
	t.Parallel()

	idle := workerOn("idle", nil)
	f := newWorkerRegistry("r", nil)
	f.observe([]proto.WorkerInfo{announced("away", 3), idle})
	f.observe(nil)
	f.observe([]proto.WorkerInfo{announced("away", 3)})

	if got := buildDepartures("r", f.all(), nil, time.Now()); got != nil {
		t.Errorf("departures %v", got)
	}

	// The lines show that a worker took part that vanished before it announced that.
	lines := &journal.FrameStats{Workers: map[string]int64{"idle": 1}}
	if got := buildDepartures("r", f.all(), lines, time.Now()); len(got) != 1 || got[0].Worker != "idle" {
		t.Errorf("departures %v, want that of the worker with a line", got)
	}
}

// The time after the end of the run could not be used.
func TestTimeUsedUntilTheEnd(t *testing.T) {
	t.Parallel()

	d := departureAt(0)
	d.UsedSeconds = 90
	sessions := []journal.WorkerSession{{Name: "w", Departure: d}}
	got := buildDepartures("r", sessions, nil, d.NoticedAt.Add(25*time.Second))
	if len(got) != 1 || got[0].TimeUsed == nil || *got[0].TimeUsed != 0.9 {
		t.Errorf("departures %+v", got)
	}
}

// A worker that a request kills again and again does not fill the journal, and a departure has nothing of other
// runs there.
func TestDeparturesAreBounded(t *testing.T) {
	t.Parallel()

	f := newWorkerRegistry("r", nil)
	for i := range maxVanished + 20 {
		w := announced("w", 1)
		w.Runs, w.Since = nil, w.ReceivedAt.Add(time.Duration(i)*time.Second)
		f.observe([]proto.WorkerInfo{w})
		f.observe(nil)
	}

	changes := f.changes(&journal.State{}, journal.FrameStats{}, true)
	if len(changes) != maxVanished {
		t.Errorf("%d sessions for the journal, want %d", len(changes), maxVanished)
	}
	if got := len(f.all()); got > maxVanished+1 {
		t.Errorf("%d sessions in memory, want %d and the last one", got, maxVanished)
	}

	leaving := announced("leaves", 1)
	leaving.Departure = departureAt(1)
	f = newWorkerRegistry("r", nil)
	f.observe([]proto.WorkerInfo{leaving})

	want := map[string]proto.DepartureUsage{"r": leaving.Departure.Runs["r"]}
	if diff := cmp.Diff(want, f.all()[0].Departure.Runs); diff != "" {
		t.Errorf("the runs of a departure (-want +got):\n%s", diff)
	}
	if len(leaving.Departure.Runs) != 2 {
		t.Error("the announcement was changed, which others read too")
	}
}
