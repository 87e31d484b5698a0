package remaining

import (
	"math"
	"time"
)

const (
	mostPast     = 64 // blocks
	smallestPast = 2 * time.Second
	// fewestPast blocks make a third of the past that can be halved.
	fewestPast = 6
	// pastWeight makes up for the few times of the past that do not overlap: as few as two give half
	// of a variance or less as often as more.
	pastWeight = 2
	// farthest is how many times longer than a third of the past the times are to which the growth
	// of its changes is stretched.
	farthest = 8
)

// history has the rates of the whole time since the workers changed, in blocks that grow with it.
type history struct {
	blocks  []float64 // requests per second, oldest first
	size    time.Duration
	filling block
}

// fill adds the requests that ended in a time.
func (h *history) fill(passed time.Duration, fresh int) {
	h.size = max(h.size, smallestPast)
	if h.filling.add(passed, fresh); h.filling.took < h.size {
		return
	}

	h.blocks = append(h.blocks, h.filling.rate())
	h.filling = block{}
	if len(h.blocks) == mostPast {
		h.blocks = mergePairs(h.blocks)
		h.size *= 2
	}
}

// measureChange returns by how much the rate over a time to come differs from that of the window before
// it, beyond what chance makes of it: the mean of the squared logs of their ratio, as windows of
// the past and the times after them show it. noise is the variance of the rate over a second, over the
// square of the mean. Times are in seconds. It reports whether the past is long enough.
//
// Windows and times have at most a third of the past. Where a longer time is to come, the change grows
// on as it does from half to all of that third.
func (h *history) measureChange(window, horizon, noise float64) (squares float64, ok bool) {
	past := steadyBlocks(h.blocks, len(h.blocks)/2)
	if len(past) < fewestPast {
		return 0, false
	}

	third, size := len(past)/3, h.size.Seconds()
	before := min(max(1, int(math.Round(window/size))), third)
	after := min(max(1, int(math.Round(horizon/size))), third)
	squares = excessChange(past, before, after, noise/size)

	half := excessChange(past, before, max(1, after/2), noise/size)
	if longer := horizon / (float64(after) * size); longer > 1 && half > 0 && squares > 0 {
		power := min(max(0, math.Log2(squares/half)), 2) // 1 for a random walk, 2 for a slope
		squares *= math.Pow(min(longer, farthest), power)
	}

	return squares, true
}

// excessChange returns the mean of the squared logs of the ratio of the mean rate of each number of
// blocks to that of the blocks before them, less what the noise of one block makes of it.
func excessChange(past []float64, before, after int, noise float64) float64 {
	sums := make([]float64, len(past)+1)
	for i, rate := range past {
		sums[i+1] = sums[i] + rate
	}

	squares, n := 0.0, 0
	for at := before; at+after <= len(past); at++ {
		a, b := (sums[at]-sums[at-before])/float64(before), (sums[at+after]-sums[at])/float64(after)
		if a > 0 && b > 0 {
			off := math.Log(b / a)
			squares += off * off
			n++
		}
	}

	if n == 0 {
		return 0
	}

	return max(0, squares/float64(n)-noise*(1/float64(before)+1/float64(after)))
}
