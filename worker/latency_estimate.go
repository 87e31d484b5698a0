package worker

import (
	"sync"
	"time"
)

// latencyEstimate is the recent latency of requests at the model server.
type latencyEstimate struct {
	// mu guards the fields below.
	mu      sync.Mutex
	average time.Duration

	// deviation is the mean deviation from the average.
	deviation time.Duration
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

// upperEstimate returns a latency that few requests exceed. (TCP's retransmission timer, RFC
// 6298, estimates it in the same way, with twice the margin.)
func (l *latencyEstimate) upperEstimate() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.average + 2*l.deviation
}
