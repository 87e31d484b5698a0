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
	nearEnd    = 50_000                 // requests that wait
	worthIt    = 300 * time.Millisecond // latency
	lookAgain  = 2 * time.Second        // at others
	muchFaster = 0.8                    // of our latency, for another to count as faster
)

// others is what is known of the other workers.
type others struct {
	presence *bus.Presence
	asked    time.Time
	list     []proto.WorkerInfo
}

// leave reports whether faster workers will finish all that waits in a source before
// we could finish one request of it. The fetch loop asks.
func (w *Worker) leave(ctx context.Context, from pullFrom) bool {
	s := from.source
	own := w.latency.high()
	if !from.feed.published.Load() || s.consumer == nil || s.size == 0 || s.waiting > nearEnd ||
		own < worthIt || w.room() < 1 {
		return false
	}

	w.lookAtOthers(ctx)

	rate, slowest := 0.0, time.Duration(0)
	for _, o := range w.others.list {
		latency := time.Duration(o.LatencySeconds * float64(time.Second))
		if o.ID == w.id || !o.Ready || o.PerSecond <= 0 || latency <= 0 || float64(latency) > muchFaster*float64(own) ||
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

	s.waiting = int(info.NumPending) * s.size

	return time.Duration(float64(s.waiting)/rate*float64(time.Second))+slowest < own
}

// lookAtOthers asks who else works, once in a while.
func (w *Worker) lookAtOthers(ctx context.Context) {
	if time.Since(w.others.asked) <= lookAgain {
		return
	}

	w.others.asked = time.Now()
	list, err := withTimeout(ctx, w.others.presence.Workers)
	if err != nil {
		list = nil // in doubt we work
	}

	w.others.list = list
}

// latency is the time that the model server takes for a request, of late.
type latency struct {
	mu        sync.Mutex
	value     time.Duration // mean
	deviation time.Duration // from it, mean
}

// add takes in one request. The newest fifty or so weigh most.
func (l *latency) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.value == 0 {
		l.value = d
	}
	l.value += (d - l.value) / 50
	l.deviation += ((d - l.value).Abs() - l.deviation) / 50
}

func (l *latency) mean() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value
}

// high is what few requests take longer than. (As TCP's retransmission timer, RFC
// 6298, estimates it, but with half its margin.)
func (l *latency) high() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value + 2*l.deviation
}
