package sample

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// The quantiles are those of the sorted lengths, or a little more, and the others are exact.
func TestLengths(t *testing.T) {
	t.Parallel()

	random := rand.New(rand.NewPCG(1, 2))
	for name, length := range map[string]func() int{
		"short": func() int { return random.IntN(128) },
		"long":  func() int { return int(math.Exp(8 + 3*random.NormFloat64())) },
		"equal": func() int { return 5000 },
		"empty": func() int { return 0 },
	} {
		var h histogram
		lengths, sum := make([]int, 1000), 0
		for i := range lengths {
			lengths[i] = length()
			sum += lengths[i]
			h.add(lengths[i])
		}

		slices.Sort(lengths)
		got := h.describe()
		if got.Shortest != lengths[0] || got.Longest != lengths[999] || got.Mean != float64(sum)/1000 {
			t.Errorf("%s: %+v, want %d to %d", name, got, lengths[0], lengths[999])
		}

		for _, q := range []struct{ got, want int }{
			{got.P10, lengths[99]}, {got.P50, lengths[499]}, {got.P90, lengths[899]}, {got.P99, lengths[989]},
		} {
			if q.got < q.want || float64(q.got) > 1.016*float64(q.want) {
				t.Errorf("%s: a quantile is %d, want %d or up to 1.6%% more", name, q.got, q.want)
			}
		}
	}
}

// No length is too large for a bucket.
func TestLongestLength(t *testing.T) {
	t.Parallel()

	var h histogram
	h.add(math.MaxInt)
	if got := h.quantile(0.5); got != math.MaxInt {
		t.Errorf("the median of %d is %d", math.MaxInt, got)
	}
}
