package worker

import (
	"testing"
	"time"
)

// A worker may get more slots, or fewer, while it leaves.
func TestSlotClock(t *testing.T) {
	t.Parallel()

	begin := time.Now()
	var c slotClock
	c.note(begin, 32)

	for _, step := range []struct {
		after time.Duration
		slots int
		want  int // in the mean until then
	}{
		{0, 32, 32},
		{10 * time.Second, 64, 32},
		{20 * time.Second, 64, 48},
		{30 * time.Second, 8, 53}, // 1,600 slot-seconds in 30 s
		{60 * time.Second, 8, 31}, // 1,840 slot-seconds in 60 s
	} {
		now := begin.Add(step.after)
		if got := c.mean(now); got != step.want {
			t.Errorf("after %s: %d slots in the mean, want %d", step.after, got, step.want)
		}

		c.note(now, step.slots)
	}
}
