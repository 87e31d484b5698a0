package limit

import (
	"math"
	"time"
)

// meter measures what a server produces in a second, out of single requests.
//
// Counting what is done in a window would need long windows: requests end in bursts,
// and each did most of its work before the window began. By Little's law a request
// that took t seconds while n were in flight used t/n seconds of the whole server. The
// work of some requests over the server's time that they used is the same rate, without
// an edge: it holds from the first request on, and a long answer weighs on both sides.
type meter struct {
	since time.Time // requests that began before do not count
	n     int
	work  float64
	used  float64 // seconds of the server
	load  float64 // requests in flight, summed over the requests

	workwork, usedused, workused float64 // sums of squares and products
}

// add counts a request that took some seconds, while area request-seconds passed.
func (m *meter) add(seconds, area, work float64) {
	if seconds <= 0 || area <= 0 {
		return
	}

	used := seconds * seconds / area
	m.n++
	m.work += work
	m.used += used
	m.workwork += work * work
	m.usedused += used * used
	m.workused += work * used
	m.load += area / seconds
}

// rate is the work in a second.
func (m *meter) rate() float64 {
	if m.used == 0 {
		return 0
	}
	return m.work / m.used
}

// meanLoad is how many requests were in flight.
func (m *meter) meanLoad() float64 {
	if m.n == 0 {
		return 0
	}
	return m.load / float64(m.n)
}

// doubt is the standard error of the rate, as a part of it. (Of a ratio of sums, to the
// first order: Cochran, Sampling Techniques, 1977, 6.4.)
func (m *meter) doubt() float64 {
	if m.n < 2 || m.work == 0 || m.used == 0 {
		return 1
	}
	squares := m.workwork/(m.work*m.work) + m.usedused/(m.used*m.used) - 2*m.workused/(m.work*m.used)
	return math.Sqrt(max(0, squares))
}
