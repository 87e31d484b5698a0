package worker

import (
	"slices"
	"sync/atomic"
	"time"
)

const (
	// leastCutOffTime is the time below which an attempt ends for another reason.
	leastCutOffTime = time.Second
	// cutOffTolerance is the share by which two times may differ that count as the same.
	cutOffTolerance = 0.05
	// cutOffJitter is the time by which they may always differ.
	cutOffJitter = 100 * time.Millisecond
	// cutOffsToDetect is the number of attempts of the same length that show a time limit.
	cutOffsToDetect = 3
	// cutOffsCompared is the number of attempts that are compared.
	cutOffsCompared = 16
)

// cutoffDetector finds the time limit of a proxy in front of the server: several attempts end
// without an answer after the same time, while no answer takes longer. The lock of cutoffs guards
// its fields that are not atomic.
type cutoffDetector struct {
	// limit is the time that is left for an answer, as a [time.Duration]; 0: no limit is known.
	limit atomic.Int64
	// watching is true if a limit is known, or ages may show one.
	watching atomic.Bool
	// ages are the times after which attempts ended without an answer.
	ages []time.Duration
	// latest is the time at which an attempt was last cut off.
	latest time.Time
}

// recordLost records an attempt that ended without an answer. It reports whether the attempt was
// cut off, and whether that shows a new limit.
func (d *cutoffDetector) recordLost(took time.Duration, timedOut bool) (cut, isNew bool) {
	if took < leastCutOffTime {
		return false, false
	}

	if timedOut || d.limit.Load() > 0 {
		d.latest = time.Now()
	}

	if d.matchesLimit(took, timedOut) {
		return true, false
	}

	d.watching.Store(true)
	if len(d.ages) == cutOffsCompared {
		d.ages = d.ages[1:]
	}

	d.ages = append(d.ages, took)
	limit, found := d.findLimit(took)
	if !found {
		return false, false
	}

	d.limit.Store(int64(limit))
	d.ages, d.latest = nil, time.Now()

	return true, true
}

// findLimit returns the smallest of several ages that are the same as took.
func (d *cutoffDetector) findLimit(took time.Duration) (limit time.Duration, found bool) {
	sorted := slices.Sorted(slices.Values(d.ages))
	for i := 0; i+cutOffsToDetect <= len(sorted); i++ {
		first, last := sorted[i], sorted[i+cutOffsToDetect-1]
		if sameDuration(first, last) && first <= took && took <= last {
			return first, true
		}
	}

	return 0, false
}

// recordAnswer records an answer. One that took longer than the limit shows that there is none,
// or none any more: recordAnswer reports whether one was known.
func (d *cutoffDetector) recordAnswer(took time.Duration) (limitGone bool) {
	d.ages = slices.DeleteFunc(d.ages, func(age time.Duration) bool { return age < took })

	limit := time.Duration(d.limit.Load())
	limitGone = limit > 0 && took > limit && !sameDuration(limit, took)
	if limitGone {
		d.limit.Store(0)
	}

	d.watching.Store(d.limit.Load() > 0 || len(d.ages) > 0)

	return limitGone
}

// matchesLimit reports whether an attempt that ended without an answer was cut off, if a limit is
// known. timedOut is true if its status is that of a time limit.
func (d *cutoffDetector) matchesLimit(took time.Duration, timedOut bool) bool {
	limit := time.Duration(d.limit.Load())
	return limit > 0 && (sameDuration(limit, took) || timedOut && took > limit)
}

// sameDuration reports whether two times are the same, as time limits go.
func sameDuration(a, b time.Duration) bool {
	return (a - b).Abs() <= max(cutOffJitter, time.Duration(cutOffTolerance*float64(min(a, b))))
}
