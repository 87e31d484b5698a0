package sample

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Of the first 64 of 4096 items, and of each next 64, one is of each 64th part of the sorted ones; and so for each
// other power of two.
func TestSpreadParts(t *testing.T) {
	t.Parallel()

	const items = 4096
	order := numbers(items)
	spread(order)

	if slices.IsSorted(order) {
		t.Fatal("the order is that of the sizes")
	}

	for size := 1; size <= items; size *= 2 {
		for from := 0; from < items; from += size {
			parts := map[int]bool{}
			for _, n := range order[from : from+size] {
				parts[n*size/items] = true
			}

			if len(parts) != size {
				t.Fatalf("items %d to %d are of %d of %d parts", from, from+size, len(parts), size)
			}
		}
	}
}

// Each item is there once, whatever their number is, and in each beginning as many are of the shorter half as of the
// longer one, but for one.
func TestSpreadAnyNumber(t *testing.T) {
	t.Parallel()

	for n := range 200 {
		order := numbers(n)
		spread(order)

		short := 0
		for i, item := range order {
			if item < (n+1)/2 {
				short++
			}
			if long := i + 1 - short; short-long > 2 || long-short > 2 {
				t.Errorf("of the first %d of %d items, %d are of the shorter half", i+1, n, short)
			}
		}

		slices.Sort(order)
		if !slices.Equal(order, numbers(n)) {
			t.Errorf("%d items are not the same ones any more", n)
		}
	}
}

// Every beginning of at least 64 requests has the mean length of all of them, within a few percent. A random order
// does not: the test would fail with it.
func TestSpreadBalance(t *testing.T) {
	t.Parallel()

	random := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		name   string
		length func() float64
		// most is the most that the mean of a beginning may be off, and shuffled the least that a random order is.
		most, shuffled float64
	}{
		{"even", func() float64 { return 100 + 1900*random.Float64() }, 0.02, 0.04},
		{"log-normal", func() float64 { return 500 * math.Exp(0.7*random.NormFloat64()) }, 0.05, 0.06},
		{"two kinds", func() float64 {
			if random.IntN(10) == 0 {
				return 20_000
			}
			return 200
		}, 0.15, 0.17},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []int{1000, 4097, 20_000} {
				lengths := make([]float64, n)
				for i := range lengths {
					lengths[i] = tt.length()
				}

				shuffled := worstBeginning(lengths)
				slices.Sort(lengths)
				spread(lengths)
				worst := worstBeginning(lengths)

				t.Logf("%d requests: the mean of a beginning is off by at most %.1f%%, in a random order by %.1f%%",
					n, 100*worst, 100*shuffled)
				if worst > tt.most {
					t.Errorf("%d requests: the mean of a beginning is off by %.3f, want at most %.3f", n, worst, tt.most)
				}
				if shuffled < tt.shuffled {
					t.Errorf("%d requests: a random order is off by %.3f alone: the test proves nothing", n, shuffled)
				}
			}
		})
	}
}

// worstBeginning returns how far the mean of a beginning of at least 64 is from that of all, as a part of it.
func worstBeginning(lengths []float64) (worst float64) {
	var all float64
	for _, l := range lengths {
		all += l
	}

	mean, sum := all/float64(len(lengths)), 0.0
	for i, l := range lengths {
		if sum += l; i >= 63 {
			worst = max(worst, math.Abs(sum/float64(i+1)/mean-1))
		}
	}

	return worst
}

// numbers returns 0 to n-1.
func numbers(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}
