// Package remaining estimates how long the rest of a run takes while it works, as an interval
// that holds the truth about nine times in ten.
//
// An [Estimator] takes a [Sample] of the run about once a second. It is a state machine: it has no
// clock and no goroutine, and its memory does not grow with the run. Package estimate does the
// same for a run that has ended, of which all is known.
//
// The rate is that of the last minutes, by the method of batch means (Fishman, Principles of
// Discrete Event Simulation, 1978): the time is cut into 10 to 20 blocks of equal length.
// Blocks before the steady state, as of a model that warms up or from before a worker joined, are
// left out by the marginal standard error rule (White, Simulation 69, 1997). The interval is the 90%
// prediction interval for the mean of the blocks to come, x ± t·s·√(1/n + 1/m) (Hahn and Meeker,
// Statistical Intervals, 1991), with s enlarged for the correlation of neighbours. The last minutes
// do not show slower changes. How much the past times of the run have differed from the minutes
// before them does, and it makes the interval wider, see history.go.
//
// At the end fewer and fewer requests are in flight. If their lengths are exponentially
// distributed, the last of n takes ln n + 0.58 times the mean, and less than ln n + 3 times in 95 of
// 100 cases.
//
// The shown time follows the estimate at a limited speed, see [moveTowards].
//
// In simulations (coverage_test.go) the interval holds the truth in 92 to 99 of 100 moments at a
// server whose speed is steady, in 85 to 91 where it wanders by 20% within one to five minutes, in
// 77 where it does so within half an hour, and in 82 to 90 from the moment at which the number of
// workers changes. Where the speed sags from the first to the last minute, to half of what it
// was, the interval holds the truth in 63: in the second half of the run in 80 and more.
package remaining

