package worker

import (
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/worker/limit"
)

// throttleHoldTime is the time without an attempt to raise the concurrency, after that failed.
const throttleHoldTime = 10 * time.Minute

// cutoffThrottle lowers the number of requests at once after answers were cut off. A round of
// attempts decides on the next limit: up while none is cut off, down if most are. The lock of
// cutoffs guards its fields that are not atomic.
type cutoffThrottle struct {
	// limit is the number of requests at once; 0: the limiter alone decides.
	limit atomic.Int64
	// forAside is true if the limit is for the tasks set aside, and only for them.
	forAside bool

	// setAt is the time at which limit was set. Attempts that began before it do not count.
	setAt time.Time
	// answered and cut are the numbers of attempts of this round that ended so.
	answered, cut int

	// lowered is true if the limit has gone down since it was set from outside.
	lowered bool
	// proven is the highest limit with which no attempt of a round was cut off.
	proven int
	// holdUntil is the time before which the limit does not go up.
	holdUntil time.Time
}

// setLimit lets no more than limit requests be at the server at once, and does not raise that
// for the time of hold.
func (t *cutoffThrottle) setLimit(limit int, hold time.Duration) {
	t.limit.Store(int64(limit))
	t.setAt, t.answered, t.cut = time.Now(), 0, 0
	t.forAside, t.lowered, t.proven, t.holdUntil = false, false, 0, t.setAt.Add(hold)
}

// clearLimit ends the throttle.
func (t *cutoffThrottle) clearLimit() { t.limit.Store(0) }

// record counts an attempt that was cut off or answered, and sets the next limit at the end of
// a round.
func (t *cutoffThrottle) record(begin time.Time, cut bool) {
	limit := int(t.limit.Load())
	if limit == 0 || begin.Before(t.setAt) {
		return
	}

	if cut {
		t.cut++
	} else {
		t.answered++
	}

	if t.answered+t.cut < max(4, limit) {
		return
	}

	now := time.Now()
	t.limit.Store(int64(t.nextLimit(limit, now)))
	t.setAt, t.answered, t.cut = now, 0, 0
}

// nextLimit returns the limit of the next round.
func (t *cutoffThrottle) nextLimit(limit int, now time.Time) int {
	switch {
	case t.cut == 0:
		t.proven = max(t.proven, limit)
		return t.raiseLimit(limit, now)

	case t.proven > 0 && limit > t.proven: // one step too far
		t.lowered, t.holdUntil = true, now.Add(throttleHoldTime)
		return t.proven

	case t.cut > t.answered:
		t.lowered = true
		return max(1, limit/2)
	}

	return limit
}

// raiseLimit returns a higher limit: twice as high until it has once gone down, and in steps of
// a quarter from then on.
func (t *cutoffThrottle) raiseLimit(limit int, now time.Time) int {
	switch {
	case now.Before(t.holdUntil):
		return limit
	case t.lowered:
		return limit + max(1, limit/4)
	}

	return 2 * limit
}

// isFull reports whether no more requests may be sent now.
func (t *cutoffThrottle) isFull(l *limit.Limiter) bool {
	limit := t.limit.Load()
	switch {
	case limit == 0:
		return false
	case limit > int64(l.Limit()): // it lowers nothing any more
		t.limit.CompareAndSwap(limit, 0)
		return false
	}

	return l.InFlight() >= int(limit)
}
