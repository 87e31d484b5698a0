package estimate

import (
	"math"
	"math/rand/v2"
	"slices"
)

// law describes a simulated server: each of its slots takes the next request
// as soon as it has done the last.
type law struct {
	slots  int
	length func(*rand.Rand) float64                        // seconds of a request at full speed
	speed  func(*rand.Rand) func(second int) (now float64) // of all slots, 1 is full; nil is always full
}

// each calls done for each request with the times, in seconds, at which
// it was begun and done.
func (l law) each(rng *rand.Rand, requests int, done func(from, to float64)) {
	clock := func(work float64) float64 { return work }
	if l.speed != nil {
		clock = clockOf(l.speed(rng))
	}

	slots := make([]float64, l.slots) // a heap of when each is free, in work at full speed
	for range requests {
		from := slots[0]
		to := from + l.length(rng)
		done(clock(from), clock(to))

		at := 0
		for {
			child := 2*at + 1
			if child+1 < len(slots) && slots[child+1] < slots[child] {
				child++
			}

			if child >= len(slots) || to <= slots[child] {
				break
			}

			slots[at], at = slots[child], child
		}

		slots[at] = to
	}
}

// clockOf turns work at full speed into time.
func clockOf(speed func(int) float64) func(work float64) float64 {
	sums := []float64{0} // work done by each second

	return func(work float64) float64 {
		for sums[len(sums)-1] <= work {
			sums = append(sums, sums[len(sums)-1]+speed(len(sums)-1))
		}
		i, _ := slices.BinarySearch(sums, work)
		i = max(i, 1)
		return float64(i) - (sums[i]-work)/(sums[i]-sums[i-1])
	}
}

// run simulates one and keeps its series, of at most 2,000 points.
func (l law) run(rng *rand.Rand, requests int) Run {
	r := Run{Requests: requests, Concurrency: float64(min(l.slots, requests)), Workers: 1}
	times := make([]float64, 0, requests)
	l.each(rng, requests, func(from, to float64) {
		times = append(times, to)
		r.Seconds = max(r.Seconds, to)
		r.MeanLatency += (to - from) / float64(requests)
		r.MaxLatency = max(r.MaxLatency, to-from)
	})

	width := 1.0
	for r.Seconds/width > 2000 {
		width *= 2
	}

	r.Points = make([]Point, int(math.Ceil(r.Seconds/width)))
	for _, at := range times {
		r.Points[min(int(at/width), len(r.Points)-1)].Done++
	}

	left := float64(requests)
	for i := range r.Points {
		p := &r.Points[i]
		p.Seconds = min(width, r.Seconds-float64(i)*width)
		p.InFlight = min(float64(l.slots), left)
		left -= p.Done
	}

	return r
}

// takes returns the time of one more job at the same server.
func (l law) takes(rng *rand.Rand, requests int) float64 {
	var end float64
	l.each(rng, requests, func(_, to float64) { end = max(end, to) })
	return end
}

// lognormal lengths have that mean, and spread by sigma in the log.
func lognormal(mean, sigma float64) func(*rand.Rand) float64 {
	return func(rng *rand.Rand) float64 {
		return mean * math.Exp(sigma*rng.NormFloat64()-sigma*sigma/2)
	}
}

// pareto lengths have that mean; more than x seconds takes a share of x^-alpha.
func pareto(mean, alpha float64) func(*rand.Rand) float64 {
	return func(rng *rand.Rand) float64 {
		return mean * (alpha - 1) / alpha * math.Exp(rng.ExpFloat64()/alpha)
	}
}

// warming servers begin at a third of their speed.
func warming(seconds float64) func(*rand.Rand) func(int) float64 {
	return func(*rand.Rand) func(int) float64 {
		return func(second int) float64 { return 1 - 2.0/3*math.Exp(-float64(second)/seconds) }
	}
}

// drifting servers' speeds wander by that much in the log, and forget where they
// were after a number of seconds (an Ornstein-Uhlenbeck process).
func drifting(by, seconds float64) func(*rand.Rand) func(int) float64 {
	return func(rng *rand.Rand) func(int) float64 {
		at, keep := by*rng.NormFloat64(), math.Exp(-1/seconds)
		return func(int) float64 {
			at = keep*at + by*math.Sqrt(1-keep*keep)*rng.NormFloat64()
			return math.Exp(at)
		}
	}
}
