package collector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// sampled is an announcement with readings of a run, one a second from a second on, by a clock that is
// ahead of the bus's.
func sampled(name string, ahead time.Duration, from int, inFlight ...int64) proto.WorkerInfo {
	at := func(second int) time.Time { return fixture.Created.Add(time.Duration(second) * time.Second) }
	w := proto.WorkerInfo{
		Name:       name,
		Since:      fixture.Created,
		Runs:       map[string]proto.RunUsage{"r": {}},
		SentAt:     at(from + len(inFlight)).Add(ahead),
		ReceivedAt: at(from + len(inFlight)),
	}
	for i, n := range inFlight {
		s := proto.LoadSample{
			At:       at(from + i).Add(ahead + 100*time.Millisecond),
			InFlight: n + 5, // of another run
			Limit:    64,
			Runs:     map[string]int64{"other": 5},
		}
		if n > 0 {
			s.Runs["r"] = n
		}
		w.Samples = append(w.Samples, s)
	}

	return w
}

// The load of workers is summed second by second, at the time of its readings by the clock of the bus,
// whatever the clocks of their hosts say and when the collector hears of them.
func TestLoadOfWorkers(t *testing.T) {
	t.Parallel()

	r := newWorkerRegistry("r", nil)
	now := fixture.Created.Add(time.Hour)

	// The readings of the second worker, and some of the first one's, come after the first frame.
	first := sampled("a", 0, 0, 7, 9, 0, 0)
	if !r.sampleLoad(now, []proto.WorkerInfo{first}) {
		t.Error("a worker with requests is not at work")
	}

	series := r.takeSeries()
	if r.sampleLoad(now, []proto.WorkerInfo{first}) {
		t.Error("a worker is at work by readings that are known")
	}

	r.sampleLoad(now, []proto.WorkerInfo{sampled("a", 0, 2, 0, 0, 3), sampled("b", -time.Hour, 0, 1, 20, 2)},
		sampled("stopped", time.Minute, 1, 4))
	later := r.takeSeries()
	series.Merge(&later)

	var inFlight, limit []int64
	for i := range series.Len() {
		p := series.At(i)
		if p.InFlight == nil || p.Limit == nil {
			t.Fatalf("second %d has no reading: %+v", i, p)
		}
		inFlight, limit = append(inFlight, *p.InFlight), append(limit, *p.Limit)
	}

	if diff := cmp.Diff([]int64{8, 33, 2, 0, 3}, inFlight); diff != "" || !series.Start.Equal(fixture.Created.Truncate(time.Second)) {
		t.Errorf("in flight from %s on (-want +got):\n%s", series.Start, diff)
	}

	if diff := cmp.Diff([]int64{128, 192, 128, 64, 64}, limit); diff != "" {
		t.Errorf("limit (-want +got):\n%s", diff)
	}

	if load := r.currentLoad(); load.inFlight != 3+2 {
		t.Errorf("the workers have %d requests of the run, want 5", load.inFlight)
	}
}

// A worker of an older version reports its requests of all runs every few seconds.
func TestLoadOfOlderWorkers(t *testing.T) {
	t.Parallel()

	r := newWorkerRegistry("r", nil)
	now := fixture.Created.Add(time.Hour)
	for _, second := range []int{0, 3, 6, 20} {
		w := proto.WorkerInfo{
			Name:        "old",
			InFlight:    int64(10 + second),
			Concurrency: 50,
			ReceivedAt:  fixture.Created.Add(time.Duration(second) * time.Second),
		}
		if !r.sampleLoad(now, []proto.WorkerInfo{w}) {
			t.Error("a worker with requests is not at work")
		}
	}

	series := r.takeSeries()
	var got []int64
	for _, n := range series.InFlight {
		if n == nil {
			got = append(got, -1)
		} else {
			got = append(got, *n)
		}
	}

	want := []int64{10, 10, 10, 13, 13, 13, 16, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 30}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in flight (-want +got):\n%s", diff)
	}
}

// A reading that cannot be of the last minutes would stretch the series to its time. It is left out.
func TestLoadOfAWrongClock(t *testing.T) {
	t.Parallel()

	r := newWorkerRegistry("r", nil)
	w := sampled("a", 0, 0, 7, 9)
	for _, at := range []time.Time{{}, fixture.Created.Add(-time.Hour), fixture.Created.AddDate(100, 0, 0)} {
		w.Samples = append(w.Samples, proto.LoadSample{
			At:       at,
			InFlight: 99,
			Limit:    99,
			Runs:     map[string]int64{"r": 99},
		})
	}
	r.sampleLoad(fixture.Created, []proto.WorkerInfo{w})

	series := r.takeSeries()
	if series.Len() != 2 || series.IntervalSeconds != 1 || *series.InFlight[0] != 7 || *series.InFlight[1] != 9 {
		t.Errorf("%+v", series)
	}
	if n := len(r.book.seconds); n != 2 {
		t.Errorf("%d seconds are kept", n)
	}
}

// A frame has the load of each second, also of those before its first result: workers announce some at a time.
func TestLoadBeforeTheResultsOfAFrame(t *testing.T) {
	t.Parallel()

	r := newWorkerRegistry("r", nil)
	r.sampleLoad(fixture.Created, []proto.WorkerInfo{sampled("a", 0, 0, 1, 2, 3, 4)})

	f := &pendingFrame{}
	f.Position.Sequence = 1
	f.Series.Add(fixture.Created.Add(2*time.Second), metadata.Point{Requests: 9})

	s := &session{
		workers: r,
		gap:     &collectionGap{},
		copying: true,
		frame:   f,
		frames:  make(chan *pendingFrame, 1),
	}
	s.closeFrame()

	got := (<-s.frames).Series
	want := metadata.Series{}
	for i, n := range []int64{1, 2, 3, 4} {
		want.Add(fixture.Created.Add(time.Duration(i)*time.Second), metadata.Point{InFlight: &n, Limit: new(int64(64))})
	}
	want.Add(fixture.Created.Add(2*time.Second), metadata.Point{Requests: 9})

	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the series of the frame (-want +got):\n%s", diff)
	}
}
