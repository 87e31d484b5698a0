// Package estimate predicts how long a job of a number of requests takes, judged
// from the time series of a run that has been, as an interval that holds the
// truth nine times in ten.
//
// A run is taken apart into three. The start-up lasts until the rate is steady,
// the tail from when the last request was sent off until the last answer; both
// cost every job the same, however long it is, but for one that is over within the
// start-up. What lies between is the steady
// part, and only its rate, which [RateOf] returns, is stretched to the length of the job. How far that
// rate is to be trusted is found by resampling blocks of it (see blocks.go), how
// far the tail is by the longest requests of the one that was seen (see
// drain.go).
//
// A run that was too small to show a steady part gets a [Problem] and no
// interval. What no interval knows is a change slower than the run: where a
// fleet's speed wanders and takes a thirteenth of the run to forget where it was,
// the interval holds the truth eight times in ten, and where it takes a fifth,
// seven times in ten. Of a job that is over within some five intervals of a run that
// still warms up then, it holds the truth six times in ten.
package estimate

import (
	"math"
	"slices"
)

// Point holds the figures of one interval of a run.
type Point struct {
	Seconds  float64 // length of the interval
	Done     float64 // requests done in it
	InFlight float64 // requests at the server in it
}

// isPaused reports whether no request was at the server: the run was interrupted, which
// is no sign of the fleet's speed.
func (p Point) isPaused() bool { return p.Done == 0 && p.InFlight == 0 }

func (p Point) isValid() bool {
	return p.Seconds >= least && p.Seconds <= most && p.InFlight >= 0 && p.InFlight <= most &&
		(p.Done == 0 || p.Done >= least && p.Done <= most)
}

// Run is the input of an estimate. Zero means unknown, except for Requests.
type Run struct {
	// Points are the run's intervals in order, of equal length but for the last.
	// Without them there is no interval, only the naive estimate.
	Points []Point

	Requests    int     // requests done, failed ones with them
	Seconds     float64 // time they took, pauses left out. Defaults to that of Points.
	Concurrency float64 // most requests in flight. Defaults to that of Points.

	Workers     int       // workers that took part
	WorkerRates []float64 // requests per second of each, to judge others by

	MeanLatency float64 // seconds a request was at the server
	MaxLatency  float64 // seconds the longest one was

	// CutOff reports that there were more requests to send at the end, as in a run so far or one that was cancelled:
	// the last points are those of full servers, not of a tail.
	CutOff bool
}

// Problem is the reason why no interval can be given.
type Problem string

const (
	// NoProblem means that there is an interval.
	NoProblem Problem = ""
	// TooFew means that too few requests were done to fill the server and keep it full:
	// fewer than three for each that was in flight, or fewer than a hundred.
	TooFew Problem = "too few requests"
	// NoSeries means that the run has no time series, so its rate may have varied.
	NoSeries Problem = "no time series"
	// TooShort means that the steady part was too short to separate its rate from chance.
	TooShort Problem = "no steady part long enough"
)

// Estimate is the predicted time of a job. Times are in seconds and leave out the
// loading of the model.
type Estimate struct {
	Requests int
	Workers  int

	// Low and High hold the truth nine times in ten, Median is as often too long
	// as too short. All are zero where there is a Problem.
	Low, Median, High float64

	// Naive is the run's time stretched by the number of requests, as if it had
	// neither start-up nor tail. Zero where the run has no data for it.
	Naive float64

	Problem Problem
	Needed  int // requests of a run that would do, where there is a Problem and one would
}

const (
	// fewest requests make a run to judge by: the mean of a hundred lengths that
	// spread as widely as they are long is still 10% off.
	fewest = 100
	// Figures of a point that are not between these are not believed: seconds (a
	// microsecond, 31 years) and requests.
	least, most = 1e-6, 1e9
	// replicates are drawn for an interval; 25 of them lie below Low.
	replicates = 500
)

// Of estimates the time of a job of a number of requests on a number of workers, where 0
// means as many as the run had. The same run gives the same answer each time, and
// more requests never take less time.
//
// With other workers, all rates scale by their number; start-up and tail take as
// long as they did. That assumes that the workers share no bottleneck.
func Of(run Run, requests, workers int) Estimate {
	requests = max(requests, 0)
	e := Estimate{Requests: requests, Workers: workers}
	if workers <= 0 {
		e.Workers = run.Workers
	}

	s := newSeries(run)
	scale := 1.0 // jobs of that many requests on the fleet as it was
	if run.Workers > 0 && e.Workers > 0 {
		scale = float64(run.Workers) / float64(e.Workers)
	}

	job := float64(requests) * scale
	if run.Requests > 0 && s.seconds > 0 {
		e.Naive = s.seconds / float64(run.Requests) * job
	}

	e.Problem, e.Needed = s.findProblem(run)
	if e.Problem != NoProblem || requests == 0 {
		return e
	}

	spread := spreadOfWorkers(run, e.Workers)
	times := make([]float64, replicates)
	for i := range times {
		times[i] = s.drawReplicate(uint64(i), job, spread)
	}

	slices.Sort(times)
	e.Low = times[replicates*5/100]
	e.Median = times[replicates/2]
	e.High = times[replicates*95/100]

	return e
}

// findProblem returns why the run gives no estimate, and how many requests would be enough.
func (s *series) findProblem(run Run) (Problem, int) {
	few := max(fewest, int(math.Ceil(3*min(s.concurrency, most))))
	switch {
	case run.Requests < few:
		return TooFew, few
	case len(run.Points) == 0:
		return NoSeries, 0
	case s.countBlocks() < fewestBlocks:
		if needed := max(few, s.neededBlocks()); needed > run.Requests {
			return TooShort, needed
		}
		return TooShort, 2 * min(run.Requests, most)
	}

	return NoProblem, 0
}

// unknownSpread is the assumed difference between the rates of two workers where the
// run had only one, or they are not known.
const unknownSpread = 0.1

// spreadOfWorkers is the standard deviation of the log of the rate that comes from
// having other workers than the run had. With workers that spread by s around
// their mean, that of M differs from that of W by s²|1/W - 1/M|, be it that some
// are left out (sampling without replacement) or that new ones join.
func spreadOfWorkers(run Run, workers int) float64 {
	if run.Workers <= 0 || workers <= 0 || workers == run.Workers {
		return 0
	}

	s := unknownSpread
	if cv, ok := variationOf(run.WorkerRates); ok {
		s = cv
	}

	return s * math.Sqrt(math.Abs(1/float64(run.Workers)-1/float64(workers)))
}

// variationOf is the standard deviation over the mean, at most 1.
func variationOf(rates []float64) (float64, bool) {
	var sum float64
	for _, r := range rates {
		if !(r >= 0 && r <= most) {
			return 0, false
		}
		sum += r
	}

	if len(rates) < 2 || sum == 0 {
		return 0, false
	}

	n := float64(len(rates))
	var squares float64
	for _, r := range rates {
		squares += (r - sum/n) * (r - sum/n)
	}

	return min(1, math.Sqrt(squares/(n-1))/(sum/n)), true
}
