package http1

import (
	"testing"
	"time"
)

// A server that is fast at times, and right, is soon no longer doubted for it: the more often
// that was seen, the longer it is remembered.
func TestRecordFalseAlarm(t *testing.T) {
	t.Parallel()

	var tm timing
	slow := func() (answers int) {
		for ; tm.isFast(); answers++ {
			tm.recordTime(20 * time.Millisecond)
		}
		return answers
	}

	slow()

	last := 0
	for range 5 {
		tm.recordFalseAlarm(time.Millisecond)
		if !tm.isFast() {
			t.Fatal("a server that was fast counts as slow")
		}

		answers := slow()
		if answers < last*3/2 {
			t.Errorf("forgotten after %d answers, %d the time before", answers, last)
		}

		last = answers
	}

	tm.recordFalseAlarm(50 * time.Millisecond)
	if tm.leastNanos.Load() > int64(20*time.Millisecond) {
		t.Error("a slow answer has raised the least time")
	}
}
