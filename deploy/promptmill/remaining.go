package main

import (
	"math"
	"time"
)

// remaining estimates how long a run still takes, as an interval.
//
// The rate is that of the last minutes, by the method of batch means (Fishman, Principles
// of Discrete Event Simulation, 1978): the time is cut into 10 to 20 blocks of equal
// length. What precedes the steady state is left out by the marginal standard error rule
// (White, Simulation 69, 1997). The interval is the 90% prediction interval for the mean
// of the blocks to come, x ± t·s·√(1/n + 1/m) (Hahn and Meeker, Statistical Intervals,
// 1991), with s enlarged for the correlation of neighbours. Its upper end has room for
// the tail, when ever fewer requests are in flight: if their lengths are exponentially
// distributed, the last of n takes less than ln n + 3 times the mean in 95 of 100 cases,
// and once the mean is in the rate already.
//
// What is shown follows the estimate at a limited speed, see [approach].
type remaining struct {
	at   time.Time // of the last sample
	done int

	begun  bool      // a request has ended since the run went on: pauses and their ends do not count
	blocks []float64 // requests per second, oldest first
	size   time.Duration
	filled time.Duration // of the block that is being filled
	got    int           // requests in it

	latency   float64 // seconds from a request to its answer, by Little's law
	known     bool
	low, high float64 // seconds, as shown
}

const (
	mostBlocks    = 20
	fewestBlocks  = 5 // to tell a rate by
	smallestBlock = time.Second
	// A block grows until it is that long and holds that many requests, so that the
	// window is of minutes at a fast server and of more at a slow one.
	blockTime     = 16 * time.Second
	blockRequests = 50
	// An interval whose ends are further from its middle than this factor says nothing.
	widestFactor = 2
)

// add takes a sample of the run. working is false while nothing can get done.
func (r *remaining) add(at time.Time, done, total, inFlight int, working bool) {
	passed, fresh := at.Sub(r.at), done-r.done
	first := r.at.IsZero()
	r.at, r.done = at, done
	if first || !working || passed <= 0 {
		r.begun, r.filled, r.got = false, 0, 0
		return
	}

	left := total - done
	if left > inFlight { // while the last ones end, the rate falls
		r.fill(passed, fresh)
	}

	low, high, ok := r.estimate(left, inFlight)
	switch {
	case ok && !r.known:
		r.known, r.low, r.high = true, low, high
	case ok:
		r.low, r.high = approach(r.low, low, passed), approach(r.high, high, passed)
	default:
		r.low, r.high = max(0, r.low-passed.Seconds()), max(0, r.high-passed.Seconds())
	}
}

// interval is the shortest and the longest time left in seconds, if they are known.
func (r *remaining) interval() (low, high float64, ok bool) {
	return r.low, max(r.low, r.high), r.known
}

// approach moves a shown time, which the clock runs down, towards a target: by at most
// a second and a hundredth of what is shown for each second that passes.
func approach(shown, target float64, passed time.Duration) float64 {
	shown = max(0, shown-passed.Seconds())
	most := passed.Seconds() * (1 + shown/100)
	return shown + min(max(target-shown, -most), most)
}

// fill puts what a time has brought into the blocks.
func (r *remaining) fill(passed time.Duration, fresh int) {
	if !r.begun {
		r.begun = fresh > 0
		return
	}

	if r.size == 0 {
		r.size = smallestBlock
	}

	r.filled += passed
	r.got += fresh
	if r.filled < r.size {
		return
	}

	r.blocks = append(r.blocks, float64(r.got)/r.filled.Seconds())
	r.filled, r.got = 0, 0
	if len(r.blocks) < mostBlocks {
		return
	}

	if mean, _ := moments(r.blocks); r.size >= blockTime && mean*r.size.Seconds() >= blockRequests {
		r.blocks = r.blocks[1:]
		return
	}

	for i := range mostBlocks / 2 {
		r.blocks[i] = (r.blocks[2*i] + r.blocks[2*i+1]) / 2
	}

	r.blocks = r.blocks[:mostBlocks/2]
	r.size *= 2
}

// estimate is the interval that the blocks tell, if they tell one.
func (r *remaining) estimate(left, inFlight int) (low, high float64, ok bool) {
	if len(r.blocks) < 2*fewestBlocks {
		return 0, 0, false
	}

	steady := steadyState(r.blocks)
	mean, variance := moments(steady)
	if mean <= 0 {
		return 0, 0, false
	}

	n, size := float64(len(steady)), r.size.Seconds()
	expected := float64(left) / mean
	future := max(1, expected/size) // blocks to come
	half := student(n-1)*math.Sqrt(variance*inflation(steady, mean, variance)*(1/n+1/future))/mean + 1/(mean*size*n)
	factor := math.Exp(half) // a rate is positive, so its error is one of a factor
	if factor > widestFactor {
		return 0, 0, false
	}

	tail := 0.0
	if left > inFlight {
		r.latency = float64(inFlight) / mean
	}

	if last := min(left, inFlight); last > 0 {
		tail = r.latency * (math.Log(float64(last)) + 2)
	}

	return expected / factor, expected*factor + tail, true
}

// steadyState is the end of the blocks whose mean has the least standard error.
func steadyState(blocks []float64) []float64 {
	best, least := 0, math.Inf(1)
	for cut := range len(blocks) - fewestBlocks + 1 {
		_, variance := moments(blocks[cut:])
		if e := variance / float64(len(blocks)-cut); e < least {
			best, least = cut, e
		}
	}

	return blocks[best:]
}

// moments are the mean and the variance.
func moments(list []float64) (mean, variance float64) {
	for _, x := range list {
		mean += x
	}

	mean /= float64(len(list))
	for _, x := range list {
		variance += (x - mean) * (x - mean)
	}

	return mean, variance / float64(len(list)-1)
}

// inflation is how much larger the variance of the mean is than that of independent
// blocks, if each depends on the one before.
func inflation(blocks []float64, mean, variance float64) float64 {
	if variance == 0 {
		return 1
	}

	covariance := 0.0
	for i := range len(blocks) - 1 {
		covariance += (blocks[i] - mean) * (blocks[i+1] - mean)
	}

	rho := min(max(0, covariance/(variance*float64(len(blocks)-1))), 0.8)

	return (1 + rho) / (1 - rho)
}

// student is the 0.95 quantile of Student's t, by its expansion about the normal one.
func student(freedom float64) float64 {
	const z = 1.6448536
	return z + (z*z*z+z)/(4*freedom) + (5*math.Pow(z, 5)+16*z*z*z+3*z)/(96*freedom*freedom)
}
