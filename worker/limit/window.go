package limit

import "time"

// window is a semaphore whose size changes: the limit, within its bounds, and the requests in
// flight. It owns the meter, since a change of the limit starts a new round of measuring.
type window struct {
	free chan struct{} // holds one element after a slot may have become free

	limit    int
	min, max int // configured bounds of the limit; equal for a fixed one
	slots    int // requests that the server runs at once; 0: unknown
	top      int // max, or slots and one more

	// After refusals, the number of requests in flight that the server takes, and until when
	// that is believed.
	ceiling      int
	ceilingUntil time.Time

	inFlight         int
	inFlightIntegral float64   // integral of inFlight over time, in request-seconds
	updated          time.Time // end of that integral

	meter   meter
	settled bool // a raised limit has had time to fill the server's queue
}

// isFixed reports whether the limit has no room to move.
func (w *window) isFixed() bool { return w.min == w.max }

// advanceTo extends the integral of the requests in flight to now.
func (w *window) advanceTo(now time.Time) {
	w.inFlightIntegral += float64(w.inFlight) * now.Sub(w.updated).Seconds()
	w.updated = now
}

// setLimit changes the limit and starts a new round of measuring.
func (w *window) setLimit(n int, now time.Time) {
	n = max(w.min, min(w.top, n))
	w.settled = n <= w.limit
	w.limit = n
	w.startRound(now)
	w.wakeNext()
}

// startRound drops the measurements. Requests that began before now do not count.
func (w *window) startRound(now time.Time) { w.meter = meter{since: now} }

// isFilled reports whether there were enough requests in flight, in this round, to say anything
// about the limit.
func (w *window) isFilled() bool { return w.meter.meanInFlight() >= 0.9*float64(w.limit) }

// holdUnder bounds the limit by a ceiling for a while.
func (w *window) holdUnder(ceiling int, until time.Time) { w.ceiling, w.ceilingUntil = ceiling, until }

// highestLimit returns the highest limit to try now.
func (w *window) highestLimit(now time.Time) int {
	if now.Before(w.ceilingUntil) {
		return min(w.top, max(w.min, w.ceiling))
	}
	return w.top
}

// wakeNext wakes one waiter if there is a free slot. A waiter that takes a slot wakes the next.
func (w *window) wakeNext() {
	if w.inFlight >= w.limit {
		return
	}
	select {
	case w.free <- struct{}{}:
	default:
	}
}
