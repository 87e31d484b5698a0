package collector

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name         string
		seconds      []float64 // at which somebody was at work
		worked, idle float64
	}{
		{"always at work", []float64{1, 5, 14}, 14, 0},
		{"never", nil, 0, 0},
		{"the model loads first", []float64{100, 101, 103}, 3, 100},
		{"a pause in the middle", []float64{1, 2, 60, 61}, 3, 58},
		{"two results out of order", []float64{2, 1, 3}, 3, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newClock(begin)
			var got times
			for i, s := range tt.seconds {
				k.work(begin.Add(time.Duration(s * float64(time.Second))))
				if i%2 == 0 {
					d := k.take()
					got.worked, got.idle = got.worked+d.worked, got.idle+d.idle
				}
			}
			d := k.take()
			got.worked, got.idle = got.worked+d.worked, got.idle+d.idle
			if got.worked.Seconds() != tt.worked || got.idle.Seconds() != tt.idle {
				t.Errorf("worked %v and idle %v, want %v s and %v s", got.worked, got.idle, tt.worked, tt.idle)
			}
		})
	}
}
