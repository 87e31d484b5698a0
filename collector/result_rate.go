package collector

import (
	"time"
)

const (
	// rateWindow is the time over which the rate of results is averaged. The progress of a run on a
	// terminal has the same.
	rateWindow = 30 * time.Second
	// shortestRate is the shortest time that has a rate.
	shortestRate = 2 * time.Second
)

// resultRate averages the rate at which requests of a run end. It counts by the times at which the
// bus stored the results: a collector that finds results of an hour there reads them in a second.
type resultRate struct {
	counts []resultCount // the oldest first
	// newest is the latest time of a result, and at is the time of this machine when it came.
	newest, at time.Time
}

// resultCount counts the requests whose results were stored within a second.
type resultCount struct {
	stored   time.Time // the first of them
	requests int
}

// add counts requests whose results were stored at a time, and came now.
func (r *resultRate) add(stored, now time.Time, requests int) {
	if stored.After(r.newest) {
		r.newest, r.at = stored, now
	}

	if n := len(r.counts); n > 0 && stored.Sub(r.counts[n-1].stored) < time.Second {
		r.counts[n-1].requests += requests
		return
	}

	r.counts = append(r.counts, resultCount{stored, requests})
	r.dropOld(stored)
}

// dropOld drops the counts before the window that ends at a time, except for the last of them.
func (r *resultRate) dropOld(end time.Time) {
	for len(r.counts) > 1 && end.Sub(r.counts[1].stored) >= rateWindow {
		r.counts = r.counts[1:]
	}
}

// perSecond returns the requests per second over the window that ends now, or nil if it is not
// known yet. The time begins with the first count.
func (r *resultRate) perSecond(now time.Time) *float64 {
	if len(r.counts) == 0 {
		return nil
	}

	end := r.newest.Add(max(0, now.Sub(r.at))) // now, by the clock of the bus
	r.dropOld(end)

	passed := end.Sub(r.counts[0].stored)
	if passed < shortestRate {
		return nil
	}

	requests := 0
	for _, c := range r.counts[1:] {
		requests += c.requests
	}

	return new(float64(requests) / passed.Seconds())
}
