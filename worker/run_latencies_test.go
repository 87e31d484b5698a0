package worker

import (
	"testing"
	"time"
)

// repeat returns n equal durations.
func repeat(d time.Duration, n int) (list []time.Duration) {
	for range n {
		list = append(list, d)
	}
	return list
}

// ladder returns 1 to n seconds.
func ladder(n int) (list []time.Duration) {
	for i := range n {
		list = append(list, time.Duration(i+1)*time.Second)
	}
	return list
}

func TestForecastLatency(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name        string
		ended, ages []time.Duration
		mean, bound time.Duration
	}{
		{
			name:  "nothing known",
			mean:  unknownLatency,
			bound: unknownLatency,
		},
		{
			name:  "only requests in flight",
			ages:  []time.Duration{time.Second, 40 * time.Second},
			mean:  80 * time.Second,
			bound: 80 * time.Second,
		},
		{
			name:  "equal ones",
			ended: repeat(30*time.Second, 100),
			mean:  30 * time.Second,
			bound: 31800 * time.Millisecond, // 5% for the server, 1% for the few answers
		},
		{
			name:  "one answer",
			ended: repeat(10*time.Second, 1),
			mean:  10 * time.Second,
			bound: 20500 * time.Millisecond,
		},
		{
			name:  "seven of ten end in time",
			ended: ladder(20),
			mean:  10500 * time.Millisecond,
			bound: 15400 * time.Millisecond, // 14 s, and 10%
		},
		{
			name:  "the first that ended are the short ones",
			ended: ladder(2), // of 8
			ages:  repeat(4*time.Second, 6),
			mean:  1500 * time.Millisecond,
			bound: 12400 * time.Millisecond, // twice the longest so far, and 55%
		},
		{
			name:  "those in flight that are young say little",
			ended: repeat(10*time.Second, 4),
			ages:  repeat(time.Second, 8),
			mean:  10 * time.Second,
			bound: 13 * time.Second, // 30%
		},
	} {
		got := forecastLatency(tt.ended, tt.ages)
		if got.mean.Round(time.Millisecond) != tt.mean || got.bound.Round(time.Millisecond) != tt.bound {
			t.Errorf("%s: mean %s, bound %s, want %s and %s", tt.name, got.mean, got.bound, tt.mean, tt.bound)
		}
	}
}

// Runs and models have latencies of their own. Those in flight count until enough have ended, and old
// latencies are forgotten.
func TestRunLatencies(t *testing.T) {
	t.Parallel()

	var l runLatencies
	short, long := requestKind{"r", "m"}, requestKind{"s", "m"}
	for range 40 {
		l.add(short, time.Second)
		l.add(long, time.Minute)
	}

	old := repeat(time.Hour, 20)
	if got := l.forecast(short, old[:10]).bound; got >= 2*time.Second {
		t.Errorf("with a few in flight %s", got)
	}

	if got := l.forecast(short, old).bound; got < time.Hour {
		t.Errorf("with many in flight %s", got)
	}

	if got := l.forecast(long, nil).mean; got != time.Minute {
		t.Errorf("another run has a mean of %s", got)
	}

	for range maxLatencies {
		l.add(short, 2*time.Second)
	}

	if got := l.forecast(short, old).mean; got != 2*time.Second {
		t.Errorf("the mean of the latest ones is %s", got)
	}

	l.retainRuns(func(run string) bool { return run == "s" })

	if len(l.byKind) != 1 || l.byKind[long] == nil {
		t.Errorf("%d kinds after the end of a run", len(l.byKind))
	}
}
