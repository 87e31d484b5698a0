package report

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
)

// chartSet are the charts of a page, and what they share. It is the JSON that the script of the
// page draws.
type chartSet struct {
	// Start is when the time of the charts is 0, in seconds of Unix; 0: each run has its own.
	Start int64 `json:"start"`
	// Step is the length of an interval in seconds. Intervals count from 0.
	Step   float64 `json:"step"`
	Spans  []span  `json:"spans"`
	Charts []chart `json:"charts"`
	// Runs are the names of the compared runs, in the order of the lines of each chart.
	Runs []string `json:"runs,omitempty"`
	Note string   `json:"-"` // what the page says below the charts; empty: nothing
}

// span is a time in which no work was done.
type span struct {
	From float64  `json:"from"` // in seconds
	To   float64  `json:"to"`
	Kind spanKind `json:"kind"`
}

// spanKind is the reason why no work was done.
type spanKind string

const (
	spanInterrupted spanKind = "interrupted" // no collector ran
	spanIdle        spanKind = "idle"        // no worker worked
	spanQuiet       spanKind = "quiet"       // either: older metadata does not say
)

// Label says what a span is, in the legend.
func (k spanKind) Label() string {
	switch k {
	case spanInterrupted:
		return "interrupted: no collector was running"
	case spanIdle:
		return "idle: no worker was working"
	}
	return "no worker was working, or no collector was running"
}

// chart is a figure over the time of the run, or the distribution of one over its requests.
type chart struct {
	ID    string    `json:"id"`
	Title string    `json:"title"`
	Kind  chartKind `json:"kind"`
	Lines []line    `json:"lines"`
	// Edges are the bounds of the buckets of a histogram, one more than it has values.
	Edges   []figure `json:"edges,omitempty"`
	Summary string   `json:"-"` // its range in words
	Label   string   `json:"-"` // the same with the names of its lines, for screen readers; empty: Summary
}

// chartKind is how a chart is drawn.
type chartKind string

const (
	chartLines     chartKind = "lines"
	chartBars      chartKind = "bars"      // over time
	chartHistogram chartKind = "histogram" // by bucket
)

// line is one of the lines of a chart, or its bars.
type line struct {
	Name   string   `json:"name"`
	Values []figure `json:"values"` // by interval; NaN: unknown
	Dashed bool     `json:"dashed,omitempty"`
	// Mean is that of the time worked, which the other figures of the report are of; nil: that of Values.
	Mean *float64 `json:"-"`
	// Gaps are the times in which this line is broken, where they are not the spans of the chart set.
	Gaps []span `json:"gaps,omitempty"`
}

// figure is a number that JSON has with four digits, and as null if it is not known.
type figure float64

// MarshalJSON implements [json.Marshaler].
func (f figure) MarshalJSON() ([]byte, error) {
	v := float64(f)
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return []byte("null"), nil
	}
	if math.Abs(v) >= 1000 {
		return strconv.AppendFloat(nil, math.Round(v), 'f', -1, 64), nil
	}

	rounded, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 4, 64), 64)

	return strconv.AppendFloat(nil, rounded, 'f', -1, 64), nil
}

// shortestSeries is the fewest intervals that a chart over time is drawn of.
const shortestSeries = 3

// buildCharts makes the charts of a run; nil if nothing is known of its course.
func buildCharts(run *metadata.Run) *chartSet {
	set := &chartSet{Step: 1, Spans: []span{}}
	if run.Series.Len() >= shortestSeries {
		set.Start, set.Step = run.Series.Start.Unix(), float64(max(1, run.Series.IntervalSeconds))
		gaps := run.Series.Gaps()
		set.Spans = findSpans(run, gaps)
		set.addCourse(run, gaps)
	}

	set.addHistogram("latency-histogram", "Latency, end to end (s)", run.Results.LatencyHistogram)
	if outputRate(run.Results) != nil { // embeddings have none
		set.addHistogram("tokens-histogram", "Output tokens per answer", run.Results.CompletionTokensHistogram)
	}

	if len(set.Charts) == 0 {
		return nil
	}

	return set
}

