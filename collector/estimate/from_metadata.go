package estimate

import (
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
)

// FromMetadata returns the input of an estimate from the metadata of a run. Without a series it has no points.
func FromMetadata(m *metadata.Run) Run {
	run := Run{
		Requests: m.Results.CountSent(),
		Seconds:  m.Results.InferenceTimeSeconds,
		Workers:  len(m.Workers),
	}
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

	run.Points = make([]Point, 0, m.Series.Len())
	gaps, inFlight := m.Series.Gaps(), 1.0
	for i := range m.Series.Len() {
		p := m.Series.At(i)
		point := Point{Seconds: float64(m.Series.IntervalSeconds), Done: float64(p.Requests)}
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
func trimPoints(points []Point, m *metadata.Run) {
	first, last := &points[0], &points[len(points)-1]
	if before := m.Timestamp.Sub(m.Series.Start).Seconds(); before > 0 && before < first.Seconds {
		first.Seconds -= before
	}

	r := m.Results
	end := m.Timestamp.Add(time.Duration((r.InferenceTimeSeconds + metadata.OrZero(r.IdleTimeSeconds) +
		metadata.OrZero(r.LostTimeSeconds)) * float64(time.Second)))
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
