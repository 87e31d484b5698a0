package worker

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/limit"
)

// pendingConsumer has a number of shards that no worker has.
type pendingConsumer struct {
	jetstream.Consumer
	shards uint64
}

func (c pendingConsumer) Info(context.Context) (*jetstream.ConsumerInfo, error) {
	return &jetstream.ConsumerInfo{NumPending: c.shards}, nil
}

// A worker leaves the end of a run to others only if they are faster than it on average. Workers
// that are equally fast do not leave it to each other, however different the requests are.
func TestYieldToFaster(t *testing.T) {
	t.Parallel()

	const slots = 16
	peer := func(id string, latency time.Duration, perSecond float64) proto.WorkerInfo {
		return proto.WorkerInfo{
			ID:             id,
			Ready:          true,
			Models:         []string{"m"},
			LatencySeconds: latency.Seconds(),
			PerSecond:      perSecond,
		}
	}

	equal, faster := peer("equal", 480*time.Millisecond, 33), peer("faster", 100*time.Millisecond, 80)

	for _, tt := range []struct {
		name      string
		mean      time.Duration
		deviation time.Duration
		peers     []proto.WorkerInfo

		// pending is the number of shards that wait, of so many requests each, and held that of the
		// requests that the worker has.
		pending, shardRequests, held int

		want bool
	}{
		{"alone", 480 * time.Millisecond, 200 * time.Millisecond, nil, 8, 1, 15, false},
		{
			"others are as fast, and requests differ", 480 * time.Millisecond, 200 * time.Millisecond,
			[]proto.WorkerInfo{equal, peer("another", 460*time.Millisecond, 35)}, 8, 1, 15, false,
		},
		{
			"itself, under its announcement", 480 * time.Millisecond, 0,
			[]proto.WorkerInfo{peer("self", 100*time.Millisecond, 80)}, 8, 1, 15, false,
		},
		{"a faster one", 480 * time.Millisecond, 0, []proto.WorkerInfo{faster}, 8, 1, 15, true},
		{"a faster one that has much to do", 480 * time.Millisecond, 0, []proto.WorkerInfo{faster}, 80, 1, 15, false},
		{"a shard that fits the free slots", 400 * time.Millisecond, 0, []proto.WorkerInfo{faster}, 2, 15, 1, false},
		{"a shard that waits for slots", 400 * time.Millisecond, 0, []proto.WorkerInfo{faster}, 2, 15, 15, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			held := newHeldCounter(newSignal())
			held.add(tt.held)
			f := &fetcher{
				limiter:  limit.Fixed(slots),
				latency:  &latencyEstimate{average: tt.mean, deviation: tt.deviation},
				jobs:     &shardJobs{stats: &Stats{}, held: held, queue: newRequestQueue()},
				setAside: func() int { return 0 },
				peers:    peers{self: "self", lastAsked: time.Now(), list: tt.peers},
			}
			run := &activeRun{}
			run.published.Store(true)
			source := &shardSource{
				model:         "m",
				consumer:      pendingConsumer{shards: uint64(tt.pending)},
				shardRequests: tt.shardRequests,
				waiting:       tt.pending * tt.shardRequests,
			}

			if got := f.yieldToFaster(t.Context(), pullCandidate{run: run, source: source}); got != tt.want {
				t.Errorf("it yields: %t, want %t", got, tt.want)
			}
		})
	}
}

// Lines wait for others of their shard for a part of the latency, within bounds.
func TestLingerFor(t *testing.T) {
	t.Parallel()

	for latency, want := range map[time.Duration]time.Duration{
		0:                      2 * time.Millisecond,
		10 * time.Millisecond:  2 * time.Millisecond,
		160 * time.Millisecond: 10 * time.Millisecond,
		time.Minute:            200 * time.Millisecond,
	} {
		if got := lingerFor(latency); got != want {
			t.Errorf("a latency of %s: %s, want %s", latency, got, want)
		}
	}
}
