package worker

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// maxLatencies is the number of the latest latencies that are kept of a kind of request: two rounds
	// of the most slots that servers have.
	maxLatencies = 2048

	// latencyQuantile is the part of the requests, 0 to 1, that end within the time that a request
	// needs. It weighs a slot that stays idle against an attempt that is thrown away: that takes the
	// time of the slot as well, and energy and tokens, and the request ends later than at another
	// worker. Here a second of it counts as much as two idle ones (0.7 against 0.3). With a notice of
	// 120 s, requests of 30 s on average use 0.85 of the time in slots if all are equal, and none is
	// thrown away; log-normal ones use 0.81 with a sigma of 0.3, and throw 0.02 away, and 0.67 with a
	// sigma of 1, and throw 0.20 away. A quantile of 0.9 would use 0.76 at a sigma of 0.3, and throw
	// 0.01 away.
	latencyQuantile = 0.7

	// latencyMargin is the part by which a request may take longer than those before it.
	latencyMargin = 0.05

	// unknownLatency is the least time that a request needs of a kind of which none has ended.
	unknownLatency = time.Minute
)

// requestKind names requests that are expected to take about as long: those of one run for one model.
type requestKind struct{ run, model string }

// runLatencies has the latest latencies of the answered requests, by kind.
type runLatencies struct {
	// mu guards the fields below.
	mu     sync.Mutex
	byKind map[requestKind]*recentLatencies
}

// recentLatencies are the latest latencies of one kind of request.
type recentLatencies struct {
	ring  []time.Duration
	next  int
	total int // since the worker began
}

// latencyForecast has the expected latency of the next request of a kind.
type latencyForecast struct {
	mean time.Duration

	// bound is the time within which it ends, as latencyQuantile says, with the margin.
	bound time.Duration
}

// add takes in an answered request.
func (l *runLatencies) add(kind requestKind, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()

	r := l.byKind[kind]
	if r == nil {
		if l.byKind == nil {
			l.byKind = map[requestKind]*recentLatencies{}
		}

		r = &recentLatencies{}
		l.byKind[kind] = r
	}

	r.total++
	if len(r.ring) < maxLatencies {
		r.ring = append(r.ring, took)
		return
	}

	r.ring[r.next] = took
	r.next = (r.next + 1) % maxLatencies
}

// retainRuns drops the latencies of the runs for which wanted is false: they are over.
func (l *runLatencies) retainRuns(wanted func(run string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.byKind, func(kind requestKind, _ *recentLatencies) bool { return !wanted(kind.run) })
}

// forecast predicts the time that the next request of a kind takes. ages are the times that those in
// flight have taken until now.
func (l *runLatencies) forecast(kind requestKind, ages []time.Duration) latencyForecast {
	l.mu.Lock()
	defer l.mu.Unlock()

	r := l.byKind[kind]
	if r == nil {
		r = &recentLatencies{}
	}

	// The first requests that end are the short ones, so those in flight count as well. Later they
	// need not: among those that end, short and long ones are as frequent as among those that begin.
	if r.total > len(r.ring) || r.total >= 4*len(ages) {
		ages = nil
	}

	return forecastLatency(r.ring, ages)
}

// forecastLatency is forecast with the latencies of those that have ended.
func forecastLatency(ended, ages []time.Duration) latencyForecast {
	longest := time.Duration(0)
	sum := time.Duration(0)
	for _, d := range ended {
		sum += d
		longest = max(longest, d)
	}
	for _, d := range ages {
		longest = max(longest, d)
	}

	bound, known := survivalQuantile(ended, ages, 1-latencyQuantile)
	switch {
	case len(ended) == 0:
		guess := max(unknownLatency, 2*longest)
		return latencyForecast{mean: guess, bound: guess}
	case !known: // too many are in flight longer than those that have ended
		bound = 2 * longest
	}

	// A few answers say little about the longest: the next one takes longer than all of n with a
	// probability of 1/(n+1).
	margin := latencyMargin + 1/float64(len(ended))
	mean := sum / time.Duration(len(ended))

	return latencyForecast{mean: max(mean, 1), bound: bound + time.Duration(float64(bound)*margin)}
}

// survivalQuantile returns the time after which at most rest, 0 to 1, of the requests are still in
// flight; false if that cannot be said yet. Those that have ended took the times of ended, and those
// in flight at least ages. (Kaplan and Meier, Nonparametric estimation from incomplete observations,
// 1958.)
func survivalQuantile(ended, ages []time.Duration, rest float64) (time.Duration, bool) {
	type observation struct {
		took  time.Duration
		ended bool
	}

	all := make([]observation, 0, len(ended)+len(ages))
	for _, d := range ended {
		all = append(all, observation{d, true})
	}
	for _, d := range ages {
		all = append(all, observation{d, false})
	}

	slices.SortFunc(all, func(a, b observation) int { return cmp.Compare(a.took, b.took) })

	surviving := 1.0
	for i, o := range all {
		if !o.ended {
			continue
		}

		atRisk := float64(len(all) - i)
		surviving *= 1 - 1/atRisk
		if surviving <= rest+1e-9 {
			return o.took, true
		}
	}

	return 0, false
}
