package estimate

import (
	"math"
	"math/rand/v2"
	"slices"
)

// drain models the time of the last requests once there are none left to send: the
// longest of their remaining times. One run shows one such longest,
// and the next run's is as likely to be longer as shorter, so it is drawn from a
// Pareto tail fitted to the few that took the longest (Hill 1975).
type drain struct {
	requests float64
	waits    []float64 // seconds from the beginning of the tail, the longest first
	fitted   int       // of waits
	shape    float64   // mean of the logs of those over the next
	longest  float64   // none is longer
}

const (
	// mostWaits are kept of a drain; more would not change the fit.
	mostWaits = 10_000
	// beyond limits a request's time, as a multiple of the longest one seen. A
	// request in flight at the end is long more often than others are, since the
	// long ones are in flight for longer.
	beyond = 3
)

func newDrain(tail []Point, longest float64) drain {
	var d drain
	var at float64
	total, _ := sumPoints(tail)
	keep := min(1, mostWaits/max(total, 1))
	for _, p := range tail {
		n := int(math.Ceil(p.Done * keep))
		for i := range n {
			d.waits = append(d.waits, at+p.Seconds*(float64(i)+0.5)/float64(n))
		}
		at += p.Seconds
	}

	d.requests = total
	d.longest = beyond * max(at, longest)
	slices.Reverse(d.waits)

	// The square root of their number is the usual compromise between too few to
	// fit and too many to belong to the tail.
	d.fitted = int(math.Sqrt(float64(len(d.waits))))
	if d.fitted < 2 {
		d.fitted = 0
		return d
	}

	for _, w := range d.waits[:d.fitted] {
		d.shape += math.Log(w/d.waits[d.fitted]) / float64(d.fitted)
	}

	return d
}

// drawTail draws the time of the last requests of another job.
func (d drain) drawTail(rng *rand.Rand, requests float64) float64 {
	u, shape := rng.Float64(), 0.0
	for range d.fitted {
		shape += d.shape * rng.ExpFloat64() / float64(d.fitted)
	}

	requests = min(requests, d.requests)
	if len(d.waits) == 0 || requests <= 0 {
		return 0
	}

	// The longest of n is exceeded by one as often as all n are below it.
	exceeded := (1 - math.Pow(u, 1/requests)) * float64(len(d.waits))
	if exceeded >= float64(d.fitted) {
		return d.waits[min(int(exceeded), len(d.waits)-1)]
	}

	logs := shape * math.Log(float64(d.fitted)/max(exceeded, 1e-9))

	return min(d.longest, d.waits[d.fitted]*math.Exp(min(logs, 50)))
}