// addCourse adds the charts over time.
func (set *chartSet) addCourse(run *metadata.Run, gaps []bool) {
	s := run.Series
	column := func(of func(i int) float64) []figure {
		values := make([]figure, s.Len())
		for i := range values {
			values[i] = figure(math.NaN())
			if !gaps[i] {
				values[i] = figure(of(i))
			}
		}
		return values
	}

	rate := func(counts []int64) []figure {
		return column(func(i int) float64 { return float64(counts[i]) / set.Step })
	}
	seconds := func(list []*float64) []figure { return column(func(i int) float64 { return valueAt(list, i, 1) }) }
	counts := func(list []*int64, unit float64) []figure {
		return column(func(i int) float64 { return valueAt(list, i, unit) })
	}

	set.addChart("output-rate", "Output tokens/s", chartLines,
		line{Name: "output tokens/s", Values: rate(s.CompletionTokens), Mean: outputRate(run.Results)})
	set.addChart("request-rate", "Requests/s", chartLines,
		line{Name: "requests/s", Values: rate(s.Requests), Mean: run.Results.ThroughputRequestsPerSec})
	set.addChart("in-flight", "Requests in flight", chartLines,
		line{Name: "in flight", Values: counts(s.InFlight, 1)},
		line{Name: "limit", Values: counts(s.Limit, 1), Dashed: true})
	set.addChart("latency", "Latency of answers (s)", chartLines,
		line{Name: "median", Values: seconds(s.LatencyP50Seconds)},
		line{Name: "p99", Values: seconds(s.LatencyP99Seconds), Dashed: true})
	set.addChart("failures", "Failed requests", chartBars,
		line{Name: "failed", Values: column(func(i int) float64 { return float64(s.Failed[i]) })})
	set.addChart("memory", "GPU memory in use (GiB)", chartLines,
		line{Name: "GiB", Values: counts(s.MemoryUsedBytes, 1<<30)})
}

// valueAt is a reading in a unit; NaN if there is none.
func valueAt[N int64 | float64](list []*N, i int, unit float64) float64 {
	if i >= len(list) || list[i] == nil {
		return math.NaN()
	}
	return float64(*list[i]) / unit
}

// addChart adds a chart of the lines that have more than zeros.
func (set *chartSet) addChart(id, title string, kind chartKind, lines ...line) {
	c := chart{ID: id, Title: title, Kind: kind}
	for _, l := range lines {
		if most, _, ok := describeRange(l); ok && most > 0 {
			c.Lines = append(c.Lines, l)
		}
	}

	if len(c.Lines) == 0 {
		return
	}

	c.Summary = summariseLines(c)
	set.Charts = append(set.Charts, c)
}

// summariseLines says the range of the lines of a chart.
func summariseLines(c chart) (text string) {
	for i, l := range c.Lines {
		most, mean, ok := describeRange(l)
		if !ok {
			continue
		}

		if i > 0 {
			text += "; "
		}
		if len(c.Lines) > 1 {
			text += l.Name + " "
		}

		switch {
		case c.Kind == chartBars:
			text += figures.Count(int64(sumFigures(l.Values))) + " in all"
		case len(c.Lines) > 1:
			text += "up to " + figures.Amount(most)
		default:
			text += "mean " + figures.Amount(mean)
			if peak := peakOf(&most, &mean); peak != nil {
				text += ", up to " + figures.Amount(most)
			}
		}
	}

	return text
}

func sumFigures(values []figure) (sum float64) {
	for _, v := range values {
		if !math.IsNaN(float64(v)) {
			sum += float64(v)
		}
	}
	return sum
}

