package worker

import (
	"context"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// A slow box that takes one of the last requests keeps everyone waiting for it. So, toward the
// end of a run, a worker leaves to faster ones the requests that they can finish sooner.

const (
	// nearEndRequests is the most requests that wait toward the end of a run. With more, a worker
	// does not look at others.
	nearEndRequests = 50_000

	// minYieldLatency is the latency below which there is nothing to win.
	minYieldLatency = 300 * time.Millisecond

	// peersEvery is the time between looks at the other workers.
	peersEvery = 2 * time.Second

	// fasterFactor is the part of this worker's latency below which another counts as faster.
	fasterFactor = 0.8
)

// peers are the other workers, as they were announced a moment ago. The fetch loop alone uses
// them.
type peers struct {
	// self is the id of this worker.
	self string

	heartbeats *bus.Heartbeats
	lastAsked  time.Time
	list       []proto.WorkerInfo
}

// refresh asks for the other workers, unless they are known from a moment ago.
func (p *peers) refresh(ctx context.Context) {
	if time.Since(p.lastAsked) <= peersEvery {
		return
	}

	p.lastAsked = time.Now()
	list, err := withTimeout(ctx, p.heartbeats.Workers)
	if err != nil {
		list = nil // in doubt this worker works
	}

	p.list = list
}

// canServe reports whether a worker is another one that is ready for requests for a model, and stays.
func (p *peers) canServe(w proto.WorkerInfo, model string) bool {
	return w.ID != p.self && w.Ready && w.Departure == nil && proto.Serves(w.Models, model)
}

// countServing returns how many others can serve a model.
func (p *peers) countServing(model string) (n int) {
	for _, w := range p.list {
		if p.canServe(w, model) {
			n++
		}
	}
	return n
}

// fasterAt returns how many requests for a model the faster workers answer in a second, and
// the highest latency among them.
func (p *peers) fasterAt(model string, own time.Duration) (perSecond float64, slowest time.Duration) {
	for _, w := range p.list {
		latency := time.Duration(w.LatencySeconds * float64(time.Second))
		if w.PerSecond <= 0 || latency <= 0 || float64(latency) > fasterFactor*float64(own) ||
			!p.canServe(w, model) {
			continue
		}

		perSecond += w.PerSecond
		slowest = max(slowest, latency)
	}

	return perSecond, slowest
}

// yieldToFaster reports whether faster workers will finish all that waits in a source before
// this worker could finish a shard of it.
func (f *fetcher) yieldToFaster(ctx context.Context, from pullCandidate) bool {
	s := from.source
	own := f.latency.upperEstimate()
	if !from.run.published.Load() || s.consumer == nil || s.shardRequests == 0 || s.waiting > nearEndRequests ||
		own < minYieldLatency || f.capacity() < 1 {
		return false
	}

	f.peers.refresh(ctx)

	// The mean is compared with the means of others. A pessimistic estimate would let workers that are
	// equally fast leave the end of a run to each other.
	perSecond, slowest := f.peers.fasterAt(s.model, f.latency.mean())
	othersNeed := func() time.Duration {
		return time.Duration(float64(s.waiting)/perSecond*float64(time.Second)) + slowest
	}
	need := own + f.queueingTime(s.shardRequests, own)
	if perSecond == 0 || othersNeed() >= need {
		return false
	}

	// The figures of the source grow old while nothing is pulled from it.
	info, err := s.consumer.Info(ctx)
	if err != nil {
		return false
	}

	s.waiting = int(info.NumPending) * s.shardRequests

	return othersNeed() < need
}

// queueingTime returns how long the last of a shard's requests waits for a slot, in a worker whose
// requests take latency.
func (f *fetcher) queueingTime(shardRequests int, latency time.Duration) time.Duration {
	waiting := max(0, shardRequests-f.capacity())
	return time.Duration(float64(latency) * float64(waiting) / float64(max(1, f.limiter.Limit())))
}
