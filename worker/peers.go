package worker

import (
	"context"
	"sync"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// A slow box that takes one of the last requests keeps everybody waiting for it. So,
// toward the end of a run, a worker leaves to faster ones what they can finish sooner.

// Below these a worker does not look at others: the end of the run is not near, or
// there is nothing to win.
const (
	nearEndRequests = 50_000                 // requests that wait
	minYieldLatency = 300 * time.Millisecond // latency
	peersEvery      = 2 * time.Second        // at others
	fasterFactor    = 0.8                    // of our latency, for another to count as faster
)

// peers is what is known of the other workers.
type peers struct {
	presence  *bus.Presence
	lastAsked time.Time
	list      []proto.WorkerInfo
}

// yieldToFaster reports whether faster workers will finish all that waits in a source before
// we could finish one request of it. The fetch loop asks.
func (w *Worker) yieldToFaster(ctx context.Context, from pullCandidate) bool {
	s := from.source
	own := w.latency.upperEstimate()
	if !from.run.published.Load() || s.consumer == nil || s.shardRequests == 0 || s.waiting > nearEndRequests ||
		own < minYieldLatency || w.capacity() < 1 {
		return false
	}

	w.refreshPeers(ctx)

	rate, slowest := 0.0, time.Duration(0)
	for _, o := range w.peers.list {
		latency := time.Duration(o.LatencySeconds * float64(time.Second))
		if o.ID == w.id || !o.Ready || o.PerSecond <= 0 || latency <= 0 || float64(latency) > fasterFactor*float64(own) ||
			!proto.Serves(o.Models, s.model) {
			continue
		}

		rate += o.PerSecond
		slowest = max(slowest, latency)
	}

	if rate == 0 || time.Duration(float64(s.waiting)/rate*float64(time.Second))+slowest >= own {
		return false
	}

	// What we know of the source grows old while we do not pull from it.
	info, err := s.consumer.Info(ctx)
	if err != nil {
		return false
	}

	s.waiting = int(info.NumPending) * s.shardRequests

	return time.Duration(float64(s.waiting)/rate*float64(time.Second))+slowest < own
}

// refreshPeers asks who else works, once in a while.
func (w *Worker) refreshPeers(ctx context.Context) {
	if time.Since(w.peers.lastAsked) <= peersEvery {
		return
	}

	w.peers.lastAsked = time.Now()
	list, err := withTimeout(ctx, w.peers.presence.Workers)
	if err != nil {
		list = nil // in doubt we work
	}

	w.peers.list = list
}

// latencyEstimate is the time that the model server takes for a request, of late.
type latencyEstimate struct {
	mu        sync.Mutex
	average   time.Duration // mean
	deviation time.Duration // from it, mean
}

// add takes in one request. The newest fifty or so weigh most.
func (l *latencyEstimate) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.average == 0 {
		l.average = d
	}
	l.average += (d - l.average) / 50
	l.deviation += ((d - l.average).Abs() - l.deviation) / 50
}

func (l *latencyEstimate) mean() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.average
}

// upperEstimate is what few requests take longer than. (As TCP's retransmission timer, RFC
// 6298, estimates it, but with half its margin.)
func (l *latencyEstimate) upperEstimate() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.average + 2*l.deviation
}
