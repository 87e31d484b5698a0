package worker

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Stats counts the events of a worker. It may be read at any time.
type Stats struct {
	// InFlight is the number of requests at the model server now.
	InFlight atomic.Int64

	// Done is the number of requests that got their result. Failed of these have an error, or a
	// status that is no success.
	Done   atomic.Int64
	Failed atomic.Int64

	// Retries is the number of attempts that were or will be followed by another.
	Retries atomic.Int64

	// Shards is the number of acknowledged shards.
	Shards atomic.Int64

	// Redelivered is the number of shards that a worker had had before.
	Redelivered atomic.Int64

	// Rerun is the number of requests that were sent to the model server although a worker which has
	// died since had sent them before.
	Rerun atomic.Int64

	// DiscardedAttempts is the number of attempts whose answers were thrown away, also those at
	// requests that were returned unfinished, and DiscardedTokens the number of tokens that they
	// generated, as far as their answers report them.
	DiscardedAttempts atomic.Int64
	DiscardedTokens   atomic.Int64

	// TokensIn and TokensOut are the tokens of prompts and of completions, as the answers count
	// them.
	TokensIn  atomic.Int64
	TokensOut atomic.Int64

	// Stalled is set while the bus does not take results.
	Stalled atomic.Bool

	// mu guards the fields below.
	mu      sync.Mutex
	reasons map[string]int64
	latency Histogram
}

// Histogram counts attempts by how long they took.
type Histogram struct {
	// Counts has the attempts that took at most the bound of the same index in LatencyBounds,
	// and longer than the bound before.
	Counts [len(LatencyBounds)]uint64

	// Count is the number of all attempts, and Sum the time that they took.
	Count uint64
	Sum   time.Duration
}

// LatencyBounds are the upper bounds of a histogram's counts, in seconds. An attempt that took
// longer than the last bound is in Count alone.
var LatencyBounds = [...]float64{0.01, 0.03, 0.1, 0.3, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800}

// addDiscarded counts the cost of attempts whose answers were thrown away.
func (s *Stats) addDiscarded(c attemptCost) {
	s.DiscardedAttempts.Add(c.attempts)
	s.DiscardedTokens.Add(c.tokens)
}

// recordAttempt counts an attempt at the model server. reason explains why another
// attempt follows; empty: it is the last.
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

// Reasons returns how many attempts failed, by reason: the status of a refusal, a code of an error such as
// "timeout", "length", "server_died", "stall" or "doubted".
func (s *Stats) Reasons() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.reasons)
}

// Latency returns how long attempts took.
func (s *Stats) Latency() Histogram {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latency
}
