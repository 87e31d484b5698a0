package estimate

import "math"

// Rate is the steady rate of a run in requests per second: of its full servers once they are warm, pauses left out.
type Rate struct {
	// Low and High hold the rate that a longer run would have as often as the confidence says, and Median is as often
	// too low as too high. All are zero where there is a Problem.
	Low, Median, High float64
	// Growth is how many times the rate of the first half of the steady part the second half has: more than 1 where the
	// servers still warm up. 0: unknown.
	Growth float64

	Problem Problem
	Needed  int // requests of a run that would do, where there is a Problem and one would

	spread, freedom float64 // the standard error of the log of the rate, and its degrees of freedom
}

// RateOf returns the steady rate of a run at a confidence between 0 and 1, such as 0.9. It needs the same of a run as
// [Of] does, and takes the same spread of blocks.
func RateOf(run Run, confidence float64) Rate {
	s := newSeries(run)

	var r Rate
	r.Problem, r.Needed = s.findProblem(run)
	if r.Problem != NoProblem {
		return r
	}

	r.Median, r.spread, r.freedom = s.rate, s.rateError(), freedom(s.countBlocks())
	first, then := rateOf(s.steady[:len(s.steady)/2]), rateOf(s.steady[len(s.steady)/2:])
	if first > 0 {
		r.Growth = then / first
	}

	return r.At(confidence)
}

// At returns the same rate at another confidence.
func (r Rate) At(confidence float64) Rate {
	if r.Problem == NoProblem {
		off := StudentT(NormalPoint(confidence), r.freedom) * r.spread
		r.Low, r.High = r.Median*math.Exp(-off), r.Median*math.Exp(off)
	}
	return r
}

func rateOf(points []Point) float64 {
	done, seconds := sumPoints(points)
	return done / seconds
}

// rateError is the standard error of the log of the rate: that of the mean of blocks that remember.
func (s *series) rateError() float64 {
	k := float64(s.countBlocks())
	return s.spread * math.Sqrt((1+s.memory)/(1-s.memory)/(k-1))
}

// NormalPoint is how many standard deviations a normal variable is from its mean at most as often as the confidence
// says, which is between 0 and 1.
func NormalPoint(confidence float64) float64 { return math.Sqrt2 * math.Erfinv(confidence) }

// StudentT is the point of Student's distribution with some degrees of freedom that stands for the point z of the
// normal distribution (Abramowitz and Stegun 26.7.5). It is within 1.5 % from 4 degrees on up to z = 3.3.
func StudentT(z, freedom float64) float64 {
	z2 := z * z
	terms := [...]float64{
		z * (z2 + 1) / 4,
		z * ((5*z2+16)*z2 + 3) / 96,
		z * (((3*z2+19)*z2+17)*z2 - 15) / 384,
		z * ((((79*z2+776)*z2+1482)*z2-1920)*z2 - 945) / 92160,
	}

	t, power := z, 1.0
	for _, term := range terms {
		power *= freedom
		t += term / power
	}

	return t
}
