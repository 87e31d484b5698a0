package progress

import (
	"math"
	"time"
)

// timeEstimator estimates the remaining time of a run, as an interval.
//
// The rate is the rate of the last minutes, by the method of batch means (Fishman, Principles
// of Discrete Event Simulation, 1978): the time is cut into 10 to 20 blocks of equal
// length. Blocks before the steady state are left out by the marginal standard error rule
// (White, Simulation 69, 1997). The interval is the 90% prediction interval for the mean
// of the blocks to come, x ± t·s·√(1/n + 1/m) (Hahn and Meeker, Statistical Intervals,
// 1991), with s enlarged for the correlation of neighbours. Its upper end has room for
// the tail, in which fewer and fewer requests are in flight: if their lengths are exponentially
// distributed, the last of n takes less than ln n + 3 times the mean in 95 of 100 cases,
// and once the mean is in the rate already.
//
// The shown time follows the estimate at a limited speed, see [moveTowards].
type timeEstimator struct {
	at   time.Time // of the last sample
	done int

	started   bool      // a request has ended since the run resumed: pauses and their ends do not count
	blocks    []float64 // requests per second, oldest first
	size      time.Duration
	filled    time.Duration // of the block that is being filled
	blockDone int           // requests in it

	latency   float64 // seconds from a request to its answer, by Little's law
	known     bool
	low, high float64 // seconds, as shown
}

const (
	mostBlocks    = 20
	fewestBlocks  = 5 // for a rate
	smallestBlock = time.Second
	// A block grows until it has this length and this many requests, so that the window is
	// minutes at a fast server and longer at a slow one.
	blockTime     = 16 * time.Second
	blockRequests = 50
	// An interval whose ends are further from its middle than this factor is useless.
	widestFactor = 2
)

// addSample adds a sample of the run. working is false while no request can be done.
func (r *timeEstimator) addSample(at time.Time, done, total, inFlight int, working bool) {
	passed, fresh := at.Sub(r.at), done-r.done
	first := r.at.IsZero()
	r.at, r.done = at, done
	if first || !working || passed <= 0 {
		r.started, r.filled, r.blockDone = false, 0, 0
		return
	}

	left := total - done
	if left > inFlight { // while the last ones end, the rate falls
		r.fillBlock(passed, fresh)
	}

	low, high, ok := r.estimateInterval(left, inFlight)
	switch {
	case ok && !r.known:
		r.known, r.low, r.high = true, low, high
	case ok:
		r.low, r.high = moveTowards(r.low, low, passed), moveTowards(r.high, high, passed)
	default:
		r.low, r.high = max(0, r.low-passed.Seconds()), max(0, r.high-passed.Seconds())
	}
}

// interval returns the shortest and the longest remaining time in seconds, if they are known.
func (r *timeEstimator) interval() (low, high float64, ok bool) {
	return r.low, max(r.low, r.high), r.known
}

// moveTowards moves a shown time, which counts down, towards a target: by at most a second and
// a hundredth of the shown time for each second that passes.
func moveTowards(shown, target float64, passed time.Duration) float64 {
	shown = max(0, shown-passed.Seconds())
	most := passed.Seconds() * (1 + shown/100)
	return shown + min(max(target-shown, -most), most)
}

// fillBlock adds the requests that were done in a time to the blocks.
func (r *timeEstimator) fillBlock(passed time.Duration, fresh int) {
	if !r.started {
		r.started = fresh > 0
		return
	}

	if r.size == 0 {
		r.size = smallestBlock
	}

	r.filled += passed
	r.blockDone += fresh
	if r.filled < r.size {
		return
	}

	r.blocks = append(r.blocks, float64(r.blockDone)/r.filled.Seconds())
	r.filled, r.blockDone = 0, 0
	if len(r.blocks) < mostBlocks {
		return
	}

	if mean, _ := meanVariance(r.blocks); r.size >= blockTime && mean*r.size.Seconds() >= blockRequests {
		r.blocks = r.blocks[1:]
		return
	}

	for i := range mostBlocks / 2 {
		r.blocks[i] = (r.blocks[2*i] + r.blocks[2*i+1]) / 2
	}

	r.blocks = r.blocks[:mostBlocks/2]
	r.size *= 2
}

// estimateInterval returns the interval that follows from the blocks, if one does.
func (r *timeEstimator) estimateInterval(left, inFlight int) (low, high float64, ok bool) {
	if len(r.blocks) < 2*fewestBlocks {
		return 0, 0, false
	}

	steady := steadyBlocks(r.blocks)
	mean, variance := meanVariance(steady)
	if mean <= 0 {
		return 0, 0, false
	}

	n, size := float64(len(steady)), r.size.Seconds()
	expected := float64(left) / mean
	future := max(1, expected/size) // blocks to come
	half := studentT95(n-1)*math.Sqrt(variance*varianceInflation(steady, mean, variance)*(1/n+1/future))/mean +
		1/(mean*size*n)
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

// steadyBlocks returns the last blocks whose mean has the least standard error.
func steadyBlocks(blocks []float64) []float64 {
	best, least := 0, math.Inf(1)
	for cut := range len(blocks) - fewestBlocks + 1 {
		_, variance := meanVariance(blocks[cut:])
		if e := variance / float64(len(blocks)-cut); e < least {
			best, least = cut, e
		}
	}

	return blocks[best:]
}

// meanVariance returns the mean and the variance.
func meanVariance(list []float64) (mean, variance float64) {
	for _, x := range list {
		mean += x
	}

	mean /= float64(len(list))
	for _, x := range list {
		variance += (x - mean) * (x - mean)
	}

	return mean, variance / float64(len(list)-1)
}

// varianceInflation returns the factor by which the variance of the mean exceeds that of
// independent blocks, if each depends on the one before.
func varianceInflation(blocks []float64, mean, variance float64) float64 {
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

// studentT95 returns the 0.95 quantile of Student's t, by its expansion about the normal one.
func studentT95(freedom float64) float64 {
	const z = 1.6448536
	return z + (z*z*z+z)/(4*freedom) + (5*math.Pow(z, 5)+16*z*z*z+3*z)/(96*freedom*freedom)
}
