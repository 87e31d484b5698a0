package modelserver

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/proto"
)

// maxHistogramBounds is the most bounds of a histogram that is read. vLLM has 22, SGLang 34.
const maxHistogramBounds = 100

// histogramSum is the sum of a histogram over the engines and the models of a page. Its buckets are
// cumulative, as Prometheus has them.
type histogramSum struct {
	name   string    // of the metric
	bounds []float64 // ascending
	counts []float64
	sum    float64
}

// setName takes the name of the metric from that of its first line.
func (h *histogramSum) setName(line []byte) {
	if h.name == "" {
		h.name = strings.TrimSuffix(strings.TrimSuffix(string(line), "_bucket"), "_sum")
	}
}

// add adds a line of the histogram: a bucket with its bound, or a sum.
func (h *histogramSum) add(f metricField, bound []byte, value float64) {
	if (f-firstTokenBucket)%2 == 1 {
		h.sum += value
		return
	}

	le, err := strconv.ParseFloat(string(bound), 64)
	if err != nil || !(le >= 0) { // nor NaN
		return
	}

	i, found := slices.BinarySearch(h.bounds, le)
	switch {
	case found:
		h.counts[i] += value
	case len(h.bounds) <= maxHistogramBounds:
		h.bounds = slices.Insert(h.bounds, i, le)
		h.counts = slices.Insert(h.counts, i, value)
	}
}

// histogram returns a histogram of the page, nil if it has not all of it.
func (p *metricsPage) histogram(f metricField) *proto.Histogram {
	h := p.histograms[(f-firstTokenBucket)/2]
	last := len(h.bounds) - 1
	if last < 1 || last > maxHistogramBounds || !math.IsInf(h.bounds[last], 1) {
		return nil
	}

	out := &proto.Histogram{
		Bounds: h.bounds[:last],
		Counts: make([]int64, last+1),
		Sum:    h.sum,
		Source: h.name,
	}

	before := 0.0
	for i, n := range h.counts {
		out.Counts[i] = int64(max(0, n-before))
		before = max(n, before)
	}

	return out
}
