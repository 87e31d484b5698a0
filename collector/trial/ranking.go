package trial

import (
	"cmp"
	"math"
	"slices"

	"github.com/promptmill/promptmill/collector/quality"
)

// findMeasure returns the measure that says most of those that are known of any variant.
func (r *Result) findMeasure() Measure {
	for _, m := range []Measure{Right, Scored, Formed} {
		for i := range r.Variants {
			if _, ok := r.Variants[i].qualityOf(m); ok {
				return m
			}
		}
	}
	return ""
}

// effectiveGoal is the goal, or throughput where what it needs is not known of any variant.
func (r *Result) effectiveGoal() Goal {
	hasCost := slices.ContainsFunc(r.Variants, func(row Row) bool { return row.CostPer1000Answers != nil })
	if r.Goal == Best && r.Measure == "" || r.Goal == Cost && !hasCost {
		return Throughput
	}
	return r.Goal
}

// rankVariants sorts the variants by the goal, then by speed. Those without a speed come last, by their states.
func (r *Result) rankVariants() {
	goal := r.effectiveGoal()
	last := map[State]int{Running: 1, Waiting: 2, Failed: 3, Skipped: 4}
	value := func(row *Row) float64 {
		if row.Speed == nil {
			return math.Inf(-1)
		}

		switch goal {
		case Best:
			if q, ok := row.qualityOf(r.Measure); ok {
				return q.Mean
			}
			return -1
		case Cost:
			if row.CostPer1000Answers != nil {
				return -*row.CostPer1000Answers
			}
			return -math.MaxFloat64
		}

		return row.Speed.rate()
	}

	slices.SortStableFunc(r.Variants, func(a, b Row) int {
		if a.Speed == nil && b.Speed == nil {
			return cmp.Compare(last[a.State], last[b.State])
		}
		return cmp.Or(cmp.Compare(value(&b), value(&a)), cmp.Compare(speedOf(&b), speedOf(&a)))
	})
}

// speedOf is the rate of a row; 0: not known.
func speedOf(row *Row) float64 {
	if row.Speed == nil {
		return 0
	}
	return row.Speed.rate()
}

// best returns the first of the variants of this trial that has a speed, and has not failed: one whose server died does
// not do the job. nil: there is none.
func (r *Result) best() *Row {
	for i := range r.Variants {
		if row := &r.Variants[i]; !row.Beside && row.Speed != nil && row.State != Failed {
			return row
		}
	}
	return nil
}

// compareWithBest sets the differences of all variants from the best one.
func (r *Result) compareWithBest(o Options) {
	best := r.best()
	if best == nil {
		return
	}

	for i := range r.Variants {
		row := &r.Variants[i]
		if row == best || row.Speed == nil {
			continue
		}

		d := CompareSpeeds(row.Variant, best.Variant)
		row.SpeedDifference = &d
		row.CostDifference = compareCosts(row, best)
		row.QualityDifference = r.compareQuality(row, best, o)
	}
}

// compareCosts is the cost of a row over that of the best. Costs are as sure as speeds, to which they are inverse.
func compareCosts(row, best *Row) *Difference {
	mine, its := row.CostPer1000Answers, best.CostPer1000Answers
	if mine == nil || its == nil || *mine <= 0 || *its <= 0 {
		return nil
	}

	d := *row.SpeedDifference
	d.Ratio = *mine / *its
	if _, off, _ := compareLogs(row.Variant, best.Variant); off != nil {
		d = newDifference(math.Log(d.Ratio), off)
		d.Paired = row.SpeedDifference.Paired
	}

	return &d
}

// compareQuality is the quality of a row less that of the best: over the same requests if the answers were compared,
// else that of two independent shares.
func (r *Result) compareQuality(row, best *Row, o Options) *quality.Difference {
	a, knownA := row.qualityOf(r.Measure)
	b, knownB := best.qualityOf(r.Measure)
	if !knownA || !knownB {
		return nil
	}

	by := map[Measure]quality.Measure{Right: quality.ByExpected, Scored: quality.ByScore, Formed: quality.BySchema}
	if c, ok := findAgreement(o.Agreement, row.Name, best.Name); ok && c.Difference != nil && c.By == by[r.Measure] {
		return c.Difference
	}

	return new(subtract(a, b))
}

// subtract is the difference of two independent means with its interval (Newcombe 1998, method 10): the distances of
// the two from their bounds add as squares do.
func subtract(a, b quality.Difference) quality.Difference {
	d := a.Mean - b.Mean

	return quality.Difference{
		Mean: d,
		Low:  d - math.Hypot(a.Mean-a.Low, b.High-b.Mean),
		High: d + math.Hypot(a.High-a.Mean, b.Mean-b.Low),
	}
}

// compareSuccess is the share of answered requests of a less that of b.
func compareSuccess(a, b *Row) quality.Difference {
	of := func(s *quality.Share) quality.Difference {
		return quality.Difference{Mean: s.Share, Low: s.Low, High: s.High}
	}
	return subtract(of(a.Success), of(b.Success))
}
