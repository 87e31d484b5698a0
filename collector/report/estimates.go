package report

import (
	"fmt"
	"math"
	"slices"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/internal/figures"
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

	run := estimate.FromMetadata(b.run)
	for _, n := range counts {
		b.estimates = append(b.estimates, estimate.Of(run, n, b.Workers))
	}
}

func valueOrZero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}

// fleets are the numbers of workers that estimates are made for, beside that of the run: what one
// would get next.
var fleets = []int{1, 2, 4}

// listFleets returns the numbers of workers to estimate for, in order.
func (b *builder) listFleets() []int {
	had := len(b.run.Workers)
	if had == 0 { // the rate of one worker is unknown
		return []int{b.Workers}
	}

	list := append([]int{had}, fleets...)
	if b.Workers > 0 {
		list = append(list, b.Workers)
	}

	slices.Sort(list)

	return slices.Compact(list)
}

// buildEstimates estimates the time of other numbers of requests with some numbers of workers, and
// their cost.
func buildEstimates(b *builder) Section {
	s := Section{ID: "estimates", Title: "Estimates"}
	if b.run.Results.SuccessCount == 0 || len(b.estimates) == 0 { // how soon requests fail is no speed
		return Section{}
	}

	if b.estimates[0].Problem != estimate.NoProblem {
		return b.stretchEstimates(s)
	}

	fleets := b.listFleets()
	s.Columns = []Column{{Name: "Requests"}}
	for _, n := range fleets {
		s.Columns = append(s.Columns, Column{Name: b.nameFleet(n), Number: true})
	}
	s.Columns = append(s.Columns, costColumns()...)

	run := estimate.FromMetadata(b.run)
	for _, known := range b.estimates {
		var cells []Cell
		for _, n := range fleets {
			e := known
			if n != known.Workers && n != 0 {
				e = estimate.Of(run, known.Requests, n)
			}
			cells = append(cells, intervalCell(e))
		}

		s.AddRow(figures.Count(int64(known.Requests)),
			append(cells, estimateCosts(b.run, b.Prices, known.Requests)...)...)
	}

	s.AddNote("Each time is followed by its 90%% interval. Loading the model is left out.")
	if len(fleets) > 1 {
		s.AddNote("A worker is one model server with its GPUs. Other numbers of workers than the run's %s assume that they share no bottleneck.",
			figures.Count(int64(len(b.run.Workers))))
	}

	if note := b.Prices.unitNote(); note != "" {
		s.AddNote("%s", note)
	}

	return s
}

// costColumns are the columns of [estimateCosts].
func costColumns() []Column {
	return []Column{{Name: "Energy cost", Number: true}, {Name: "Cost at an API", Number: true}}
}

// estimateCosts are the costs of a number of requests like those of the run: of the energy, and at
// an API.
func estimateCosts(run *metadata.Run, p Prices, requests int) []Cell {
	had := float64(countRequests(run))
	scale := func(v *float64) *float64 {
		if v == nil || had == 0 {
			return nil
		}
		return new(*v * float64(requests) / had)
	}

	energy, api := unknown, unknown
	if p.KWh != nil {
		energy = p.moneyCell(scale(energyCost(run.Results.EnergyJoules, *p.KWh)))
	}
	if p.In != nil || p.Out != nil {
		api = p.moneyCell(scale(p.OfTokens(run.Results)))
	}

	return []Cell{energy, api}
}

// intervalCell is the cell of an estimate and its interval.
func intervalCell(e estimated) Cell {
	if e.Problem != estimate.NoProblem {
		return unknown
	}
	return Cell{
		Text:  figures.Around(e.Median, e.Low, e.High),
		Value: new(e.Median),
	}
}

// nameFleet names a number of workers at the head of a column.
func (b *builder) nameFleet(n int) string {
	switch had := len(b.run.Workers); {
	case n == 0:
		return "Workers of the run"
	case n == had:
		return figures.Plural(int64(n), "worker") + ", as in the run"
	}
	return figures.Plural(int64(n), "worker")
}

// stretchEstimates shows, where the run gives no estimate, what its mean rate would make of other
// numbers of requests.
func (b *builder) stretchEstimates(s Section) Section {
	s.Columns = append([]Column{{Name: "Requests"}, {Name: "At this run's mean rate", Number: true}}, costColumns()...)
	for _, e := range b.estimates {
		naive := unknown
		if e.Naive > 0 {
			naive = FigureCell(&e.Naive, figures.Duration)
		}
		s.AddRow(figures.Count(int64(e.Requests)),
			append([]Cell{naive}, estimateCosts(b.run, b.Prices, e.Requests)...)...)
	}

	s.AddNote("%s", explainNoEstimate(b))
	if len(s.Rows) > 0 {
		s.AddNote("The times assume that the mean rate of this run holds: they are no estimates, and leave out how it starts and ends.")
	}

	return s
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
		return "No estimate is possible: the metadata has no time series, so how the rate changed is not known."
	default:
		text = "The run was too short at a steady rate for an estimate"
	}

	if e.Needed > 0 {
		text += fmt.Sprintf(": a run of %s would be enough", figures.Plural(int64(e.Needed), "request"))
	}

	return text + "."
}

// isOrAre begins a sentence about a number of requests; small numbers are words there.
func isOrAre(n int64) string {
	if n == 1 {
		return "One request is"
	}
	return upperFirst(figures.Word(n)) + " requests are"
}

// speedInterval returns how much faster run is than the baseline, in requests per second:
// an interval that holds the difference nine times in ten were both run again. It is
// known if both runs are long enough to be estimated. The errors of the two estimates
// are independent, so their logarithms add as squares do.
func speedInterval(run, baseline *metadata.Run) (low, high float64, ok bool) {
	a := estimate.Of(estimate.FromMetadata(run), countRequests(run), 0)
	b := estimate.Of(estimate.FromMetadata(baseline), countRequests(baseline), 0)
	if run.Results.SuccessCount == 0 || baseline.Results.SuccessCount == 0 || a.Problem != estimate.NoProblem ||
		b.Problem != estimate.NoProblem || min(a.Low, b.Low) <= 0 {
		return 0, 0, false
	}

	middle := math.Log(float64(a.Requests) / a.Median / (float64(b.Requests) / b.Median))
	slower := math.Hypot(math.Log(a.High/a.Median), math.Log(b.Median/b.Low))
	faster := math.Hypot(math.Log(a.Median/a.Low), math.Log(b.High/b.Median))

	return math.Expm1(middle - slower), math.Expm1(middle + faster), true
}
