package collector

import (
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// addServerLatency adds the latencies that the model servers of a run's workers measured. Workers whose
// servers measure none are left out.
func addServerLatency(r *metadata.Results, sessions []journal.WorkerSession, created time.Time) {
	var first, further []proto.Histogram
	for _, s := range sessions {
		if s.Usage == nil || s.ServerLatency == nil {
			continue
		}

		before := s.LatencyBefore
		switch {
		case before == nil && s.Since.Before(created):
			continue // what it measured before the run is unknown
		case before == nil:
			before = &proto.ServerLatency{}
		}

		first = appendGrowth(first, s.ServerLatency.TimeToFirstToken, before.TimeToFirstToken, s.Platform)
		further = appendGrowth(further, s.ServerLatency.TimePerOutputToken, before.TimePerOutputToken, s.Platform)
	}

	r.TimeToFirstTokenSeconds = distributionOf(first)
	r.TimePerOutputTokenSeconds = distributionOf(further)
}

// appendGrowth appends what a histogram, which may be nil, has grown by. platform names it where it has no
// name of its own.
func appendGrowth(list []proto.Histogram, now, before *proto.Histogram, platform string) []proto.Histogram {
	if now == nil || len(now.Bounds) == 0 || len(now.Counts) != len(now.Bounds)+1 || !slices.IsSorted(now.Bounds) {
		return list
	}

	grown := *now
	grown.Counts = slices.Clone(now.Counts)
	if grown.Source == "" {
		grown.Source = platform
	}

	if before != nil && slices.Equal(before.Bounds, now.Bounds) && len(before.Counts) == len(now.Counts) {
		for i, n := range before.Counts {
			grown.Counts[i] = max(0, grown.Counts[i]-n)
		}
		grown.Sum = max(0, grown.Sum-before.Sum)
	}

	return append(list, grown)
}

// distributionOf returns the distribution of all durations of histograms, or nil without one. Their bounds
// may differ: in each bucket the durations count as spread evenly.
func distributionOf(list []proto.Histogram) *metadata.ServerDistribution {
	var (
		d       metadata.ServerDistribution
		sum     float64
		bounds  = []float64{0}
		sources []string
	)
	for _, h := range list {
		n := int64(0)
		for _, c := range h.Counts {
			n += c
		}

		if n > 0 {
			d.Count += n
			sum += h.Sum
			sources = append(sources, h.Source)
			bounds = append(bounds, h.Bounds...)
		}
	}

	if d.Count == 0 {
		return nil
	}

	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	slices.Sort(sources)

	d.Mean = sum / float64(d.Count)
	d.Source = strings.Join(slices.Compact(sources), ", ")

	d.P50 = quantileOf(list, bounds, 0.5*float64(d.Count))
	d.P90 = quantileOf(list, bounds, 0.9*float64(d.Count))
	d.P99 = quantileOf(list, bounds, 0.99*float64(d.Count))

	return &d
}

// quantileOf returns the duration that so many durations do not exceed. Beyond the last bound it is
// unknown, and that bound is returned.
func quantileOf(list []proto.Histogram, bounds []float64, rank float64) float64 {
	before := 0.0
	for i, bound := range bounds {
		n := 0.0
		for _, h := range list {
			n += countUpTo(h, bound)
		}

		if n >= rank && i > 0 {
			share := 0.0 // those up to the bound before, which may be 0, are enough
			if before < rank {
				share = (rank - before) / (n - before)
			}

			return bounds[i-1] + (bound-bounds[i-1])*share
		}
		before = n
	}

	return bounds[len(bounds)-1]
}

// countUpTo returns the number of durations of a histogram up to a bound.
func countUpTo(h proto.Histogram, bound float64) (n float64) {
	lowest := 0.0
	for i, b := range h.Bounds {
		if bound < b {
			return n + float64(h.Counts[i])*max(0, bound-lowest)/(b-lowest)
		}

		n += float64(h.Counts[i])
		lowest = b
	}

	return n
}
