package metadata

import (
	"cmp"
	"time"
)

// Quiet is the time without a sign of work after which a run counts as idle. Workers report
// their requests in flight every 3 s.
const Quiet = 10 * time.Second

// Most is the larger of two figures, either of which may be unknown.
func Most[T cmp.Ordered](a, b *T) *T {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}

// Sum adds two figures; an unknown one counts as nothing.
func Sum[T int64 | float64](a, b *T) *T {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	return new(*a + *b)
}

// OrZero returns a figure, or zero if it is unknown.
func OrZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
