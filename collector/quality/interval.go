package quality

import "math"

// z90 is the 0.95 quantile of the normal distribution: an interval of twice that many standard errors holds the truth
// nine times in ten.
const z90 = 1.6448536269514722

// NewShare returns a share of a number of requests, with its 90 % interval (Wilson 1927). Of no requests, nothing is
// known.
func NewShare(count, of int) *Share {
	if of == 0 {
		return &Share{High: 1}
	}

	n, p := float64(of), float64(count)/float64(of)
	middle := (p + z90*z90/(2*n)) / (1 + z90*z90/n)
	half := z90 / (1 + z90*z90/n) * math.Sqrt(p*(1-p)/n+z90*z90/(4*n*n))

	return &Share{
		Count: count,
		Of:    of,
		Share: p,
		Low:   max(0, min(p, middle-half)), // rounding aside, p lies between them
		High:  min(1, max(p, middle+half)),
	}
}

// sums are what an interval of a mean needs.
type sums struct {
	n       int
	sum     float64
	squares float64
}

// add adds a value.
func (s *sums) add(x float64) {
	s.n++
	s.sum += x
	s.squares += x * x
}

// mean returns the mean of the values; 0 if there are none.
func (s *sums) mean() float64 { return s.sum / float64(max(1, s.n)) }

// interval returns the interval of the mean with made-up values besides: it does not claim to be certain where all
// values are the same, which few values often are by chance.
func (s *sums) interval(made sums) (low, high float64) {
	n := float64(s.n + made.n)
	middle := (s.sum + made.sum) / n
	half := z90 * math.Sqrt(max(0, (s.squares+made.squares)/n-middle*middle)/n)

	return middle - half, middle + half
}

// score returns the mean of scores with its interval. It is that of Agresti and Coull (1998), for any values from 0 to
// 1: made-up scores are added, half of them 0 and half of them 1.
func (s *sums) score() *Score {
	mean := s.mean()
	if s.n == 0 {
		return &Score{High: 1}
	}

	// 3 is z90 squared, rounded up. Half of it are ones.
	low, high := s.interval(sums{n: 3, sum: 1.5, squares: 1.5})

	return &Score{
		Mean: mean,
		Low:  max(0, min(mean, low)),
		High: min(1, max(mean, high)),
		Of:   s.n,
	}
}

// difference returns the mean of differences with its interval. It is that of Bonett and Price (2012) for shares of
// the same requests, for any values from -1 to 1: a made-up difference of 1 and one of -1 are added.
func (s *sums) difference() *Difference {
	mean := s.mean()
	low, high := s.interval(sums{n: 2, squares: 2})

	return &Difference{
		Mean: mean,
		Low:  max(-1, min(mean, low)),
		High: min(1, max(mean, high)),
	}
}
