package worker

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Stats is what a worker does. It may be read at any time.
type Stats struct {
	InFlight    atomic.Int64 // requests at the model server now
	Done        atomic.Int64 // requests that got their result
	Failed      atomic.Int64 // of these, results that are no answer
	Retries     atomic.Int64 // attempts that were or will be followed by another
	Shards      atomic.Int64 // acknowledged
	Redelivered atomic.Int64 // shards that somebody had had before
	TokensIn    atomic.Int64 // of prompts, as the answers tell
	TokensOut   atomic.Int64 // generated, as the answers tell
	Stalled     atomic.Bool  // the bus does not take results

	mu      sync.Mutex
	reasons map[string]int64
	latency Histogram
}

// Histogram counts attempts by how long they took.
type Histogram struct {
	Counts [len(LatencyBounds)]uint64 // attempts of at most the bound and more than the one before
	Count  uint64                     // of all
	Sum    time.Duration
}

// LatencyBounds are the upper bounds of a histogram's counts, in seconds. What took
// longer is in Count alone.
var LatencyBounds = [...]float64{0.01, 0.03, 0.1, 0.3, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800}

// recordAttempt counts an attempt at the model server. reason says why it is followed by
// another; empty: it is not.
func (s *Stats) recordAttempt(took time.Duration, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.latency.Count++
	s.latency.Sum += took

	for i, bound := range LatencyBounds {
		if took.Seconds() <= bound {
			s.latency.Counts[i]++
			break
		}
	}

	if reason != "" {
		if s.reasons == nil {
			s.reasons = map[string]int64{}
		}
		s.reasons[reason]++
	}
}

// Reasons are how many attempts failed, by the reason.
func (s *Stats) Reasons() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.reasons)
}

// Latency is how long attempts took.
func (s *Stats) Latency() Histogram {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latency
}
