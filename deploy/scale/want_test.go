package scale

import (
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/proto"
)

// start is the time at which the runs of tests begin.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// newRun returns a run of 36,000 requests for a model, of which none has ended.
func newRun(change func(*status.Run)) status.Run {
	r := status.Run{
		Manifest: proto.Manifest{
			Run:       "r",
			State:     proto.StateInProgress,
			CreatedAt: start,
			Input:     proto.Input{Requests: 36_000, Models: map[string]int{"m": 36_000}},
		},
		Progress:  status.Progress{Total: 36_000},
		Collector: &status.Collector{},
	}
	if change != nil {
		change(&r)
	}

	return r
}

// newWorker returns a worker that is busy with run r, and ends 2 requests a second.
func newWorker(host string, change func(*status.Worker)) status.Worker {
	w := status.Worker{WorkerInfo: proto.WorkerInfo{
		Host:           host,
		Ready:          true,
		Models:         []string{"m"},
		Concurrency:    16,
		InFlight:       16,
		Done:           100,
		LatencySeconds: 8,
		Samples: []proto.LoadSample{
			{InFlight: 16, Limit: 16, Runs: map[string]int64{"r": 16}},
			{InFlight: 16, Limit: 16, Runs: map[string]int64{"r": 16}},
		},
	}}
	if change != nil {
		change(&w)
	}

	return w
}

