package prototest

import (
	"testing"
	"time"
	"unsafe"
)

// Stepped returns the time that [time.Now] would have returned instead of at, had the wall clock
// been put forward by some whole seconds before: the monotonic clock does not follow.
func Stepped(t testing.TB, at time.Time, seconds int) time.Time {
	t.Helper()

	stepped := at
	// Of a time with a monotonic reading the first word holds a bit for that, 33 bits of
	// seconds and 30 of nanoseconds.
	*(*uint64)(unsafe.Pointer(&stepped)) += uint64(int64(seconds)) << 30
	if wall := stepped.Round(0).Sub(at.Round(0)); stepped.Sub(at) != 0 || wall != time.Duration(seconds)*time.Second {
		t.Fatalf("this version of Go has times of another make: %s was put forward to %s", at, stepped)
	}

	return stepped
}
