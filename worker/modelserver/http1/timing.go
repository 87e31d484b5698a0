package http1

import (
	"sync/atomic"
	"time"
)

// timing holds the times of a server's answers. The client's mu guards the writes.
type timing struct {
	meanNanos   atomic.Int64 // mean time of an exchange
	leastNanos  atomic.Int64 // few exchanges take less
	falseAlarms int          // answers that were doubted and were right
}

// recordTime records how long an exchange took. The caller holds mu.
func (t *timing) recordTime(took time.Duration) {
	mean, least := t.mean(), time.Duration(t.leastNanos.Load())
	if mean == 0 {
		mean = took
	}
	t.meanNanos.Store(int64(mean + (took-mean)/8))
	t.leastNanos.Store(int64(min(took, least+min((took-least)/t.forgetRate(), duplicateDelay/16))))
}

// recordFalseAlarm records that an answer was doubted and was right: the server is that fast at
// times. The caller holds mu.
func (t *timing) recordFalseAlarm(took time.Duration) {
	t.falseAlarms++
	t.leastNanos.Store(min(t.leastNanos.Load(), int64(took)))
}

// forgetRate returns how many answers it takes to forget a fast one. A server that is busy, or
// that keeps answers, is fast at times; each time that this is found out costs a request.
func (t *timing) forgetRate() time.Duration { return 64 << min(t.falseAlarms, 6) }

// mean returns about how long an exchange takes.
func (t *timing) mean() time.Duration { return time.Duration(t.meanNanos.Load()) }

// restTime returns the time that a connection rests, so that leftover bytes show.
func (t *timing) restTime() time.Duration { return min(2*t.mean(), maxRestTime) + 2*time.Millisecond }

// isFast reports whether the server answers some requests so fast that an early answer is no
// sign of anything. It counts as fast until it is known.
func (t *timing) isFast() bool { return t.leastNanos.Load() < int64(duplicateDelay) }
