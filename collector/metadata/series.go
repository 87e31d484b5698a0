package metadata

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// MaxPoints bounds the points of a [Series].
const MaxPoints = 2000

// Series holds the figures of a run by interval, all of one length. Its
// columns are of equal length. A time without a collector has the results that
// came in it, if any.
type Series struct {
	Start            time.Time `json:"start"`            // of the first interval
	IntervalSeconds  int       `json:"interval_seconds"` // a power of two
	Requests         []int64   `json:"requests"`         // that ended, answered or failed; those that were never sent are left out
	Failed           []int64   `json:"failed"`
	PromptTokens     []int64   `json:"prompt_tokens"`
	CompletionTokens []int64   `json:"completion_tokens"`
	// LatencyP50Seconds and LatencyP99Seconds are of the requests that were answered in the interval;
	// null without one. Empty: unknown.
	LatencyP50Seconds []*float64 `json:"latency_p50_seconds,omitempty"`
	LatencyP99Seconds []*float64 `json:"latency_p99_seconds,omitempty"`
	// Limit is the most requests that the workers sent at once, all together; null without a
	// reading. Empty: unknown.
	Limit []*int64 `json:"limit,omitempty"`
	// InFlight is the most requests of the run seen at the model servers at once, and MemoryUsedBytes the
	// most memory of their cards in use; null without a reading.
	InFlight        []*int64 `json:"in_flight"`
	MemoryUsedBytes []*int64 `json:"memory_used_bytes"`
}

// Point is one interval of a series.
type Point struct {
	Requests, Failed, PromptTokens, CompletionTokens int64
	InFlight, Limit, MemoryUsedBytes                 *int64
}

// Len is the number of intervals. A nil series has none.
func (s *Series) Len() int {
	if s == nil {
		return 0
	}
	return len(s.Requests)
}

// At is the i-th interval.
func (s *Series) At(i int) Point {
	var limit *int64
	if s.Limit != nil {
		limit = s.Limit[i]
	}

	return Point{
		Limit:            limit,
		Requests:         s.Requests[i],
		Failed:           s.Failed[i],
		PromptTokens:     s.PromptTokens[i],
		CompletionTokens: s.CompletionTokens[i],
		InFlight:         s.InFlight[i],
		MemoryUsedBytes:  s.MemoryUsedBytes[i],
	}
}

// Add adds a point at a time. The series begins at the first time that is added;
// older times count as the first. Where the series would get too long its intervals double.
func (s *Series) Add(at time.Time, p Point) {
	if s.Len() == 0 {
		s.Start, s.IntervalSeconds = at.UTC().Truncate(time.Second), max(1, s.IntervalSeconds)
	}

	i := max(0, int(at.Sub(s.Start)/time.Second)) / s.IntervalSeconds
	for i >= MaxPoints {
		s.doubleInterval()
		i /= 2
	}

	for len(s.Requests) <= i {
		s.Requests, s.Failed = append(s.Requests, 0), append(s.Failed, 0)
		s.PromptTokens, s.CompletionTokens = append(s.PromptTokens, 0), append(s.CompletionTokens, 0)
		s.InFlight, s.MemoryUsedBytes = append(s.InFlight, nil), append(s.MemoryUsedBytes, nil)
		if s.Limit != nil {
			s.Limit = append(s.Limit, nil)
		}
	}

	s.addAt(i, p)
}

func (s *Series) addAt(i int, p Point) {
	s.Requests[i] += p.Requests
	s.Failed[i] += p.Failed
	s.PromptTokens[i] += p.PromptTokens
	s.CompletionTokens[i] += p.CompletionTokens

	if s.Limit == nil && p.Limit != nil {
		s.Limit = make([]*int64, len(s.Requests))
	}
	if s.Limit != nil {
		s.Limit[i] = Most(s.Limit[i], p.Limit)
	}

	s.InFlight[i], s.MemoryUsedBytes[i] = Most(s.InFlight[i], p.InFlight), Most(s.MemoryUsedBytes[i], p.MemoryUsedBytes)
}

