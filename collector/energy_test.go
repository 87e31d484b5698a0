package collector

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
)

// workerSeeing returns the announcement of a worker that sees one card. meter is the card's
// reading in joules since the worker began, own the worker's reported energy for the run r.
func workerSeeing(id, host, uuid string, meter float64, requests int64, own float64, others int64) proto.WorkerInfo {
	return proto.WorkerInfo{
		ID: id, Name: "gpu1", Host: host, Since: fixture.Created,
		GPU:  []proto.GPU{{Name: "H200", UUID: uuid, EnergyJoules: &meter}},
		Runs: map[string]proto.RunUsage{"r": {Requests: requests, EnergyJoules: &own}, "s": {Requests: others}},
	}
}

// However many workers see a card, each joule that it takes is counted once.
func TestCardsAreMeteredOnce(t *testing.T) {
	t.Parallel()

	type announcements [][]proto.WorkerInfo
	for _, tt := range []struct {
		name string
		seen announcements
		want map[string]float64 // joules of the run, by worker
	}{
		{"a card each", announcements{
			{workerSeeing("a", "h", "A", 0, 0, 0, 0), workerSeeing("b", "h", "B", 0, 0, 0, 0)},
			{workerSeeing("a", "h", "A", 100, 10, 100, 0), workerSeeing("b", "h", "B", 50, 10, 50, 0)},
		}, map[string]float64{"a": 100, "b": 50}},
		{"one card for both", announcements{
			{workerSeeing("a", "h", "A", 0, 0, 0, 0), workerSeeing("b", "h", "A", 0, 0, 0, 0)},
			{workerSeeing("a", "h", "A", 100, 30, 100, 0), workerSeeing("b", "h", "A", 100, 10, 100, 0)},
			{workerSeeing("a", "h", "A", 180, 40, 180, 0), workerSeeing("b", "h", "A", 180, 40, 180, 0)},
		}, map[string]float64{"a": 75 + 20, "b": 25 + 60}},
		{"two hosts that see one card", announcements{
			{workerSeeing("a", "h", "A", 0, 0, 0, 0), workerSeeing("b", "i", "A", 0, 0, 0, 0)},
			{workerSeeing("a", "h", "A", 100, 10, 100, 0), workerSeeing("b", "i", "A", 100, 10, 100, 0)},
		}, map[string]float64{"a": 50, "b": 50}},
		{"cards without names on one host", announcements{
			{workerSeeing("a", "h", "", 0, 0, 0, 0), workerSeeing("b", "h", "", 0, 0, 0, 0)},
			{workerSeeing("a", "h", "", 100, 10, 100, 0), workerSeeing("b", "h", "", 100, 10, 100, 0)},
		}, map[string]float64{"a": 50, "b": 50}},
		{"cards without names on two hosts", announcements{
			{workerSeeing("a", "h", "", 0, 0, 0, 0), workerSeeing("b", "i", "", 0, 0, 0, 0)},
			{workerSeeing("a", "h", "", 100, 10, 100, 0), workerSeeing("b", "i", "", 100, 10, 100, 0)},
		}, map[string]float64{"a": 100, "b": 100}},
		{"one does nothing", announcements{
			{workerSeeing("a", "h", "A", 0, 0, 0, 0), workerSeeing("b", "h", "A", 0, 0, 0, 0)},
			{workerSeeing("a", "h", "A", 100, 10, 100, 0), workerSeeing("b", "h", "A", 100, 0, 0, 0)},
		}, map[string]float64{"a": 100, "b": 0}},
		{"one works for another run", announcements{
			{workerSeeing("a", "h", "A", 0, 0, 0, 0), workerSeeing("b", "h", "A", 0, 0, 0, 0)},
			{workerSeeing("a", "h", "A", 100, 10, 100, 0), workerSeeing("b", "h", "A", 100, 0, 0, 10)},
		}, map[string]float64{"a": 50, "b": 0}},
		{"long answers, by turns", announcements{
			{workerSeeing("a", "h", "A", 0, 0, 0, 0), workerSeeing("b", "h", "A", 0, 0, 0, 0)},
			{workerSeeing("a", "h", "A", 100, 0, 0, 0), workerSeeing("b", "h", "A", 100, 0, 0, 0)},
			{workerSeeing("a", "h", "A", 150, 1, 150, 0), workerSeeing("b", "h", "A", 150, 0, 0, 0)},
			{workerSeeing("a", "h", "A", 200, 1, 150, 0), workerSeeing("b", "h", "A", 200, 1, 200, 0)},
		}, map[string]float64{"a": 150, "b": 50}},
		{"one comes later", announcements{
			{workerSeeing("a", "h", "A", 0, 0, 0, 0)},
			{workerSeeing("a", "h", "A", 100, 10, 100, 0)},
			{workerSeeing("a", "h", "A", 100, 10, 100, 0), workerSeeing("b", "h", "A", 0, 0, 0, 0)},
			{workerSeeing("a", "h", "A", 200, 20, 200, 0), workerSeeing("b", "h", "A", 100, 10, 100, 0)},
		}, map[string]float64{"a": 150, "b": 50}},
		{"one goes", announcements{
			{workerSeeing("a", "h", "A", 0, 0, 0, 0), workerSeeing("b", "h", "A", 0, 0, 0, 0)},
			{workerSeeing("a", "h", "A", 100, 10, 100, 0), workerSeeing("b", "h", "A", 100, 10, 100, 0)},
			{workerSeeing("a", "h", "A", 200, 20, 200, 0)},
		}, map[string]float64{"a": 150, "b": 50}},
		{"both were at work before the first announcement", announcements{
			{workerSeeing("a", "h", "A", 100, 30, 100, 0), workerSeeing("b", "h", "A", 100, 10, 100, 0)},
		}, map[string]float64{"a": 75, "b": 25}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			f := newWorkerRegistry("r", nil)
			for _, workers := range tt.seen {
				f.observe(workers)
			}

			got := map[string]float64{}
			for _, s := range f.all() {
				got[s.ID] = 0
				if share := s.TotalUsage(); share != nil {
					got[s.ID] = math.Round(1000**share.EnergyJoules) / 1000
				}
			}

			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("joules of the run (-want +got):\n%s", diff)
			}
		})
	}
}