// describeRange returns the highest and the mean of what is known of a line, if anything is.
func describeRange(l line) (most, mean float64, ok bool) {
	most = math.Inf(-1)
	n := 0
	for _, v := range l.Values {
		if f := float64(v); !math.IsNaN(f) {
			most, mean, n = max(most, f), mean+f, n+1
		}
	}

	mean /= float64(max(n, 1))
	if l.Mean != nil {
		mean = *l.Mean
	}

	return most, mean, n > 0
}

// addHistogram adds the chart of a distribution.
func (set *chartSet) addHistogram(id, title string, h *metadata.Histogram) {
	if h == nil || len(h.Counts) == 0 || len(h.Counts) != len(h.Bounds) {
		return
	}

	first, last := 0, len(h.Counts) // empty buckets at the ends say nothing
	for first < last && h.Counts[first] == 0 {
		first++
	}
	for last > first && h.Counts[last-1] == 0 {
		last--
	}
	if first == last {
		return
	}

	c := chart{ID: id, Title: title, Kind: chartHistogram}
	below := 0.0
	if first > 0 {
		below = h.Bounds[first-1]
	}

	c.Edges = []figure{figure(below)}
	bars := line{Name: "requests"}
	fullest := first
	for i := first; i < last; i++ {
		c.Edges = append(c.Edges, figure(h.Bounds[i]))
		bars.Values = append(bars.Values, figure(h.Counts[i]))
		if h.Counts[i] > h.Counts[fullest] {
			fullest = i
		}
	}

	c.Lines = []line{bars}
	if fullest > 0 {
		below = h.Bounds[fullest-1]
	} else {
		below = 0
	}
	c.Summary = fmt.Sprintf("%s requests, most often %s to %s", figures.Count(int64(sumFigures(bars.Values))),
		figures.Amount(below), figures.Amount(h.Bounds[fullest]))
	set.Charts = append(set.Charts, c)
}

// findSpans returns the times without work: the interruptions that the metadata names, and the gaps
// of the series outside them.
func findSpans(run *metadata.Run, gaps []bool) []span {
	s := run.Series
	step := float64(max(1, s.IntervalSeconds))
	end := float64(s.Len()) * step
	spans := []span{}
	for _, i := range run.Results.InterruptedAt {
		from, to := max(0, i.From.Sub(s.Start).Seconds()), min(end, i.To.Sub(s.Start).Seconds())
		if to > from {
			spans = append(spans, span{math.Round(from*10) / 10, math.Round(to*10) / 10, spanInterrupted})
		}
	}

	kind := spanIdle
	if run.Results.Interruptions > 0 && len(spans) == 0 {
		kind = spanQuiet
	}

	interrupted := spans
	idle := slices.Clone(gaps)
	for i := range idle {
		idle[i] = idle[i] && !isWithin(interrupted, (float64(i)+0.5)*step)
	}

	for _, s := range spansOf(idle, s, kind) {
		// The edge of an interruption within an interval is no time of its own.
		if len(interrupted) == 0 || s.To-s.From >= metadata.Quiet.Seconds() {
			spans = append(spans, s)
		}
	}

	return spans
}

// isWithin reports whether a time is in one of the spans.
func isWithin(spans []span, at float64) bool {
	for _, s := range spans {
		if s.From <= at && at < s.To {
			return true
		}
	}
	return false
}

// Kinds returns the kinds of the spans, each once, for the legend.
func (set *chartSet) Kinds() (kinds []spanKind) {
	for _, kind := range []spanKind{spanInterrupted, spanIdle, spanQuiet} {
		for _, s := range set.Spans {
			if s.Kind == kind {
				kinds = append(kinds, kind)
				break
			}
		}
	}

	return kinds
}

// encode returns the charts as JSON that may stand in a page: json.Marshal escapes what would end
// the element, and names lose what would turn text around.
func (set *chartSet) encode() (string, error) {
	text, err := json.Marshal(set)
	return string(text), err
}
