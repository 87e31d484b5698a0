package sample

import "math/bits"

// Lengths describes the lengths of the bodies of requests, in bytes. The quantiles, of which P50 is the median, are the
// exact ones up to 127 bytes, and else up to 1.6 % too large.
type Lengths struct {
	Mean     float64 `json:"mean"`
	Shortest int     `json:"shortest"`
	P10      int     `json:"p10"`
	P50      int     `json:"p50"`
	P90      int     `json:"p90"`
	P99      int     `json:"p99"`
	Longest  int     `json:"longest"`
}

// histogram counts lengths in buckets, of which each is 1/64 to 1/128 of its lengths wide. Its memory does not grow.
type histogram struct {
	counts            [1 << 12]int
	requests, sum     int
	shortest, longest int
}

// exact is the number of bits of lengths that have a bucket each.
const exact = 7

// add counts a length.
func (h *histogram) add(n int) {
	if h.requests == 0 {
		h.shortest = n
	}

	h.requests++
	h.sum += n
	h.shortest, h.longest = min(h.shortest, n), max(h.longest, n)

	shift := max(0, bits.Len(uint(n))-exact)
	h.counts[shift<<(exact-1)+n>>shift]++
}

// quantile returns a length that a part of the requests does not exceed, at most the longest one.
func (h *histogram) quantile(part float64) int {
	wanted, seen := part*float64(h.requests), 0

	for i, n := range h.counts {
		if seen += n; n > 0 && float64(seen) >= wanted {
			shift := max(0, i>>(exact-1)-1)
			return min((i-shift<<(exact-1)+1)<<shift-1, h.longest)
		}
	}

	return h.longest
}

// describe describes the lengths, of which there is at least one.
func (h *histogram) describe() Lengths {
	return Lengths{
		Mean:     float64(h.sum) / float64(h.requests),
		Shortest: h.shortest,
		P10:      h.quantile(0.1),
		P50:      h.quantile(0.5),
		P90:      h.quantile(0.9),
		P99:      h.quantile(0.99),
		Longest:  h.longest,
	}
}
