package journal

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
)

// Latencies are the end-to-end latencies of answered requests by the time at which their results were
// stored, in intervals that double as those of a [metadata.Series] do. A latency is kept within 2%. An
// interval has some 60 different ones, which take 8 bytes each: 2000 intervals are in 1 MB.
type Latencies struct {
	start     time.Time // of the first interval
	seconds   int       // of an interval, a power of two; 0: there is none
	intervals []latencyCounts
}

// latencyCounts counts latencies by bucket, in ascending order.
type latencyCounts []latencyCount

type latencyCount struct {
	bucket uint16
	count  uint32
}

// Octaves of milliseconds have 32 buckets each, and the milliseconds below 64 have one each.
const (
	octaveBits = 5
	octave     = 1 << octaveBits
	maxLatency = 1 << 40 // ms
)

// latencyBucket returns the bucket of a latency in milliseconds.
func latencyBucket(ms int64) uint16 {
	v := uint64(min(max(ms, 0), maxLatency))
	shift := max(0, bits.Len64(v)-octaveBits-1)
	return uint16(shift*octave + int(v>>shift))
}

// bucketLatency returns the milliseconds in the middle of a bucket.
func bucketLatency(bucket uint16) float64 {
	if bucket < 2*octave {
		return float64(bucket)
	}

	shift := int(bucket)/octave - 1
	lowest := (int(bucket)%octave + octave) << shift

	return float64(lowest) + float64(int(1)<<shift)/2
}

// add adds n latencies of a bucket.
func (c *latencyCounts) add(bucket uint16, n uint32) {
	compare := func(e latencyCount, b uint16) int { return int(e.bucket) - int(b) }
	i, found := slices.BinarySearchFunc(*c, bucket, compare)
	if !found {
		*c = slices.Insert(*c, i, latencyCount{bucket, 0})
	}
	(*c)[i].count += n
}

func (c *latencyCounts) merge(other latencyCounts) {
	for _, e := range other {
		c.add(e.bucket, e.count)
	}
}

func (c latencyCounts) total() (n int64) {
	for _, e := range c {
		n += int64(e.count)
	}
	return n
}

// quantile returns a quantile in seconds. There is a latency.
func (c latencyCounts) quantile(q float64) *float64 {
	rank := int64(q * float64(c.total()-1))
	for _, e := range c {
		if rank -= int64(e.count); rank < 0 {
			return new(bucketLatency(e.bucket) / 1000)
		}
	}
	return nil
}

// Add adds a latency in milliseconds of a request whose result was stored at a time.
func (l *Latencies) Add(at time.Time, ms int64) { l.interval(at).add(latencyBucket(ms), 1) }

// interval returns the interval of a time. Older times than the first count as the first.
func (l *Latencies) interval(at time.Time) *latencyCounts {
	if l.seconds == 0 {
		l.start, l.seconds = at.UTC().Truncate(time.Second), 1
	}

	i := max(0, int(at.Sub(l.start)/time.Second)) / l.seconds
	for i >= metadata.MaxPoints {
		l.double()
		i /= 2
	}

	for len(l.intervals) <= i {
		l.intervals = append(l.intervals, nil)
	}

	return &l.intervals[i]
}

func (l *Latencies) double() {
	for i, c := range l.intervals {
		if i%2 == 0 {
			l.intervals[i/2] = c
		} else {
			l.intervals[i/2].merge(c)
		}
	}

	n := (len(l.intervals) + 1) / 2
	clear(l.intervals[n:])
	l.intervals = l.intervals[:n]
	l.seconds *= 2
}

// Merge adds other latencies; nil adds none.
func (l *Latencies) Merge(other *Latencies) {
	if other == nil {
		return
	}

	for i, c := range other.intervals {
		if len(c) > 0 {
			l.interval(other.start.Add(time.Duration(i*other.seconds) * time.Second)).merge(c)
		}
	}
}

// addHistory adds the quantiles of a series of an earlier output: the requests of an interval count as half
// of one and half of the other, and one in 50 as the slowest ones.
func (l *Latencies) addHistory(s *metadata.Series) {
	for i := range s.Len() {
		n := s.Requests[i] - s.Failed[i]
		if i >= len(s.LatencyP50Seconds) || i >= len(s.LatencyP99Seconds) || n <= 0 ||
			s.LatencyP50Seconds[i] == nil || s.LatencyP99Seconds[i] == nil {
			continue
		}

		slow := n / 50
		if n > 1 {
			slow = max(1, slow)
		}

		c := l.interval(s.Start.Add(time.Duration(i*s.IntervalSeconds) * time.Second))
		c.add(latencyBucket(int64(*s.LatencyP50Seconds[i]*1000)), uint32(n-slow))
		if slow > 0 {
			c.add(latencyBucket(int64(*s.LatencyP99Seconds[i]*1000)), uint32(slow))
		}
	}
}

// FillSeries sets the columns of latencies of a series. A quantile is null where the latencies of
// some answered requests of the interval are unknown.
func (l *Latencies) FillSeries(s *metadata.Series) {
	s.LatencyP50Seconds, s.LatencyP99Seconds = nil, nil
	if len(l.intervals) == 0 || s.Len() == 0 {
		return
	}

	counts := make([]latencyCounts, s.Len())
	for i, c := range l.intervals {
		at := l.start.Add(time.Duration(i*l.seconds) * time.Second)
		j := max(0, int(at.Sub(s.Start)/time.Second)) / s.IntervalSeconds
		counts[min(j, len(counts)-1)].merge(c)
	}

	s.LatencyP50Seconds, s.LatencyP99Seconds = make([]*float64, s.Len()), make([]*float64, s.Len())
	for i, c := range counts {
		if n := c.total(); n > 0 && n >= s.Requests[i]-s.Failed[i] {
			s.LatencyP50Seconds[i], s.LatencyP99Seconds[i] = c.quantile(0.5), c.quantile(0.99)
		}
	}
}

// latenciesJSON is the form of latencies in a journal. An interval is a list of buckets and counts in turns.
type latenciesJSON struct {
	Start     time.Time  `json:"start"`
	Seconds   int        `json:"seconds"`
	Intervals [][]uint32 `json:"intervals"`
}

// MarshalJSON writes the intervals.
func (l *Latencies) MarshalJSON() ([]byte, error) {
	form := latenciesJSON{Start: l.start, Seconds: l.seconds, Intervals: make([][]uint32, len(l.intervals))}
	for i, c := range l.intervals {
		for _, e := range c {
			form.Intervals[i] = append(form.Intervals[i], uint32(e.bucket), e.count)
		}
	}

	return json.Marshal(form)
}

// UnmarshalJSON reads the output of MarshalJSON.
func (l *Latencies) UnmarshalJSON(text []byte) error {
	var form latenciesJSON
	if err := json.Unmarshal(text, &form); err != nil {
		return err
	}

	if form.Seconds < 1 && len(form.Intervals) > 0 || len(form.Intervals) > metadata.MaxPoints {
		return fmt.Errorf("%d intervals of %d s of latencies", len(form.Intervals), form.Seconds)
	}

	*l = Latencies{start: form.Start, seconds: form.Seconds, intervals: make([]latencyCounts, len(form.Intervals))}
	for i, pairs := range form.Intervals {
		for ; len(pairs) >= 2; pairs = pairs[2:] {
			l.intervals[i].add(uint16(pairs[0]), pairs[1])
		}
	}

	return nil
}