import (
	"math"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// Sample is the state of a run at a moment.
type Sample struct {
	// At is the time of the sample. Each is later than the one before.
	At time.Time
	// Done counts the requests whose ends were seen: answers that were there before are not work
	// of this time.
	Done int
	// Left is the number of requests that have not ended, and InFlight the number of those that
	// are at a model server.
	Left, InFlight int
	// Workers is the number of workers that are ready for the run. Another number makes the rates of
	// the time before it a bad guide.
	Workers int
	// Working is false while no request can end, or none can be seen to end: the run is paused, no
	// worker is ready, or the bus does not answer.
	Working bool
}

// Estimator estimates the remaining time of one run. Its zero value is ready. It is not safe for
// concurrent use.
type Estimator struct {
	at      time.Time // of the last sample
	done    int
	workers int

	working bool      // at the last sample
	started bool      // a request has ended since the run resumed: pauses and their ends do not count
	blocks  []float64 // requests per second of the last minutes, oldest first
	size    time.Duration
	filling block // grows until it has that size
	history history

	latency float64 // seconds from a request to its answer, by Little's law
	known   bool
	shown   proto.Interval
}

// block counts the requests that ended in a time.
type block struct {
	took time.Duration
	done int
}

func (b *block) add(passed time.Duration, fresh int) {
	b.took += passed
	b.done += fresh
}

// rate returns the requests per second.
func (b *block) rate() float64 { return float64(b.done) / b.took.Seconds() }

const (
	mostBlocks    = 20
	fewestBlocks  = 5 // for a rate
	smallestBlock = time.Second
	// A block grows until it has this length and this many requests, so that the window is
	// minutes at a fast server and longer at a slow one.
	blockTime     = 16 * time.Second
	blockRequests = 50
	// An interval whose ends are further from its middle than this factor is not worth a beginning.
	widestFactor = 2
	// longestGap is the longest time between two samples of a process that was not stopped between
	// them.
	longestGap = 5 * time.Second
)

// Add adds a sample of the run.
func (r *Estimator) Add(s Sample) {
	passed, fresh := s.At.Sub(r.at), s.Done-r.done
	isNext := !r.at.IsZero() && passed > 0 && passed <= longestGap
	r.known = r.known && isNext // what was done meanwhile makes the shown time wrong
	if s.Workers != r.workers {
		r.history = history{}
	}

	r.at, r.done, r.workers, r.working = s.At, s.Done, s.Workers, s.Working
	if !isNext || !s.Working {
		r.started, r.filling, r.history.filling = false, block{}, block{}
		return
	}

	if s.Left > s.InFlight { // while the last ones end, the rate falls
		r.fill(passed, fresh)
	}

	target, ok := r.estimate(s.Left, s.InFlight)
	switch {
	case ok && !r.known:
		r.known, r.shown = true, target
	case ok:
		r.shown.Low = moveTowards(r.shown.Low, target.Low, passed)
		r.shown.Expected = moveTowards(r.shown.Expected, target.Expected, passed)
		r.shown.High = moveTowards(r.shown.High, target.High, passed)
	}
}

// longest is the longest time in seconds that is shown, some thirty years. Beyond it, next to nothing ends.
const longest = 1e9

// Interval returns the remaining time in seconds, or nil while it is unknown: less than some ten
// seconds of the run were seen, its rate varies too much, it would take decades, or it does not work.
func (r *Estimator) Interval() *proto.Interval {
	if !r.known || !r.working || r.shown.High > longest {
		return nil
	}
	return new(r.shown)
}

// moveTowards moves a shown time, which counts down, towards a target: by at most a second and
// a hundredth of the shown time for each second that passes.
func moveTowards(shown, target float64, passed time.Duration) float64 {
	shown = max(0, shown-passed.Seconds())
	most := passed.Seconds() * (1 + shown/100)
	return shown + min(max(target-shown, -most), most)
}

// fill adds the requests that ended in a time to the blocks.
func (r *Estimator) fill(passed time.Duration, fresh int) {
	if !r.started {
		r.started = fresh > 0
		return
	}

	r.history.fill(passed, fresh)

	r.size = max(r.size, smallestBlock)
	if r.filling.add(passed, fresh); r.filling.took < r.size {
		return
	}

	r.blocks = append(r.blocks, r.filling.rate())
	r.filling = block{}
	if len(r.blocks) < mostBlocks {
		return
	}

	if mean, _ := meanVariance(r.blocks); r.size >= blockTime && mean*r.size.Seconds() >= blockRequests {
		r.blocks = r.blocks[1:]
		return
	}

	r.blocks = mergePairs(r.blocks)
	r.size *= 2
}

// mergePairs replaces each two neighbours by their mean.
func mergePairs(blocks []float64) []float64 {
	half := len(blocks) / 2
	for i := range half {
		blocks[i] = (blocks[2*i] + blocks[2*i+1]) / 2
	}
	return blocks[:half]
}

// estimate returns the interval that follows from the blocks, if one does.
func (r *Estimator) estimate(left, inFlight int) (proto.Interval, bool) {
	if len(r.blocks) < 2*fewestBlocks {
		return proto.Interval{}, false
	}

	steady := steadyBlocks(r.blocks, len(r.blocks)-fewestBlocks)
	mean, variance := meanVariance(steady)
	if mean <= 0 {
		return proto.Interval{}, false
	}

	n, size := float64(len(steady)), r.size.Seconds()
	whole := float64(left) / mean // the time, if the rate did not fall at the end
	half := 1/(mean*size*n) + studentT95(n-1)*r.spread(batchMeans{
		n:        n,
		window:   n * size,
		variance: variance * varianceInflation(steady, mean, variance) / (mean * mean),
	}, whole)

	factor := math.Exp(min(half, 50)) // a rate is positive, so its error is one of a factor
	if factor > widestFactor && !r.known {
		return proto.Interval{}, false
	}

	inFlight = min(inFlight, left)
	if left > inFlight {
		r.latency = float64(inFlight) / mean
	}

	target := proto.Interval{Low: whole / factor, Expected: whole, High: whole * factor}
	if inFlight > 0 {
		last := math.Log(float64(inFlight))
		target.Expected = float64(left-inFlight)/mean + r.latency*(last+0.58)
		target.Low = min(target.Low, target.Expected) // few in flight end sooner than the rate says
		target.High += r.latency * (last + 2)         // and once the mean is in the rate
	}

	return target, true
}

// batchMeans are what the blocks of the last minutes show.
type batchMeans struct {
	n        float64 // blocks
	window   float64 // seconds, of all of them
	variance float64 // of one block's rate, over the square of the mean
}

// spread returns the standard deviation of the log of the mean rate in a time to come.
func (r *Estimator) spread(b batchMeans, horizon float64) float64 {
	block := b.window / b.n
	squares := b.variance * (1/b.n + 1/max(1, horizon/block))

	if past, ok := r.history.measureChange(b.window, horizon, b.variance*block); ok {
		return math.Sqrt(squares + pastWeight*past)
	}

	// Without a past, each doubling beyond four windows brings as much change as the window's own
	// mean is unsure by, as with flicker noise (Voss and Clarke 1975).
	if longer := horizon / (4 * b.window); longer > 1 {
		squares += b.variance / b.n * math.Log2(longer)
	}

	return math.Sqrt(squares)
}

// steadyBlocks returns the last blocks whose mean has the least standard error, without mostCut of them
// at most.
func steadyBlocks(blocks []float64, mostCut int) []float64 {
	best, least := 0, math.Inf(1)
	for cut := range mostCut + 1 {
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
