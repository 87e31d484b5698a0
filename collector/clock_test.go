package collector

import (
	"os"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto/prototest"
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

// Of the time in which nobody collected, that until the last result in it was not lost.
func TestTimeLost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		during []uint32 // requests that were answered while nobody collected
		lost   bool
	}{
		{"nobody was at work", nil, true},
		{"workers went on", []uint32{3, 4, 5}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 9, 16<<20)
			j := open(t, b.out.Journal())
			appendFrame(t, j, 1, 0, 1, 2)
			must(t, j.append(header{Run: "r", At: time.Now().Add(-time.Hour).UTC()}, nil, nil))
			must(t, j.Close())
			before := j.State().Worked
			rest := []uint32{3, 4, 5, 6, 7, 8}[len(tt.during):]
			if len(tt.during) > 0 {
				b.publish("0-1", tt.during...)
			}
			size := j.size
			c := b.start()
			prototest.Poll(t, patience, "the session in the journal", func() bool {
				info, err := os.Stat(b.out.Journal())
				return err == nil && info.Size() > size
			})
			b.publish("0-2", rest...)
			r := b.finish(c).Results
			hour := time.Hour.Seconds()
			worked, lost := r.InferenceTimeSeconds-before.Seconds(), *r.LostTimeSeconds
			if tt.lost && (lost < hour || worked > 60) || !tt.lost && (worked < hour || lost > 60) || worked < 0 || lost < 0 {
				t.Errorf("of an hour, %.1f s are lost and %.1f s worked", lost, worked)
			}
			if r.Interruptions != 1 {
				t.Errorf("%d interruptions", r.Interruptions)
			}
		})
	}
}
