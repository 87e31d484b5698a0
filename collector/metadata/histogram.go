package metadata

import (
	"fmt"
	"slices"
)

// Histogram counts requests by a quantity. A bucket has the values up to its bound, and above
// the bound before, within 1%. The last bound is the greatest value.
type Histogram struct {
	Bounds []float64 `json:"bounds"`
	Counts []int64   `json:"counts"`
}

// validate is for a histogram from a file. Nil is valid.
func (h *Histogram) validate() error {
	switch {
	case h == nil:
		return nil
	case len(h.Bounds) != len(h.Counts):
		return fmt.Errorf("%w: a histogram has %d bounds and %d counts", ErrFormat, len(h.Bounds), len(h.Counts))
	case !slices.IsSorted(h.Bounds):
		return fmt.Errorf("%w: the bounds of a histogram do not ascend", ErrFormat)
	case slices.ContainsFunc(h.Counts, func(n int64) bool { return n < 0 }):
		return fmt.Errorf("%w: a histogram has a count below zero", ErrFormat)
	}

	return nil
}
