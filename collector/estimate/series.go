package estimate

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"slices"
)

// series is a run taken apart.
type series struct {
	seconds     float64 // of the whole run, pauses left out
	concurrency float64
	latency     float64 // mean, in seconds

	start  []Point // until the rate is steady
	steady []Point
	tail   []Point // from when all had been sent off

	rate   float64 // of the steady part, requests per second
	length float64 // of the steady part, in seconds
	spread float64 // by how much blocks differ, over their mean
	unsure float64 // standard deviation of the log of rate
	noise  float64 // the same of the requests done in a time, times their root
	block  int     // points that are drawn together
	memory float64 // correlation of one block with the next, 0 to mostMemory

	pace       []float64 // of the points of start
	done, secs []float64 // sums of the steady part twice over, to draw blocks around its end
	drain      drain
	seed       uint64
}

// newSeries takes a run apart.
func newSeries(run Run) *series {
	s := &series{seconds: finiteOrZero(run.Seconds), concurrency: finiteOrZero(run.Concurrency)}
	active, total := s.activePoints(run.Points)
	if len(active) == 0 {
		return s
	}

	s.seed = seedOf(active)

	// All have been sent off once no more are left than can be in flight.
	end := len(active)
	for left := 0.0; !run.CutOff && end > 0 && left+active[end-1].Done <= min(s.concurrency, total); end-- {
		left += active[end-1].Done
	}

	s.tail = active[end:]
	s.latency = finiteOrZero(run.MeanLatency)
	if s.latency == 0 {
		s.latency = littlesLatency(active)
	}

	begin := warmUp(active[:end])
	s.start, s.steady = active[:begin], active[begin:end]
	s.findSlowness()
	s.measureSpread()

	longest := finiteOrZero(run.MaxLatency)
	if len(s.tail) == 0 { // it was shorter than an interval
		s.tail = []Point{{Seconds: max(longest, s.latency), Done: min(s.concurrency, total)}}
	}

	s.drain = newDrain(s.tail, longest)

	return s
}

// activePoints leaves out the points that do not show the workers' speed, and returns the
// requests done as well. It sets the figures that the run does not know.
func (s *series) activePoints(points []Point) (active []Point, total float64) {
	var seconds, mostInFlight float64
	for _, p := range points {
		if !p.isValid() || p.isPaused() {
			continue
		}

		active = append(active, p)
		total += p.Done
		seconds += p.Seconds
		mostInFlight = max(mostInFlight, p.InFlight)
	}

	if s.seconds == 0 {
		s.seconds = seconds
	}
	if s.concurrency == 0 {
		s.concurrency = mostInFlight
	}

	s.concurrency = max(s.concurrency, 1)

	return active, total
}

// littlesLatency is the mean latency by Little's law (Little 1961): requests in
// flight over requests per second.
func littlesLatency(points []Point) float64 {
	var inFlight, done float64
	for _, p := range points {
		inFlight += p.InFlight * p.Seconds
		done += p.Done
	}

	if done == 0 {
		return 0
	}

	return inFlight / done
}

// warmUp returns how many points to leave out at the beginning until the rate is
// steady: as many as make the standard error of the rest's mean the smallest (the
// marginal standard error rule, White 1997), over means of five points (MSER-5,
// White, Cobb and Spratt 2000), and as many again: where the rule cuts, the
// rest of the start-up is just below the noise, and would cause half of a long
// job's error. It leaves at least half.
func warmUp(points []Point) int {
	const batch = 5
	n := len(points) / batch
	means := make([]float64, n)
	for i := range means {
		done, seconds := sumPoints(points[i*batch : (i+1)*batch])
		means[i] = done / seconds
	}

	best, at := math.Inf(1), 0
	var sum, squares float64
	for i, m := range slices.Backward(means) {
		sum, squares = sum+m, squares+m*m
		left := float64(n - i)
		if err := (squares - sum*sum/left) / (left * left); i <= n/2 && err <= best {
			best, at = err, i
		}
	}

	return min(2*at, n/2) * batch
}

func sumPoints(points []Point) (done, seconds float64) {
	for _, p := range points {
		done += p.Done
		seconds += p.Seconds
	}
	return done, seconds
}

// finiteOrZero is f where it can be believed, else 0.
func finiteOrZero(f float64) float64 {
	if f > 0 && f <= most {
		return f
	}
	return 0
}

// seedOf seeds the draws, so that the same run gives the same estimate.
func seedOf(points []Point) uint64 {
	h := fnv.New64a()
	var b [8]byte
	for _, p := range points {
		for _, f := range []float64{p.Seconds, p.Done, p.InFlight} {
			binary.LittleEndian.PutUint64(b[:], math.Float64bits(f))
			h.Write(b[:])
		}
	}

	return h.Sum64()
}
