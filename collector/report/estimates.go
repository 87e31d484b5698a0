package report

import (
	"fmt"
	"math"
	"time"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/metadata"
)

// estimated is an estimate of how long a number of requests would take.
type estimated = estimate.Estimate

// addEstimate makes the estimates once, since rules use them too.
func (b *builder) addEstimate() {
	counts := b.Estimates
	if len(counts) == 0 {
		counts = DefaultEstimates
	}

	run := newEstimateRun(b.run)
	for _, n := range counts {
		b.estimates = append(b.estimates, estimate.Of(run, n, b.Workers))
	}
}

// newEstimateRun returns the input of the estimates.
func newEstimateRun(m *metadata.Run) estimate.Run {
	run := estimate.Run{Requests: countRequests(m), Seconds: m.Results.InferenceTimeSeconds, Workers: len(m.Workers)}
	for _, w := range m.Workers {
		if w.Requests == nil || m.Results.InferenceTimeSeconds <= 0 {
			run.WorkerRates = nil
			break
		}
		run.WorkerRates = append(run.WorkerRates, float64(*w.Requests)/m.Results.InferenceTimeSeconds)
	}

	if d := m.Results.LatencySeconds; d != nil {
		run.MeanLatency, run.MaxLatency = d.Mean, d.Max
	}

	if mean := m.Results.MeanConcurrentRequests; mean != nil {
		run.Concurrency = *mean
	}

	if peak := m.Results.PeakConcurrentRequests; peak != nil {
		run.Concurrency = max(run.Concurrency, float64(*peak))
	}

	if m.Series.Len() == 0 {
		return run
	}

	gaps, inFlight := findGaps(m.Series), 1.0
	for i := range m.Series.Len() {
		p := m.Series.At(i)
		point := estimate.Point{Seconds: float64(m.Series.IntervalSeconds), Done: float64(p.Requests)}
		if p.InFlight != nil && *p.InFlight > 0 {
			inFlight = float64(*p.InFlight)
		}
		if !gaps[i] { // not each interval has a reading: the last one holds
			point.InFlight = inFlight
		}

		run.Points = append(run.Points, point)
	}

	trimPoints(run.Points, m)

	return run
}

// trimPoints shortens the first interval and the last by their parts before the run and
// after it. Intervals begin at whole seconds, and runs do not. The time of the work
// leaves out the seconds before it, so that too much may seem to be after the run: the
// rest of the last interval is no faster than the fastest of the others.
func trimPoints(points []estimate.Point, m *metadata.Run) {
	first, last := &points[0], &points[len(points)-1]
	if before := m.Timestamp.Sub(m.Series.Start).Seconds(); before > 0 && before < first.Seconds {
		first.Seconds -= before
	}

	r := m.Results
	end := m.Timestamp.Add(time.Duration((r.InferenceTimeSeconds + valueOrZero(r.IdleTimeSeconds) +
		valueOrZero(r.LostTimeSeconds)) * float64(time.Second)))
	over := m.Series.Start.Add(time.Duration(len(points)*m.Series.IntervalSeconds) * time.Second).Sub(end).Seconds()
	if over <= 0 || over >= last.Seconds {
		return
	}

	fastest := 0.0
	for _, p := range points[:len(points)-1] {
		fastest = max(fastest, p.Done/p.Seconds)
	}

	left := last.Seconds - over
	if fastest > 0 {
		left = max(left, min(last.Seconds, last.Done/fastest))
	}

	last.Seconds = left
}

func valueOrZero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}

// buildEstimates estimates the time of other numbers of requests.
func buildEstimates(b *builder) Section {
	s := Section{ID: "estimates", Title: "Estimates", Columns: newColumns("Time", "90% interval", "Naive")}
	s.Columns[0].Name = "Requests"

	if b.run.Results.SuccessCount == 0 { // how soon requests fail is no speed
		return Section{}
	}

	for _, e := range b.estimates {
		naive := unknown
		if e.Naive > 0 {
			naive = figureCell(&e.Naive, formatDuration)
		}

		if e.Problem != estimate.NoProblem {
			s.addRow(formatCount(int64(e.Requests)), textCell("no estimate"), textCell("none"), naive)
			continue
		}

		s.addRow(formatCount(int64(e.Requests)), figureCell(&e.Median, formatDuration),
			textCell(formatDuration(e.Low)+" to "+formatDuration(e.High)), naive)
	}

	if text := explainNoEstimate(b); text != "" {
		s.addNote("%s", text)
	}

	s.addNote("%s", describeWorkers(b))
	s.addNote("The naive figure stretches the time of this run, as if it had no start-up and no tail.")

	return s
}

// describeWorkers names the workers that the estimates are for.
func describeWorkers(b *builder) string {
	had := int64(len(b.run.Workers))
	switch {
	case b.Workers > 0 && had > 0 && int64(b.Workers) != had:
		return fmt.Sprintf("For %s; the run had %s. It is taken that they share no bottleneck. Loading the model is left out.",
			formatPlural(int64(b.Workers), "worker"), formatCount(had))
	case had > 0:
		return fmt.Sprintf("For %s, as the run had. Loading the model is left out.", formatPlural(had, "worker"))
	}

	return "For the workers that the run had. Loading the model is left out."
}

// explainNoEstimate returns why there is no estimate, and which run would give one; empty if
// there is one.
func explainNoEstimate(b *builder) string {
	if len(b.estimates) == 0 || b.estimates[0].Problem == estimate.NoProblem || b.run.Results.SuccessCount == 0 {
		return ""
	}

	e := b.estimates[0]
	var text string
	switch e.Problem {
	case estimate.TooFew:
		text = isOrAre(int64(countRequests(b.run))) + " too few for an estimate"
	case estimate.NoSeries:
		return "No estimate is possible: the metadata has no time series, so the rate may have been anything on the way."
	default:
		text = "The run was at a steady rate for too short a time for an estimate"
	}

	if e.Needed > 0 {
		text += fmt.Sprintf(": a run of %s would do", formatPlural(int64(e.Needed), "request"))
	}

	return text + "."
}

// isOrAre begins a sentence about a number of requests; small numbers are words there.
func isOrAre(n int64) string {
	small := []string{
		"No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve",
	}
	switch {
	case n == 1:
		return "One request is"
	case n < int64(len(small)):
		return small[n] + " requests are"
	}

	return formatCount(n) + " requests are"
}

// speedInterval returns how much faster run is than the baseline, in requests per second:
// an interval that holds the difference nine times in ten were both run again. It is
// known if both runs are long enough to be estimated. The errors of the two estimates
// are independent, so their logarithms add as squares do.
func speedInterval(run, baseline *metadata.Run) (low, high float64, ok bool) {
	a := estimate.Of(newEstimateRun(run), countRequests(run), 0)
	b := estimate.Of(newEstimateRun(baseline), countRequests(baseline), 0)
	if run.Results.SuccessCount == 0 || baseline.Results.SuccessCount == 0 || a.Problem != estimate.NoProblem ||
		b.Problem != estimate.NoProblem || min(a.Low, b.Low) <= 0 {
		return 0, 0, false
	}

	middle := math.Log(float64(a.Requests) / a.Median / (float64(b.Requests) / b.Median))
	slower := math.Hypot(math.Log(a.High/a.Median), math.Log(b.Median/b.Low))
	faster := math.Hypot(math.Log(a.Median/a.Low), math.Log(b.High/b.Median))

	return math.Expm1(middle - slower), math.Expm1(middle + faster), true
}