// Clone returns a copy without the columns of latencies.
func (s *Series) Clone() *Series {
	c := &Series{
		Start:            s.Start,
		IntervalSeconds:  s.IntervalSeconds,
		Requests:         slices.Clone(s.Requests),
		Failed:           slices.Clone(s.Failed),
		PromptTokens:     slices.Clone(s.PromptTokens),
		CompletionTokens: slices.Clone(s.CompletionTokens),
		Limit:            slices.Clone(s.Limit),
		InFlight:         slices.Clone(s.InFlight),
		MemoryUsedBytes:  slices.Clone(s.MemoryUsedBytes),
	}

	return c
}

// Gaps reports for each interval whether it is in a time without results in which no
// request was seen at a model server. That needs readings, at least at other
// times.
func (s *Series) Gaps() []bool {
	gaps := make([]bool, s.Len())
	looked := false
	for i := range gaps {
		p := s.At(i)
		some := p.InFlight != nil && *p.InFlight > 0
		looked = looked || some
		gaps[i] = p.Requests == 0 && !some
	}

	for i := 0; i < len(gaps); {
		end := i
		for end < len(gaps) && gaps[end] == gaps[i] {
			end++
		}

		if gaps[i] && (!looked || time.Duration((end-i)*s.IntervalSeconds)*time.Second < Quiet) {
			clear(gaps[i:end])
		}

		i = end
	}

	return gaps
}

// Merge adds another series. Where its intervals are longer than this one's, each
// counts at its beginning.
func (s *Series) Merge(other *Series) {
	for i := range other.Len() {
		if p := other.At(i); p != (Point{}) {
			s.Add(other.Start.Add(time.Duration(i*other.IntervalSeconds)*time.Second), p)
		}
	}
}

// Join returns two series as one, which begins with the earlier of them. Merge counts what is older than a series at
// its beginning.
func Join(a, b Series) Series {
	if a.Len() == 0 || b.Len() > 0 && b.Start.Before(a.Start) {
		a, b = b, a
	}
	a.Merge(&b)

	return a
}

// doubleInterval doubles the intervals.
func (s *Series) doubleInterval() {
	n := (s.Len() + 1) / 2
	for i := range s.Len() {
		p := s.At(i)
		s.Requests[i], s.Failed[i], s.PromptTokens[i], s.CompletionTokens[i], s.InFlight[i], s.MemoryUsedBytes[i] = 0,
			0, 0, 0, nil, nil
		if s.Limit != nil {
			s.Limit[i] = nil
		}
		s.addAt(i/2, p)
	}

	s.Requests, s.Failed, s.PromptTokens, s.CompletionTokens = s.Requests[:n], s.Failed[:n], s.PromptTokens[:n],
		s.CompletionTokens[:n]
	s.InFlight, s.MemoryUsedBytes = s.InFlight[:n], s.MemoryUsedBytes[:n]
	if s.Limit != nil {
		s.Limit = s.Limit[:n]
	}
	s.IntervalSeconds *= 2
}

// validate is for a series from a file.
func (s *Series) validate() error {
	if s == nil {
		return nil
	}

	n := len(s.Requests)
	for _, column := range [][]int64{s.Failed, s.PromptTokens, s.CompletionTokens} {
		if len(column) != n {
			return fmt.Errorf("%w: the columns of its series are not of one length", ErrFormat)
		}
	}

	optional := func(length int) bool { return length == 0 || length == n }
	if len(s.InFlight) != n || len(s.MemoryUsedBytes) != n || !optional(len(s.Limit)) ||
		!optional(len(s.LatencyP50Seconds)) || !optional(len(s.LatencyP99Seconds)) || n > MaxPoints ||
		n > 0 && (s.IntervalSeconds < 1 || s.IntervalSeconds > math.MaxInt32) {
		return fmt.Errorf("%w: its series is not as it should be", ErrFormat)
	}

	return nil
}
