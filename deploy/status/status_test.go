package status

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

// The progress of a run has a rate and a remaining time while the run works, and no others.
func TestMeasureProgress(t *testing.T) {
	t.Parallel()

	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now := created.Add(100 * time.Second)
	reported := &proto.CollectorProgress{
		Done:              40,
		Failed:            3,
		RequestsPerSecond: new(2.0),
		Remaining:         &proto.Interval{Low: 24.6, Expected: 30.4, High: 41},
	}

	for _, tt := range []struct {
		name     string
		state    proto.State
		problem  string
		ended    time.Time
		reported *proto.CollectorProgress
		want     Progress
	}{
		{
			name:     "it works",
			state:    proto.StateInProgress,
			reported: reported,
			want: Progress{
				Done: 40, Failed: 3, Durable: 30, RequestsPerS: new(2.0), RemainingS: new(30.0),
				RemainingLowS: new(25.0), RemainingHighS: new(41.0), ElapsedS: 100,
			},
		},
		{
			name:     "it has no result for the time of a rate",
			state:    proto.StateInProgress,
			reported: &proto.CollectorProgress{Done: 40, Failed: 3, RequestsPerSecond: new(0.0)},
			want:     Progress{Done: 40, Failed: 3, Durable: 30, RequestsPerS: new(0.0), ElapsedS: 100},
		},
		{
			name:     "no worker serves its model",
			state:    proto.StateInProgress,
			problem:  "no worker serves m",
			reported: reported,
			want:     Progress{Done: 40, Failed: 3, Durable: 30, ElapsedS: 100},
		},
		{
			name:     "paused",
			state:    proto.StatePaused,
			reported: reported,
			want:     Progress{Done: 40, Failed: 3, Durable: 30, ElapsedS: 100},
		},
		{
			name:     "a report that is older than the manifest",
			state:    proto.StateInProgress,
			reported: &proto.CollectorProgress{Done: 20, RequestsPerSecond: new(0.5)},
			want: Progress{
				Done: 30, Failed: 2, Durable: 30, RequestsPerS: new(0.5), ElapsedS: 100,
			},
		},
		{
			name:     "a report of more requests than there are",
			state:    proto.StateInProgress,
			reported: &proto.CollectorProgress{Done: 400, RequestsPerSecond: new(0.5)},
			want: Progress{
				Done: 100, Durable: 30, RequestsPerS: new(0.5), ElapsedS: 100,
			},
		},
		{
			name:  "no process collects it",
			state: proto.StateInProgress,
			want:  Progress{Done: 30, Failed: 2, Durable: 30, ElapsedS: 100},
		},
		{
			name:     "ended",
			state:    proto.StateCancelled,
			ended:    created.Add(70 * time.Second),
			reported: reported,
			want:     Progress{Done: 30, Failed: 2, Durable: 30, ElapsedS: 70},
		},
		{
			name:  "ended by a clock that is behind",
			state: proto.StateCompleted,
			ended: created.Add(-time.Hour),
			want:  Progress{Done: 30, Failed: 2, Durable: 30},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			r := Run{
				Manifest: proto.Manifest{
					State:     tt.state,
					CreatedAt: created,
					Input:     proto.Input{Requests: 100},
					Counts:    proto.Counts{Done: 30, Failed: 2},
				},
				Problem: tt.problem,
			}
			if !tt.ended.IsZero() {
				r.EndedAt = &tt.ended
			}

			tt.want.Total = 100
			if diff := cmp.Diff(tt.want, r.measureProgress(tt.reported, now)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The status of a worker and of a collector say when they were heard last, by the clock of the bus. One
// whose clock is ahead was heard now.
func TestHeardAgo(t *testing.T) {
	t.Parallel()

	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		ago    time.Duration
		want   float64
		silent bool
	}{
		{-time.Minute, 0, false},
		{2400 * time.Millisecond, 2.4, false},
		{5 * time.Second, 5, false},
		{12340 * time.Millisecond, 12.3, true},
	} {
		at := now.Add(-tt.ago)
		w := newWorker(proto.WorkerInfo{Name: "gpu1", ReceivedAt: at}, now)
		c := newCollector(proto.CollectorLease{ReceivedAt: at}, now)
		if w.HeardAgoS != tt.want || c.RenewedAgoS != tt.want || w.isSilent() != tt.silent || !w.HeardAt.Equal(at) {
			t.Errorf("%s ago: worker %+v, collector %+v", tt.ago, w, c)
		}
	}
}

// A batch that is validating for long names the server that stores its input.
func TestBatchIsValidating(t *testing.T) {
	t.Parallel()

	now := time.Now()
	r := Run{Manifest: proto.Manifest{
		Run:       "r",
		State:     proto.StateValidating,
		CreatedAt: now.Add(-time.Minute),
		Policy:    proto.RunPolicy{Attended: true, Batch: true},
	}}

	const want = "promptmill serve --api is still storing its input, or was stopped: it continues once serve --api is " +
		"started again; promptmill delete --force r removes it"
	if got := r.findProblem(now); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The hint for a run that no process collects names only what collects this run.
func TestCollectFix(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		m    proto.Manifest
		want string
	}{
		{"of a bus with a server", proto.Manifest{Run: "r"}, "promptmill collect r -o OUT, or promptmill serve"},
		{
			name: "of the run command",
			m:    proto.Manifest{Run: "r", Policy: proto.RunPolicy{Attended: true}, Output: "box:/o/r"},
			want: "the same promptmill run command continues it",
		},
		{
			name: "of submit with an output",
			m: proto.Manifest{
				Run:    "r",
				Policy: proto.RunPolicy{Attended: true},
				Input:  proto.Input{Stored: true},
				Output: "box:/o/my run",
			},
			want: "promptmill collect r -o '/o/my run.jsonl.zst' on box, or the same promptmill submit there",
		},
		{
			name: "of submit that had no output yet",
			m:    proto.Manifest{Run: "r", Policy: proto.RunPolicy{Attended: true}, Input: proto.Input{Stored: true}},
			want: "promptmill collect r -o OUT, or the same promptmill submit with --run r",
		},
		{
			name: "of a batch",
			m: proto.Manifest{
				Run:    "r",
				Policy: proto.RunPolicy{Attended: true, Batch: true},
				Input:  proto.Input{Stored: true},
				Output: "box:/o/r",
			},
			want: "the same promptmill serve --api on box continues it",
		},
		{
			name: "of a batch that had no collector yet",
			m:    proto.Manifest{Run: "r", Policy: proto.RunPolicy{Attended: true, Batch: true}},
			want: "the promptmill serve --api that made it continues it",
		},
	} {
		if got := CollectFix(tt.m); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
