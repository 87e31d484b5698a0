package limit

import (
	"math"
	"time"
)

// meter measures the output of a server per second, from single requests.
//
// Counting the work of an interval would need long intervals: requests end in bursts, and
// each did most of its work before the interval began. By Little's law a request that took t
// seconds while n were in flight used t/n seconds of the whole server. The work of some
// requests over the server's time that they used is the same rate, without an edge: it holds
// from the first request on, and a long answer weighs on both sides.
type meter struct {
	since    time.Time // requests that began before do not count
	requests int
	work     float64
	used     float64 // seconds of the server
	inFlight float64 // requests in flight, summed over the requests

	workWork, usedUsed, workUsed float64 // sums of squares and products
}

// addRequest counts a request that took some seconds, during which the integral of the requests
// in flight grew by inFlightIntegral request-seconds.
func (m *meter) addRequest(seconds, inFlightIntegral, work float64) {
	if seconds <= 0 || inFlightIntegral <= 0 {
		return
	}

	used := seconds * seconds / inFlightIntegral
	m.requests++
	m.work += work
	m.used += used
	m.workWork += work * work
	m.usedUsed += used * used
	m.workUsed += work * used
	m.inFlight += inFlightIntegral / seconds
}

// rate returns the work per second.
func (m *meter) rate() float64 {
	if m.used == 0 {
		return 0
	}
	return m.work / m.used
}

// meanInFlight returns how many requests were in flight.
func (m *meter) meanInFlight() float64 {
	if m.requests == 0 {
		return 0
	}
	return m.inFlight / float64(m.requests)
}

// relStdErr returns the standard error of the rate, as a part of it. (Of a ratio of sums, to
// the first order: Cochran, Sampling Techniques, 1977, 6.4.)
func (m *meter) relStdErr() float64 {
	if m.requests < 2 || m.work == 0 || m.used == 0 {
		return 1
	}
	squares := m.workWork/(m.work*m.work) + m.usedUsed/(m.used*m.used) - 2*m.workUsed/(m.work*m.used)
	return math.Sqrt(max(0, squares))
}

// isPrecise reports whether the rate is known well enough to compare it with one that is a gap
// away (a part of it), or whether the round has lasted as long as it may: need is the least
// number of requests of a round.
func (m *meter) isPrecise(need int, gap float64, now time.Time) bool {
	return m.requests >= maxRoundFactor*need || now.Sub(m.since) >= maxRoundTime ||
		m.relStdErr() <= max(relErrTarget, gap/3)
}
