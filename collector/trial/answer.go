package trial

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/quality"
)

const (
	// narrow is the widest interval of a difference whose ends are called equal: beyond it, nothing can be said.
	narrow = 0.1
	// longestReason is the most of a reason that the answer quotes, in characters.
	longestReason = 240
)

// findAnswer says what the trial has found: how the best variant stands to the next one, and how long a job takes with
// the chosen one.
func (r *Result) findAnswer() string {
	best := r.best()
	if best == nil {
		return r.answerNothing()
	}

	if r.Tuning != nil && r.Chosen != "" {
		return r.answerTuning()
	}

	rivals := r.rivals(best)
	text := r.compareInWords(best, rivals)
	if clause := r.estimateInWords(r.find(r.Chosen), len(rivals) > 0); clause != "" {
		text += "; " + clause
	}

	return r.beginAnswer() + text + "."
}

// answerTuning is the answer of a search for settings.
func (r *Result) answerTuning() string {
	text := r.Tuning.inWords(r.Done)
	if clause := r.estimateInWords(r.find(r.Chosen), false); clause != "" {
		text += "; " + clause
	}

	if begin := r.beginAnswer(); begin != "" {
		return begin + text + "."
	}

	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// listFindings says what follows besides the answer: the variants behind the best, and what was not measured.
func (r *Result) listFindings() (list []string) {
	add := func(text string) {
		if text != "" {
			list = append(list, text)
		}
	}
	if best := r.best(); best != nil {
		rivals := r.rivals(best)
		add(r.describeGoal())
		if r.Tuning == nil {
			add(r.describeNext(best, rivals))
			add(r.describeUnsure(rivals))
		}
		add(r.describeBeside(best))
	}

	add(r.describeWrong())
	add(r.describeMissing(Failed, "failed"))
	add(r.describeMissing(Skipped, "not run"))

	return list
}

// beginAnswer says of a trial that is not done how far it is.
func (r *Result) beginAnswer() string {
	if r.Done {
		return ""
	}

	own, ended := 0, 0
	for _, row := range r.Variants {
		if row.Beside {
			continue
		}

		own++
		if row.State.HasEnded() {
			ended++
		}
	}

	return fmt.Sprintf("So far, with %s of %s ended: ", figures.Word(int64(ended)), figures.Plural(int64(own), "variant"))
}

// rivals are the variants of this trial behind the best one that can be compared with it by the goal, in order.
func (r *Result) rivals(best *Row) (list []*Row) {
	for i := range r.Variants {
		row := &r.Variants[i]
		if row == best || row.Beside || row.Speed == nil || row.State == Failed ||
			r.effectiveGoal() == Best && row.QualityDifference == nil ||
			r.effectiveGoal() == Cost && row.CostDifference == nil {
			continue
		}

		list = append(list, row)
	}

	return list
}

// problem is the reason why the difference of a row from the best says nothing by the goal.
func (r *Result) problem(row *Row) estimate.Problem {
	if r.effectiveGoal() == Best || row.SpeedDifference == nil {
		return estimate.NoProblem
	}
	return row.SpeedDifference.Problem
}

// isReal reports whether a row differs from the best by the goal.
func (r *Result) isReal(row *Row) bool {
	switch r.effectiveGoal() {
	case Best:
		return row.QualityDifference != nil && row.QualityDifference.IsReal()
	case Cost:
		return row.CostDifference != nil && row.CostDifference.Real
	}
	return row.SpeedDifference != nil && row.SpeedDifference.Real
}

// listEqual returns the rivals that the goal does not distinguish from the best.
func (r *Result) listEqual(rivals []*Row) (list []*Row) {
	for _, row := range rivals {
		if r.problem(row) == estimate.NoProblem && !r.isReal(row) {
			list = append(list, row)
		}
	}
	return list
}

// chooseVariant returns the name of the variant to take: the best by the goal, or of those that are equal to it the one
// that is better otherwise.
func (r *Result) chooseVariant() string {
	best := r.best()
	if best == nil {
		return ""
	}

	if r.Tuning != nil {
		return r.Tuning.Winner
	}

	chosen, most := best, 0.0
	for _, row := range r.listEqual(r.rivals(best)) {
		gain := 0.0
		switch d, s := row.QualityDifference, row.SpeedDifference; {
		case r.effectiveGoal() != Best && d != nil && d.Low > 0:
			gain = d.Mean
		case r.effectiveGoal() == Best && s != nil && s.Real:
			gain = s.Ratio - 1
		}

		if gain > most {
			chosen, most = row, gain
		}
	}

	return chosen.Name
}

// compareInWords is the outcome: a clause without its full stop.
func (r *Result) compareInWords(best *Row, rivals []*Row) string {
	known := slices.IndexFunc(rivals, func(row *Row) bool { return r.problem(row) == estimate.NoProblem })
	equal := r.listEqual(rivals)
	switch {
	case len(rivals) == 0:
		return r.describeAlone(best)
	case known < 0:
		return r.describeProblem(best, rivals[0])
	case len(equal) > 0:
		return r.describeEqual(best, equal)
	}

	next := rivals[known]
	switch r.effectiveGoal() {
	case Best:
		return r.describeBetter(best, next)
	case Cost:
		return r.describeCheaper(best, next)
	}

	return fmt.Sprintf("%s: %s %s", best.shortName(), moreThroughput(invert(*next.SpeedDifference), next.shortName()),
		r.describeOtherwise(best, next))
}

// describeAlone has the figures of the only variant that can be compared.
func (r *Result) describeAlone(best *Row) string {
	parts := []string{describeRate(best)}
	if best.OutputTokensPerSec != nil {
		parts = append(parts, figures.Amount(*best.OutputTokensPerSec)+" output tokens/s")
	}

	text := fmt.Sprintf("%s: %s", best.shortName(), strings.Join(parts, " and "))
	text += fmt.Sprintf(", %s answered", figures.Share(int64(best.Success.Count), int64(best.Success.Of)))
	if q, ok := best.qualityOf(r.Measure); ok {
		text += ", " + r.describeQuality(q)
	}

	if best.Speed.Problem != estimate.NoProblem {
		text += "; " + explainProblem(best) + " for an interval"
	}

	return text
}

// describeRate is the rate of a variant with its interval.
func describeRate(row *Row) string {
	if row.Speed.Problem != estimate.NoProblem {
		return figures.Amount(row.Speed.Mean) + " requests/s on average"
	}
	return fmt.Sprintf("%s requests/s (%s to %s)",
		figures.Amount(row.Speed.Rate), figures.Amount(row.Speed.Low), figures.Amount(row.Speed.High))
}

// describeQuality is a quality with its interval.
func (r *Result) describeQuality(q quality.Difference) string {
	if r.Measure == Scored {
		return fmt.Sprintf("mean score %s (%s to %s)",
			figures.Fixed(q.Mean, 2), figures.Fixed(q.Low, 2), figures.Fixed(q.High, 2))
	}

	what := map[Measure]string{Right: "right", Formed: "of the wanted form"}[r.Measure]

	return fmt.Sprintf("%s %s (%s to %s)", percent(q.Mean), what, percent(q.Low), percent(q.High))
}

// describeProblem compares two variants whose difference says nothing, and says why.
func (r *Result) describeProblem(best, next *Row) string {
	ratio := next.SpeedDifference.Ratio
	slower, faster := next, best
	if ratio > 1 {
		slower, faster, ratio = best, next, 1/ratio
	}

	first := next
	if best.Speed.Problem == estimate.TooFew && next.Speed.Problem != estimate.TooFew ||
		next.Speed.Problem == estimate.NoProblem {
		first = best
	}

	return fmt.Sprintf("%s was %s slower than %s, but %s to say so", slower.shortName(), percent(1-ratio), faster.shortName(),
		explainProblem(first)) + describeNeeded(first)
}

// explainProblem says what is too little of a variant; "to say so" or the like continues it.
func explainProblem(row *Row) string {
	switch row.Speed.Problem {
	case estimate.TooFew:
		if row.Requests >= row.Speed.Needed { // of all of its time, not of that which counts
			return "too few requests of " + row.shortName() + " ended while it was measured"
		}
		if row.Requests == 1 {
			return "one request of " + row.shortName() + " is too few"
		}
		return fmt.Sprintf("%s requests of %s are too few", figures.Word(int64(row.Requests)), row.shortName())
	case estimate.NoSeries:
		return "the metadata of " + row.shortName() + " lacks the time series"
	}

	return "the steady part of the run of " + row.shortName() + " is too short"
}

// describeNeeded says how many requests would do.
func describeNeeded(row *Row) string {
	if row.Speed.Needed <= row.Requests {
		return ""
	}
	return fmt.Sprintf(" (%s would do)", figures.Count(int64(row.Speed.Needed)))
}

// describeEqual names the variants that are equal by the goal, and the most that they may differ by.
func (r *Result) describeEqual(best *Row, equal []*Row) string {
	names, within := []string{best.shortName()}, 0.0
	low, high := math.Inf(1), math.Inf(-1)
	for _, row := range equal {
		names = append(names, row.shortName())
		from, to := r.differenceBounds(row)
		low, high = min(low, from), max(high, to)
		within = max(within, math.Abs(from), math.Abs(to))
	}

	text := ""
	amount := func(v float64) string { return percent(v) }
	words := map[Goal]string{Throughput: "equally fast", Cost: "equally cheap", Best: "equally good"}[r.effectiveGoal()]
	if r.effectiveGoal() == Best {
		amount = r.amountOfQuality
	}

	if within <= narrow {
		text = fmt.Sprintf("%s are %s as far as this trial shows: within %s", joinNames(names), words, amount(within))
	} else {
		text = fmt.Sprintf("Which of %s is %s cannot be said: against %s, the difference is between %s and %s", joinNames(names),
			map[Goal]string{Throughput: "fastest", Cost: "cheapest", Best: "best"}[r.effectiveGoal()], best.shortName(),
			signed(low, amount), signed(high, amount))
	}

	if chosen := r.find(r.Chosen); chosen != nil && chosen != best {
		text += fmt.Sprintf("; %s has %s", chosen.shortName(), r.describeGain(chosen))
	}

	return text
}

// differenceBounds is the interval of how much more a row is than the best by the goal.
func (r *Result) differenceBounds(row *Row) (low, high float64) {
	switch r.effectiveGoal() {
	case Best:
		return row.QualityDifference.Low, row.QualityDifference.High
	case Cost:
		return row.CostDifference.Low - 1, row.CostDifference.High - 1
	}
	return row.SpeedDifference.Low - 1, row.SpeedDifference.High - 1
}

// describeGain is why a variant was chosen over one that is equal by the goal.
func (r *Result) describeGain(chosen *Row) string {
	if r.effectiveGoal() == Best {
		return moreThroughput(*chosen.SpeedDifference, r.best().shortName())
	}
	return r.describeQualityDifference(*chosen.QualityDifference)
}

// describeBetter says that the best variant has better answers than the next.
func (r *Result) describeBetter(best, next *Row) string {
	q, _ := best.qualityOf(r.Measure)
	d := negate(*next.QualityDifference)

	low, _, _ := strings.Cut(r.amountOfQuality(d.Low), " point") // the unit stands after the second number
	text := fmt.Sprintf("%s has the best answers: %s, %s more than %s (%s to %s)", best.shortName(), r.describeQuality(q),
		r.amountOfQuality(d.Mean), next.shortName(), low, r.amountOfQuality(d.High))
	if s := next.SpeedDifference; s != nil && s.Real {
		text += ", with " + moreThroughput(invert(*s), "it")
	}

	return text
}

// describeCheaper says that the best variant costs less than the next.
func (r *Result) describeCheaper(best, next *Row) string {
	d := invert(*next.CostDifference)

	return fmt.Sprintf("%s is the cheapest: %s per 1,000 answers, %s less than %s (%s to %s), %s", best.shortName(),
		r.prices.Format(*best.CostPer1000Answers), percent(1-d.Ratio), next.shortName(), percent(1-d.High),
		percent(1-d.Low), r.describeOtherwise(best, next))
}

// describeOtherwise compares success and quality.
func (r *Result) describeOtherwise(best, next *Row) string {
	text := "at the same success rate"
	mine := figures.Share(int64(best.Success.Count), int64(best.Success.Of))
	its := figures.Share(int64(next.Success.Count), int64(next.Success.Of))
	if d := compareSuccess(best, next); d.IsReal() && mine != its {
		text = fmt.Sprintf("with %s answered instead of %s", mine, its)
	}

	if d := next.QualityDifference; d != nil {
		text += " and " + r.describeQualityDifference(negate(*d))
	}

	return text
}

// describeQualityDifference is how much better answers are, after "and".
func (r *Result) describeQualityDifference(d quality.Difference) string {
	what := map[Measure]string{Right: "accuracy", Scored: "mean score", Formed: "share of the wanted form"}[r.Measure]
	if !d.IsReal() {
		return fmt.Sprintf("the same %s within %s", what, r.amountOfQuality(max(math.Abs(d.Low), math.Abs(d.High))))
	}

	if r.Measure == Right {
		return fmt.Sprintf("%s %s accuracy", r.amountOfQuality(d.Mean),
			map[bool]string{true: "more", false: "less"}[d.Mean > 0])
	}

	return fmt.Sprintf("a %s %s by %s", what, map[bool]string{true: "higher", false: "lower"}[d.Mean > 0],
		r.amountOfQuality(d.Mean))
}

// amountOfQuality is the size of a difference in quality.
func (r *Result) amountOfQuality(d float64) string {
	if r.Measure == Scored {
		return figures.TrimZeros(figures.Fixed(math.Abs(d), 3))
	}
	return points(d)
}

// estimateInWords is the time of the largest job that the chosen variant gives an estimate of.
func (r *Result) estimateInWords(chosen *Row, named bool) string {
	if chosen == nil {
		return ""
	}

	var largest *Estimate
	for i, e := range chosen.Estimates {
		if e.Problem == estimate.NoProblem && (largest == nil || e.Requests > largest.Requests) {
			largest = &chosen.Estimates[i]
		}
	}

	if largest == nil {
		return ""
	}

	text := figures.Plural(int64(largest.Requests), "request") + " in " + figures.Range(largest.Low, largest.High)
	switch n := countCards(chosen.Run); {
	case n == 1:
		text += " on this card"
	case n > 1:
		text += fmt.Sprintf(" on these %d cards", n)
	}

	if best := r.best(); named && (chosen != best || len(r.listEqual(r.rivals(best))) > 0) {
		text += " with " + chosen.shortName()
	}

	return text
}
