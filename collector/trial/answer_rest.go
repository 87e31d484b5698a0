package trial

import (
	"fmt"
	"math"
	"strings"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/quality"
)

// answerNothing is the answer of a trial without a speed.
func (r *Result) answerNothing() string {
	states := map[State]int{}
	for _, row := range r.Variants {
		if !row.Beside {
			states[row.State]++
		}
	}

	switch {
	case len(r.Variants) == 0:
		return "The trial has no variants."
	case states[Waiting]+states[Running] > 0:
		return "No variant has been measured so far."
	}

	return "No variant was measured."
}

// describeNext names the first variant behind those that are equal to the best; empty if none are equal.
func (r *Result) describeNext(best *Row, rivals []*Row) string {
	if len(r.listEqual(rivals)) == 0 {
		return ""
	}

	for _, row := range rivals {
		if r.problem(row) == estimate.NoProblem && r.isReal(row) {
			return fmt.Sprintf("%s is next, %s %s.", row.shortName(), r.describeGap(row), best.shortName())
		}
	}

	return ""
}

// describeUnsure names the variants whose speed cannot be compared while that of others can.
func (r *Result) describeUnsure(rivals []*Row) string {
	var unsure []string
	for _, row := range rivals {
		if r.problem(row) != estimate.NoProblem {
			unsure = append(unsure, row.shortName())
		}
	}

	if len(unsure) == 0 || len(unsure) == len(rivals) {
		return ""
	}

	return fmt.Sprintf("The speed of %s is too unsure to compare.", joinNames(unsure))
}

// describeGap is how far a variant is behind the best, whose name continues it.
func (r *Result) describeGap(row *Row) string {
	switch r.effectiveGoal() {
	case Best:
		return r.amountOfQuality(row.QualityDifference.Mean) + " behind"
	case Cost:
		return percent(row.CostDifference.Ratio-1) + " dearer than"
	}
	return percent(1-row.SpeedDifference.Ratio) + " slower than"
}

// describeBeside names the fastest of the variants of other trials that is faster than the best of this one.
func (r *Result) describeBeside(best *Row) string {
	for i := range r.Variants {
		row := &r.Variants[i]
		if !row.Beside || row.SpeedDifference == nil || !row.SpeedDifference.Real || row.SpeedDifference.Ratio <= 1 {
			continue
		}
		return fmt.Sprintf("%s, which was put beside, had %s.", row.shortName(), moreThroughput(*row.SpeedDifference, best.shortName()))
	}

	return ""
}

// describeMissing says which variants are in a state without figures, and why.
func (r *Result) describeMissing(state State, words string) string {
	var names []string
	reason := ""
	for _, row := range r.Variants {
		if row.State != state || row.Beside {
			continue
		}

		if len(names) == 0 {
			reason = strings.TrimRight(shorten(row.Reason, longestReason), ". ")
		}
		names = append(names, row.shortName())
	}

	if len(names) == 0 {
		return ""
	}

	if state == Skipped {
		words = map[bool]string{true: "was ", false: "were "}[len(names) == 1] + words
	}

	text := joinNames(names) + " " + words
	switch {
	case reason != "" && len(names) == 1:
		text += ": " + reason
	case reason != "":
		text += "; " + names[0] + ": " + reason
	}

	if strings.HasSuffix(text, "…") {
		return text
	}

	return text + "."
}

// describeWrong shows a wrong answer of the first variant that has no right one: more often than the model, the form of
// its answers is the reason.
func (r *Result) describeWrong() string {
	for i := range r.Variants {
		row := &r.Variants[i]
		q := row.Quality
		if q != nil && q.Expected != nil && q.Expected.Of > 0 && q.Expected.Count == 0 && q.Wrong != nil {
			return "No answer of " + row.shortName() + " is right: " + quoteWrong(*q.Wrong) + "."
		}
	}

	return ""
}

// quoteWrong quotes a wrong answer.
func quoteWrong(w quality.Wrong) string {
	return fmt.Sprintf("to %s, %q is expected, and the answer is %q", shorten(w.CustomID, longestLabel), w.Expected, w.Text)
}

// describeGoal says why the variants are not ranked by the goal.
func (r *Result) describeGoal() string {
	if r.effectiveGoal() == r.Goal {
		return ""
	}

	what := map[Goal]string{
		Cost: "Costs are not known, for want of prices",
		Best: "The quality of the answers is not known",
	}[r.Goal]

	return what + ", so the variants are ranked by throughput."
}

// moreThroughput compares a throughput with that of another variant.
func moreThroughput(d Difference, of string) string {
	switch {
	case d.Ratio >= 0.5 && d.Ratio < 1:
		return fmt.Sprintf("%s less throughput than %s (%s to %s)", percent(1-d.Ratio), of, percent(1-d.High), percent(1-d.Low))
	case d.Ratio >= 1 && d.Ratio < 1.2:
		return fmt.Sprintf("%s more throughput than %s (%s to %s)", percent(d.Ratio-1), of, percent(d.Low-1), percent(d.High-1))
	}

	decimals := 2
	switch {
	case d.Ratio >= 10:
		decimals = 0
	case d.High-d.Low >= 0.1:
		decimals = 1
	}

	return fmt.Sprintf("%s times the throughput of %s (%s to %s)", figures.Fixed(d.Ratio, decimals), of,
		figures.Fixed(d.Low, decimals), figures.Fixed(d.High, decimals))
}

// invert is the difference of the second from the first.
func invert(d Difference) Difference {
	low, high := 0.0, 0.0
	if d.Low > 0 && d.High > 0 {
		low, high = 1/d.High, 1/d.Low
	}
	d.Ratio, d.Low, d.High = 1/d.Ratio, low, high

	return d
}

// negate is the difference of the second from the first.
func negate(d quality.Difference) quality.Difference {
	return quality.Difference{Mean: -d.Mean, Low: -d.High, High: -d.Low}
}

// percent writes a part in percent, without its sign.
func percent(v float64) string {
	p := 100 * math.Abs(v)
	if p >= 9.95 {
		return figures.Fixed(p, 0) + "%"
	}
	return figures.TrimZeros(figures.Fixed(p, 1)) + "%"
}

// points writes a difference of two shares, without its sign.
func points(v float64) string {
	p := figures.TrimZeros(figures.Fixed(100*math.Abs(v), 1))
	if p == "1" {
		return "1 point"
	}
	return p + " points"
}

// signed writes a difference with a word for its sign.
func signed(v float64, amount func(float64) string) string {
	if v < 0 {
		return amount(v) + " less"
	}
	return amount(v) + " more"
}

// joinNames lists names in a sentence; of more than four the first three.
func joinNames(names []string) string {
	const most = 4
	if n := len(names) - most + 1; len(names) > most {
		return strings.Join(names[:most-1], ", ") + fmt.Sprintf(" and %d others", n)
	}

	if len(names) < 2 {
		return strings.Join(names, "")
	}

	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// shorten is the beginning of a text of at most n characters, with the sign of what is left out.
func shorten(text string, n int) string {
	if runes := []rune(text); len(runes) > n {
		return strings.TrimRight(string(runes[:n-1]), " ") + "…"
	}
	return text
}

// countCards is the number of cards of a run.
func countCards(run *metadata.Run) int {
	if run == nil {
		return 0
	}

	n, seen := 0, map[string]bool{} // several workers may see a card
	for _, w := range run.Workers {
		for _, g := range w.GPUs {
			if g.UUID == "" || !seen[g.UUID] {
				n++
			}
			seen[g.UUID] = true
		}
	}

	return n
}