// Workers of one name are as many as were there at once; one that was started again is the
// same.
func TestNamesakes(t *testing.T) {
	t.Parallel()

	session := func(id string, first, last int, requests int64, joules float64) journal.WorkerSession {
		return journal.WorkerSession{
			ID:        id,
			Name:      "gpu1",
			Since:     fixture.Created.Add(time.Duration(first) * time.Second),
			Usage:     usageOf(requests, joules),
			FirstSeen: fixture.Created.Add(time.Duration(first) * time.Second),
			LastSeen:  fixture.Created.Add(time.Duration(last) * time.Second),
		}
	}

	type worker struct {
		Called   string
		Requests int64
		Joules   float64 // -1: unknown
		Sessions int
	}

	for _, tt := range []struct {
		name     string
		sessions []journal.WorkerSession
		requests int64
		want     []worker
	}{
		{"one", []journal.WorkerSession{session("aaaa1111", 0, 9, 4, 40)}, 4, []worker{{"gpu1", 4, 40, 1}}},
		{"started again", []journal.WorkerSession{session("aaaa1111", 0, 9, 4, 40), session("bbbb1111", 9, 20, 2, 20)},
			7,
			[]worker{{"gpu1", 7, -1, 2}}},
		{"two", []journal.WorkerSession{session("aaaa1111", 0, 9, 4, 40), session("bbbb1111", 3, 20, 2, 20)},
			6, []worker{
				{"gpu1 (aaaa)", 4, 40, 1},
				{"gpu1 (bbbb)", 2, 20, 1},
			}},
		{"two, one of them started again", []journal.WorkerSession{
			session("aaaa1111", 0, 9, 4, 40), session("bbbb1111", 3, 20, 2, 20), session("cccc1111", 12, 20, 1, 10),
		}, 7, []worker{{"gpu1 (cccc)", 5, 50, 2}, {"gpu1 (bbbb)", 2, 20, 1}}},
		{"two that do not report all: the one seen last has the rest",
			[]journal.WorkerSession{session("aaaa1111", 0, 9, 4, 40), session("bbbb1111", 3, 20, 2, 20)}, 60, []worker{
				{"gpu1 (aaaa)", 4, -1, 1},
				{"gpu1 (bbbb)", 56, -1, 1},
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var got []worker
			for _, w := range buildWorkers(tt.sessions, map[string]int64{"gpu1": tt.requests}) {
				joules := -1.0
				if w.EnergyJoules != nil {
					joules = *w.EnergyJoules
				}
				got = append(got, worker{w.DisplayName(), *w.Requests, joules, len(w.Sessions)})
			}

			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("workers (-want +got):\n%s", diff)
			}
		})
	}
}
