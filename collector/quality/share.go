package quality

import "math"

// NewShare returns a part of a number of requests with its 90 % interval (Wilson 1927). Of no requests, nothing is known.
func NewShare(count, of int) *Share {
	if of == 0 {
		return &Share{High: 1}
	}

	const z90 = 1.6448536269514722 // the 0.95 quantile of the normal distribution
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
