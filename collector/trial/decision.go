package trial

import (
	"fmt"
	"math"
	"strconv"

	"github.com/promptmill/promptmill/collector/estimate"
)

// Decision says whether a variant that runs has run for long enough.
type Decision struct {
	End bool
	// State is Measured or Beaten where it ends, else Running.
	State State
	// Reason says why it ends, as a sentence without its beginning and its full stop; empty: it does not.
	Reason string
}

// Decide says whether a variant ends, given the others of its trial: once the 90 % interval of its rate is narrower
// than a part of it, such as 0.05, or once it is beaten by the best of the others for certain. Where quality counts,
// the slower one may be better, so that none is beaten.
func Decide(self Variant, others []Variant, precision float64, goal Goal) Decision {
	speed := MeasureSpeed(self)
	if speed.IsPrecise(precision) {
		return Decision{true, Measured, fmt.Sprintf("its rate is known within %.2g%%: %s to %s requests/s",
			100*(speed.High-speed.Low)/speed.Rate, formatFigure(speed.Low), formatFigure(speed.High))}
	}

	if goal == Best || speed.Problem != estimate.NoProblem {
		return Decision{State: Running}
	}

	if reason := explainBeaten(self, speed, others, goal); reason != "" {
		return Decision{true, Beaten, reason}
	}

	return Decision{State: Running}
}

// explainBeaten returns by which of the others the variant is beaten, and how far; empty: by none.
func explainBeaten(self Variant, speed Speed, others []Variant, goal Goal) string {
	var most float64
	var reason string
	for _, other := range others {
		if other.Run == nil || other.State == Failed {
			continue
		}

		best := MeasureSpeed(other)
		cost := goal == Cost && hasPrice(self) && hasPrice(other)
		if cost { // what the machine of self would have to reach, to be as cheap
			scale := *self.PricePerHour / *other.PricePerHour
			best.least, best.most = scale*best.least, scale*best.most
		}

		if !speed.IsBeaten(best) || best.least <= most {
			continue
		}

		most = best.least
		if cost {
			reason = fmt.Sprintf("dearer than %s for certain (99.9%%): at least %s per 1,000 answers against at most %s",
				other.Name, formatFigure(costOf(self, speed.most)), formatFigure(costOf(self, best.least)))
		} else {
			reason = fmt.Sprintf("slower than %s for certain (99.9%%): at most %s requests/s against at least %s",
				other.Name, formatFigure(speed.most), formatFigure(best.least))
		}
	}

	return reason
}

func hasPrice(v Variant) bool { return v.PricePerHour != nil && *v.PricePerHour > 0 }

// costOf is what 1,000 answers cost on the machine of a variant at a rate per second.
func costOf(v Variant, rate float64) float64 { return *v.PricePerHour / 3600 / rate * 1000 }

// formatFigure formats a rate or a cost with three digits, or as a whole number.
func formatFigure(f float64) string {
	if f >= 100 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	digits := 2 - int(math.Floor(math.Log10(f)))

	return strconv.FormatFloat(f, 'f', max(0, digits), 64)
}
