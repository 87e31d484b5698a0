package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
)

const (
	// comparedPoints are as many intervals as the charts of a comparison have.
	comparedPoints = 400
	// comparedRuns is the number of runs whose lines can be distinguished in a chart.
	comparedRuns = 6
)

// buildComparedCharts lays the courses of runs over each other, each from its own beginning; nil if
// fewer than two have one.
func buildComparedCharts(runs []Named, names []string) *chartSet {
	set := &chartSet{Spans: []span{}}
	var drawn []*metadata.Run
	longest := 0.0
	for i, n := range runs {
		if n.Run.Series.Len() < shortestSeries || len(drawn) == comparedRuns {
			continue
		}

		drawn = append(drawn, n.Run)
		set.Runs = append(set.Runs, joinLines(names[i]))
		longest = max(longest, float64(n.Run.Series.Len()*max(1, n.Run.Series.IntervalSeconds)))
		set.Step = max(set.Step, float64(max(1, n.Run.Series.IntervalSeconds)))
	}

	if len(drawn) < 2 {
		return nil
	}

	set.Step = max(set.Step, math.Ceil(longest/comparedPoints))
	rate := func(counts func(*metadata.Series) []int64) func(*metadata.Series, int) float64 {
		return func(s *metadata.Series, i int) float64 {
			return float64(counts(s)[i]) / float64(max(1, s.IntervalSeconds))
		}
	}

	set.addCompared("output-rate", "Output tokens/s", drawn,
		rate(func(s *metadata.Series) []int64 { return s.CompletionTokens }), outputRate)
	set.addCompared("request-rate", "Requests/s", drawn,
		rate(func(s *metadata.Series) []int64 { return s.Requests }), requestRate)
	set.addCompared("in-flight", "Requests in flight", drawn,
		func(s *metadata.Series, i int) float64 { return valueAt(s.InFlight, i, 1) },
		func(r metadata.Results) *float64 { return r.MeanConcurrentRequests })
	set.addCompared("latency", "Median latency of answers (s)", drawn,
		func(s *metadata.Series, i int) float64 { return valueAt(s.LatencyP50Seconds, i, 1) },
		func(metadata.Results) *float64 { return nil })

	set.Note = "Each run begins at 0."
	if left := len(runs) - len(drawn); left > 0 {
		set.Note += fmt.Sprintf(" Not drawn: %s, without a time series or beyond the first %d.",
			figures.Plural(int64(left), "run"), comparedRuns)
	}

	return set
}

// addCompared adds a chart with a line for each run, or none if too little is known. The means are those
// of the time worked, where they are known.
func (set *chartSet) addCompared(
	id, title string, runs []*metadata.Run, of func(*metadata.Series, int) float64,
	mean func(metadata.Results) *float64,
) {
	c := chart{ID: id, Title: title, Kind: chartLines}
	known := 0
	for i, run := range runs {
		s, gaps := run.Series, run.Series.Gaps()
		l := line{Name: set.Runs[i], Gaps: findSpans(run, gaps)}
		l.Values = resample(s, set.Step, func(s *metadata.Series, i int) float64 {
			if gaps[i] {
				return math.NaN()
			}
			return of(s, i)
		})

		if most, _, ok := describeRange(l); ok {
			l.Mean = mean(run.Results)
			if most > 0 {
				known++
			}
		}

		c.Lines = append(c.Lines, l)
	}

	if known == 0 {
		return
	}

	c.Label, c.Summary = summariseLines(c), "mean "+joinMeans(c.Lines)
	set.Charts = append(set.Charts, c)
}

// joinMeans lists the means of lines in their order.
func joinMeans(lines []line) string {
	var means []string
	for _, l := range lines {
		text := unknown.Text
		if _, mean, ok := describeRange(l); ok {
			text = figures.Amount(mean)
		}
		means = append(means, text)
	}

	return strings.Join(means, ", ")
}

// spansOf returns the spans of the intervals that are gaps.
func spansOf(gaps []bool, s *metadata.Series, kind spanKind) (spans []span) {
	step := float64(max(1, s.IntervalSeconds))
	for i := 0; i < len(gaps); i++ {
		from := i
		for i < len(gaps) && gaps[i] {
			i++
		}
		if i > from {
			spans = append(spans, span{float64(from) * step, float64(i) * step, kind})
		}
	}

	return spans
}

// resample returns the means of the intervals of a series over longer ones.
func resample(s *metadata.Series, step float64, of func(*metadata.Series, int) float64) []figure {
	every := float64(max(1, s.IntervalSeconds))
	values := make([]figure, int(math.Ceil(float64(s.Len())*every/step)))
	for at := range values {
		sum, n := 0.0, 0
		for i := int(float64(at) * step / every); i < s.Len() && float64(i)*every < float64(at+1)*step; i++ {
			if v := of(s, i); !math.IsNaN(v) {
				sum, n = sum+v, n+1
			}
		}

		values[at] = figure(math.NaN())
		if n > 0 {
			values[at] = figure(sum / float64(n))
		}
	}

	return values
}
