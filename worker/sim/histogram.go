package sim

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// The bounds of vLLM's histograms, in seconds (vllm/v1/metrics/loggers.py).
var (
	firstTokenBounds = []float64{
		0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
		2560,
	}
	interTokenBounds = []float64{
		0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
	}
)

// histogram counts times by buckets.
type histogram struct {
	bounds []float64
	counts []int64 // the last for what is above all bounds
	sum    time.Duration
}

func newHistogram(bounds []float64) histogram {
	return histogram{bounds: bounds, counts: make([]int64, len(bounds)+1)}
}

// add counts a time n times.
func (h *histogram) add(d time.Duration, n int) {
	i, _ := slices.BinarySearch(h.bounds, d.Seconds())
	h.counts[i] += int64(n)
	h.sum += d * time.Duration(n)
}

// clone returns a copy.
func (h histogram) clone() histogram {
	h.counts = slices.Clone(h.counts)
	return h
}

// write writes the histogram as Prometheus does. labels are the text between the braces.
func (h histogram) write(w io.Writer, name, labels string) {
	fmt.Fprintf(w, "# TYPE %s histogram\n", name)

	n := int64(0)
	for i, bound := range h.bounds {
		n += h.counts[i]
		fmt.Fprintf(w, "%s_bucket{%s,le=\"%g\"} %d\n", name, labels, bound, n)
	}

	n += h.counts[len(h.bounds)]
	fmt.Fprintf(w, "%s_bucket{%s,le=\"+Inf\"} %d\n%s_count{%s} %d\n%s_sum{%s} %g\n",
		name, labels, n, name, labels, n, name, labels, h.sum.Seconds())
}
