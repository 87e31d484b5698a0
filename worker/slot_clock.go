package worker

import (
	"math"
	"time"
)

// slotClock measures the mean number of slots over a time.
type slotClock struct {
	begin, last time.Time
	slots       int     // since last
	before      float64 // seconds of all slots together, until last
}

// note takes in the number of slots from now on.
func (c *slotClock) note(now time.Time, slots int) {
	if c.begin.IsZero() {
		c.begin, c.last = now, now
	}

	c.before += float64(c.slots) * now.Sub(c.last).Seconds()
	c.last, c.slots = now, slots
}

// mean returns the mean number of slots until now, rounded.
func (c *slotClock) mean(now time.Time) int {
	elapsed := now.Sub(c.begin)
	if elapsed <= 0 {
		return c.slots
	}

	all := c.before + float64(c.slots)*now.Sub(c.last).Seconds()

	return int(math.Round(all / elapsed.Seconds()))
}
