package trial

import (
	"math"
	"slices"

	"github.com/promptmill/promptmill/collector/estimate"
)

// fewestPairs is the number of common rounds from which on two variants are compared round by round.
const fewestPairs = 5

// Difference is how the speeds of two variants compare.
type Difference struct {
	// Ratio is how many times the rate of the second the first one has; 0: unknown. Low and High hold it nine times in
	// ten; they are zero where there is a Problem.
	Ratio float64 `json:"ratio"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	// Real reports that even the 99 % interval leaves out 1. It is that strict since a trial compares many variants,
	// and each was measured until it looked precise.
	Real bool `json:"real"`
	// Paired reports that rounds were compared in pairs, so that a drift of the machine hits both alike.
	Paired bool `json:"paired,omitempty"`

	// Problem is the reason why there is no interval: then Ratio is that of the mean rates. Needed is the number of
	// requests that would give one; 0: unknown.
	Problem estimate.Problem `json:"problem,omitempty"`
	Needed  int              `json:"needed,omitempty"`
}

// CompareSpeeds compares the speed of a with that of b: by their common rounds if there are at least five, else as two
// rates with independent errors.
func CompareSpeeds(a, b Variant) Difference {
	if log, off, isPaired := compareLogs(a, b); off != nil {
		d := newDifference(log, off)
		d.Paired = isPaired
		return d
	}

	mine, its := MeasureSpeed(a), MeasureSpeed(b)
	d := Difference{Problem: mine.Problem, Needed: max(mine.Needed, its.Needed)}
	if d.Problem == estimate.NoProblem {
		d.Problem = its.Problem
	}
	if its.Mean > 0 {
		d.Ratio = mine.Mean / its.Mean
	}

	return d
}

// compareLogs returns the log of the speed of a over that of b, and how far off it is at most at a confidence; nil: not
// known. isPaired reports that rounds were compared in pairs.
func compareLogs(a, b Variant) (log float64, off func(confidence float64) float64, isPaired bool) {
	if logs := pairRounds(a, b); len(logs) >= fewestPairs {
		log, off = meanLog(logs)
		return log, off, true
	}

	mine, its := MeasureSpeed(a), MeasureSpeed(b)
	if mine.Problem != estimate.NoProblem || its.Problem != estimate.NoProblem {
		return 0, nil, false
	}

	off = func(confidence float64) float64 {
		a, b := mine.estimated.At(confidence), its.estimated.At(confidence)
		return math.Hypot(math.Log(a.High/a.Median), math.Log(b.High/b.Median))
	}

	return math.Log(mine.Rate / its.Rate), off, false
}

// newDifference returns a difference of which the log is known up to off at a confidence.
func newDifference(log float64, off func(confidence float64) float64) Difference {
	d := Difference{Ratio: math.Exp(log), Low: math.Exp(log - off(usual)), High: math.Exp(log + off(usual))}
	d.Real = math.Abs(log) > off(sure)

	return d
}

// meanLog returns the mean of the logs of the ratios of rounds, and how far off it is at most, by Student's interval.
func meanLog(logs []float64) (mean float64, off func(confidence float64) float64) {
	n := float64(len(logs))
	var sum, squares float64
	for _, x := range logs {
		sum += x
	}

	for _, x := range logs {
		squares += (x - sum/n) * (x - sum/n)
	}

	return sum / n, func(confidence float64) float64 {
		return estimate.StudentT(estimate.NormalPoint(confidence), n-1) * math.Sqrt(squares/(n-1)/n)
	}
}

// pairRounds returns the log of the ratio of the rates of two variants in each of their common rounds.
func pairRounds(a, b Variant) (logs []float64) {
	rates := rateRounds(b)
	for number, rate := range rateRounds(a) {
		if its, ok := rates[number]; ok {
			logs = append(logs, math.Log(rate/its))
		}
	}

	slices.Sort(logs) // maps have no order, and sums of floats depend on it

	return logs
}

// rateRounds returns the rates of the rounds in which anything was answered.
func rateRounds(v Variant) map[int]float64 {
	if v.Run == nil || len(v.Rounds) == 0 {
		return nil
	}

	rates := map[int]float64{}
	in := answeredRun(v.Run)
	if len(in.Points) == 0 {
		return nil
	}

	for _, s := range listSpells(in, v) {
		if done, seconds := s.sum(); done > 0 {
			rates[s.round] = done / seconds
		}
	}

	return rates
}
