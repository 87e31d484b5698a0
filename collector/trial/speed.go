package trial

import (
	"slices"
	"time"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/metadata"
)

const (
	// usual is the confidence of the intervals that people see.
	usual = 0.9
	// sure is the confidence of a difference that is called real.
	sure = 0.99
	// certain is the confidence of what ends a variant early. It is looked at each second, and a wrong look would drop
	// the best for good.
	certain = 0.999
)

// Speed is what is known of the speed of a variant, in answered requests per second.
type Speed struct {
	// Low and High hold the rate nine times in ten, and Rate is as often too low as too high. All are zero where there
	// is a Problem.
	Rate float64 `json:"rate"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	// Mean is the mean rate of the run, or of its rounds if it took turns, also where there is a problem.
	Mean float64 `json:"mean"`

	// Problem is the reason why there is no interval, and Needed the number of requests that would give one.
	Problem estimate.Problem `json:"problem,omitempty"`
	Needed  int              `json:"needed,omitempty"`

	estimated   estimate.Rate
	least, most float64 // the interval at the certain level; zero: unknown, as in a speed that was read from a file
}

// MeasureSpeed returns the speed of the steady part of the run of a variant, ended or so far. With rounds, only what
// was measured in them counts. Without, the times count in which the server was full.
func MeasureSpeed(v Variant) Speed {
	run := v.Run
	if run == nil {
		run = &metadata.Run{}
	}

	var s Speed
	if worked := run.Results.InferenceTimeSeconds; worked > 0 {
		s.Mean = float64(run.Results.SuccessCount) / worked
	}

	part := measuredPart(answeredRun(run), v)
	if done, seconds := (&spell{points: part.Points}).sum(); len(v.Rounds) > 0 && seconds > 0 {
		s.Mean = done / seconds // a run counts as worked on in short pauses
	}

	r := estimate.RateOf(part, usual)
	s.estimated = r
	s.Rate, s.Low, s.High, s.Problem, s.Needed = r.Median, r.Low, r.High, r.Problem, r.Needed

	// A rate that has grown, as that of a server that warms up, is taken to be what it has become by now.
	surely := r.At(certain)
	if r.Growth > 0 {
		s.least, s.most = surely.Low*min(1, r.Growth), surely.High*max(1, r.Growth)
	}

	return s
}

// IsPrecise reports whether the interval is narrower than a part of the rate, such as 0.05.
func (s Speed) IsPrecise(precision float64) bool {
	return s.Problem == estimate.NoProblem && s.Rate > 0 && s.High-s.Low <= precision*s.Rate
}

// IsBeaten reports whether the speed is below that of the best for certain: the intervals at 99.9 % do not touch. A
// speed that was read from a file is neither beaten nor beats another.
func (s Speed) IsBeaten(best Speed) bool { return s.most > 0 && s.most < best.least }

// answeredRun returns the input of an estimate of answered requests: failed ones are left out.
func answeredRun(run *metadata.Run) estimate.Run {
	in := estimate.FromMetadata(run)
	in.Requests = run.Results.SuccessCount
	for i := range in.Points {
		in.Points[i].Done = max(0, in.Points[i].Done-float64(run.Series.Failed[i]))
	}

	return in
}

// measuredPart returns the part of the input of an estimate that shows the speed of the full server of a variant.
func measuredPart(in estimate.Run, v Variant) estimate.Run {
	if len(in.Points) == 0 {
		return in
	}

	points := make([]estimate.Point, 0, len(in.Points))
	for _, spell := range listSpells(in, v) {
		points = append(points, spell.points...)
	}

	in.Points, in.Seconds, in.Requests, in.CutOff = points, 0, 0, true
	for _, p := range points {
		in.Requests += int(p.Done)
	}

	return in
}

// spell is a time in which the server was kept full.
type spell struct {
	round  int // 0: none
	points []estimate.Point
}

// settle leaves out the points of the beginning, in which the requests that were sent at once end together: as many as
// a request takes, and at most half.
func (s *spell) settle(latency float64) {
	_, seconds := s.sum()
	left := min(latency, seconds/2)
	for len(s.points) > 0 && left >= s.points[0].Seconds/2 {
		left -= s.points[0].Seconds
		s.points = s.points[1:]
	}
}

func (s *spell) sum() (done, seconds float64) {
	for _, p := range s.points {
		done, seconds = done+p.Done, seconds+p.Seconds
	}
	return done, seconds
}

// listSpells returns the times in which the server was full: in the rounds, or between pauses.
func listSpells(in estimate.Run, v Variant) []spell {
	points, full := in.Points, findFull(v.Run, in, v.MeasuredUntil)

	var spells []spell
	for _, r := range v.Rounds {
		spells = append(spells, spell{r.Number, pointsOf(r, v.Run.Series, points, full)})
	}

	if len(v.Rounds) == 0 {
		for from := 0; from < len(full); {
			to := from + 1
			for to < len(full) && full[to] == full[from] {
				to++
			}

			if full[from] {
				spells = append(spells, spell{points: points[from:to]})
			}

			from = to
		}
	}

	for i := range spells {
		spells[i].settle(in.MeanLatency)
	}

	return spells
}

// pointsOf returns the points that are wholly in a round. In a round that has none it is the one with the largest part
// in it, as if its requests had been spread evenly.
func pointsOf(r Round, s *metadata.Series, points []estimate.Point, full []bool) []estimate.Point {
	width := time.Duration(s.IntervalSeconds) * time.Second

	var whole []estimate.Point
	var most time.Duration
	var part estimate.Point
	first := max(0, int(r.From.Sub(s.Start)/width))
	for i := first; i < len(points); i++ {
		p, from := points[i], s.Start.Add(time.Duration(i)*width)
		if !from.Before(r.To) {
			break
		}

		inside := min(from.Add(width).Sub(r.From), r.To.Sub(from), r.To.Sub(r.From), width)
		switch {
		case !full[i]:
		case inside == width:
			whole = append(whole, p)
		case inside > most:
			share := inside.Seconds() / width.Seconds()
			most, part = inside, estimate.Point{Seconds: p.Seconds * share, Done: p.Done * share, InFlight: p.InFlight}
		}
	}

	if len(whole) == 0 && most > 0 {
		return []estimate.Point{part}
	}

	return whole
}

// lowest is the part of the usual number of requests in flight below which the server is not full.
const lowest = 0.5

// findFull reports for each point whether the server was full: there was neither a pause nor an interruption, the
// workers had found how many requests it takes at once, the requests in flight were not far fewer than usual, there
// were more to send, and enough was not known yet.
func findFull(run *metadata.Run, in estimate.Run, until time.Time) []bool {
	s := run.Series
	full := make([]bool, s.Len())
	gaps, level := s.Gaps(), lowest*usualLoad(s)
	load := level
	for i := range full {
		if n := s.InFlight[i]; n != nil {
			load = float64(*n)
		}
		full[i] = !gaps[i] && load >= level
	}

	clearSearch(s, full)

	width := time.Duration(s.IntervalSeconds) * time.Second
	if !until.IsZero() {
		for i := range full {
			full[i] = full[i] && !s.Start.Add(time.Duration(i+1)*width).After(until)
		}
	}

	for _, gone := range run.Results.InterruptedAt {
		for i := range full {
			from := s.Start.Add(time.Duration(i) * width)
			if from.Before(gone.To) && from.Add(width).After(gone.From) {
				full[i] = false
			}
		}
	}

	clearTail(run, in, full)

	return full
}

// clearSearch clears the points in which the workers sent far fewer requests at once than they do by now: they were
// still finding how many the server takes, and a longer run has more of what came after.
func clearSearch(s *metadata.Series, full []bool) {
	const found = 0.75 // of the latest limit; a search doubles it

	known := slices.DeleteFunc(slices.Clone(s.Limit), func(n *int64) bool { return n == nil })
	if len(known) == 0 {
		return
	}

	limit, latest := *known[0], *known[len(known)-1]
	for i := range full {
		if s.Limit[i] != nil {
			limit = *s.Limit[i]
		}
		full[i] = full[i] && float64(limit) >= found*float64(latest)
	}
}

// clearTail clears the points in which fewer requests were left than fit at once.
func clearTail(run *metadata.Run, in estimate.Run, full []bool) {
	fit := max(in.Concurrency, usualLoad(run.Series))
	left := float64(max(0, run.Test.NumRequests-in.Requests))
	for i := len(full) - 1; i >= 0 && left < fit; i-- {
		full[i] = false
		left += float64(run.Series.Requests[i])
	}
}

// usualLoad is the median of the requests in flight where there were any; 0: unknown.
func usualLoad(s *metadata.Series) float64 {
	var loads []int64
	for _, n := range s.InFlight {
		if n != nil && *n > 0 {
			loads = append(loads, *n)
		}
	}

	if len(loads) == 0 {
		return 0
	}

	slices.Sort(loads)

	return float64(loads[len(loads)/2])
}