// One box ends 2 requests a second, so 36,000 requests take it five hours.
func TestWant(t *testing.T) {
	t.Parallel()

	hour := Question{Model: "m", Default: time.Hour}
	idle := func(w *status.Worker) { w.InFlight, w.Samples, w.Shards = 0, nil, new(int64(0)) }
	busy := []status.Worker{newWorker("a", nil)}

	for _, tt := range []struct {
		name    string
		workers []status.Worker
		change  func(*status.Run)
		after   time.Duration // since the start
		ask     Question
		want    int
		left    int
	}{
		{
			name:    "five box-hours within an hour",
			workers: busy,
			ask:     hour,
			want:    5,
			left:    36_000,
		},
		{
			name:    "half of the time has passed",
			workers: busy,
			after:   30 * time.Minute,
			ask:     hour,
			want:    10,
			left:    36_000,
		},
		{
			name:    "it is late, as if it had five minutes",
			workers: busy,
			after:   3 * time.Hour,
			ask:     hour,
			want:    60,
			left:    36_000,
		},
		{
			name:    "within eight hours",
			workers: busy,
			ask:     Question{Model: "m", Within: 8 * time.Hour, Default: time.Hour},
			want:    1,
			left:    36_000,
		},
		{
			name:    "by a time",
			workers: busy,
			after:   time.Hour,
			ask:     Question{Model: "m", By: start.Add(2*time.Hour + time.Minute), Default: time.Hour},
			want:    5,
			left:    36_000,
		},
		{
			name:    "most of it is done",
			workers: busy,
			change:  func(r *status.Run) { r.Progress.Done = 27_000 },
			ask:     hour,
			want:    2,
			left:    9_000,
		},
		{
			name:    "it was resumed later",
			workers: busy,
			change:  func(r *status.Run) { r.StateAt = start.Add(3 * time.Hour) },
			after:   3 * time.Hour,
			ask:     hour,
			want:    5,
			left:    36_000,
		},
		{
			name:    "its own time is longer than the usual one",
			workers: busy,
			change:  func(r *status.Run) { r.Policy.ExpiresAt = new(start.Add(6 * time.Hour)) },
			ask:     hour,
			want:    1,
			left:    36_000,
		},
		{
			name:    "nine tenths of its own time",
			workers: busy,
			change:  func(r *status.Run) { r.Policy.ExpiresAt = new(start.Add(5 * time.Hour)) },
			ask:     hour,
			want:    2,
			left:    36_000,
		},
		{
			name:    "its own time is shorter than what is asked for",
			workers: busy,
			change:  func(r *status.Run) { r.Policy.ExpiresAt = new(start.Add(5 * time.Hour)) },
			ask:     Question{Model: "m", Within: 24 * time.Hour, Default: time.Hour},
			want:    2,
			left:    36_000,
		},
		{
			name:    "bounded",
			workers: busy,
			ask:     Question{Model: "m", Default: time.Hour, Max: 3},
			want:    3,
			left:    36_000,
		},
		{
			name:    "requests fill no more boxes",
			workers: []status.Worker{newWorker("a", func(w *status.Worker) { w.LatencySeconds = 400 })},
			change:  func(r *status.Run) { r.Progress.Done = 35_960 },
			after:   3 * time.Hour,
			ask:     hour,
			want:    3,
			left:    40,
		},
		{
			name: "two workers of a box",
			workers: []status.Worker{
				newWorker("a", nil),
				newWorker("a", nil),
			},
			ask:  hour,
			want: 3,
			left: 36_000,
		},
		{
			name: "one of two workers of a box is not measured yet",
			workers: []status.Worker{
				newWorker("a", nil),
				newWorker("a", func(w *status.Worker) { w.Done = 0 }),
			},
			ask:  hour,
			want: 3,
			left: 36_000,
		},
		{
			name:    "counted requests of a fast worker",
			workers: []status.Worker{newWorker("a", func(w *status.Worker) { w.PerSecond = 20 })},
			ask:     hour,
			want:    1,
			left:    36_000,
		},
		{
			name: "no worker",
			ask:  hour,
			want: 1,
			left: 36_000,
		},
		{
			name:    "no worker was measured",
			workers: []status.Worker{newWorker("a", func(w *status.Worker) { w.Done = 15 })},
			ask:     hour,
			want:    1,
			left:    36_000,
		},
		{
			name: "a worker that waits for work is no measure",
			workers: []status.Worker{newWorker("a", func(w *status.Worker) {
				w.Samples = append(w.Samples, proto.LoadSample{InFlight: 7, Limit: 16, Runs: map[string]int64{"r": 7}})
			})},
			ask:  hour,
			want: 1,
			left: 36_000,
		},
		{
			name: "a worker of another run is no measure",
			workers: []status.Worker{newWorker("a", func(w *status.Worker) {
				w.Samples = []proto.LoadSample{{InFlight: 16, Limit: 16, Runs: map[string]int64{"other": 16}}}
			})},
			ask:  hour,
			want: 1,
			left: 36_000,
		},
		{
			name:    "nothing is left",
			workers: []status.Worker{newWorker("a", idle)},
			change:  func(r *status.Run) { r.Progress.Done = 36_000 },
			ask:     hour,
		},
		{
			name:    "a worker holds the last requests of a run that is cancelled",
			workers: busy,
			change:  func(r *status.Run) { r.State = proto.StateCancelled },
			ask:     hour,
			want:    1,
		},
		{
			name:    "a worker holds a shard",
			workers: []status.Worker{newWorker("a", func(w *status.Worker) { idle(w); *w.Shards = 1 })},
			change:  func(r *status.Run) { r.State = proto.StateFinalizing },
			ask:     hour,
			want:    1,
		},
		{
			name:    "paused",
			workers: []status.Worker{newWorker("a", idle)},
			change:  func(r *status.Run) { r.State = proto.StatePaused },
			ask:     hour,
		},
		{
			name:    "the input is being stored",
			workers: []status.Worker{newWorker("a", idle)},
			change:  func(r *status.Run) { r.State = proto.StateValidating },
			ask:     hour,
		},
		{
			name:    "nobody collects it",
			workers: []status.Worker{newWorker("a", idle)},
			change:  func(r *status.Run) { r.Collector, r.AgeS = nil, 60 },
			ask:     hour,
		},
		{
			name:   "its collector is about to start",
			change: func(r *status.Run) { r.Collector, r.AgeS = nil, 2 },
			ask:    hour,
			want:   1,
			left:   36_000,
		},
		{name: "an unknown model", workers: busy, ask: Question{Model: "unknown", Default: time.Hour}},
		{
			name:    "an unknown model, and a worker that tries any",
			workers: []status.Worker{newWorker("a", func(w *status.Worker) { w.Models = nil })},
			ask:     Question{Model: "unknown", Default: time.Hour},
		},
		{
			name:    "all models",
			workers: busy,
			ask:     Question{All: true, Default: time.Hour},
			want:    5,
			left:    36_000,
		},
		{
			name:    "requests without a model count for each",
			workers: busy,
			change:  func(r *status.Run) { r.Input.Models = map[string]int{"": 36_000} },
			ask:     hour,
			want:    1,
			left:    36_000,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := status.Bus{Runs: []status.Run{newRun(tt.change)}, Workers: tt.workers}
			var m Meter
			m.Observe(b)

			got := m.Want(Work{Bus: b}, tt.ask, start.Add(tt.after))
			if got.Value != tt.want || got.RequestsLeft != tt.left {
				t.Errorf("%+v, want %d boxes for %d requests", got, tt.want, tt.left)
			}
			if got.Reason == "" || (got.By != nil) != (tt.left > 0) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// What a box does is remembered while there is none, and while its workers end the last requests of a run.
func TestMeterRemembers(t *testing.T) {
	t.Parallel()

	var m Meter
	m.Observe(status.Bus{Runs: []status.Run{newRun(nil)}, Workers: []status.Worker{newWorker("a", nil)}})

	ending := newRun(func(r *status.Run) { r.Progress.Done = 35_990 })
	slow := newWorker("a", func(w *status.Worker) { w.LatencySeconds = 100 })
	m.Observe(status.Bus{Runs: []status.Run{ending}, Workers: []status.Worker{slow}})

	paused := newRun(func(r *status.Run) { r.State = proto.StatePaused })
	m.Observe(status.Bus{Runs: []status.Run{paused}, Workers: []status.Worker{slow}})

	next := status.Bus{Runs: []status.Run{newRun(nil)}}
	m.Observe(next)

	got := m.Want(Work{Bus: next}, Question{Model: "m", Default: time.Hour}, start)
	if got.Value != 5 || got.BoxRequestsPerS == nil || *got.BoxRequestsPerS != 2 {
		t.Errorf("%+v, want 5 boxes of 2 requests a second", got)
	}
}

// The requests of a run with several models are shared out by the shards that are left; without them, by its input.
func TestWantOfSeveralModels(t *testing.T) {
	t.Parallel()

	run := newRun(func(r *status.Run) { r.Input.Models = map[string]int{"m": 27_000, "n": 9_000} })
	b := status.Bus{Runs: []status.Run{run}, Workers: []status.Worker{newWorker("a", nil)}}
	var m Meter
	m.Observe(b)

	for _, tt := range []struct {
		name    string
		pending map[string]int
		model   string
		left    int
		want    int
	}{
		{"by the input", nil, "m", 27_000, 4},
		{"by the input", nil, "n", 9_000, 1},
		{"by the shards", map[string]int{"m": 50, "n": 150}, "m", 9_000, 2},
		{"one is done", map[string]int{"m": 0, "n": 10}, "m", 0, 0},
		{"no shard is left, but results are on their way", map[string]int{"m": 0, "n": 0}, "m", 27_000, 4},
	} {
		w := Work{Bus: b, Pending: map[string]map[string]int{"r": tt.pending}}
		w.Workers = nil
		got := m.Want(w, Question{Model: tt.model, Default: time.Hour}, start)
		if got.Value != tt.want || got.RequestsLeft != tt.left {
			t.Errorf("%s, %s: %+v, want %d boxes for %d requests", tt.name, tt.model, got, tt.want, tt.left)
		}
	}

	all := m.Want(Work{Bus: b}, Question{All: true, Default: time.Hour}, start)
	if all.Value != 5 || all.RequestsLeft != 36_000 || all.Boxes != 1 { // 3.75, and one for n
		t.Errorf("%+v, want 5 boxes for all models", all)
	}
}
