package tune

import (
	"strings"

	"github.com/promptmill/promptmill/collector/trial"
)

// Outcome is what a search has found.
type Outcome struct {
	// Found reports whether settings are faster than the command as it is. It is false too if the command failed, or
	// the search has not got so far.
	Found bool
	// Winner is the variant with the best settings, or the command as it is. Its command may have placeholders.
	Winner trial.Variant
	// Command starts the server with the settings of the winner, with the placeholders of the base.
	Command string
	// Flags are those that the winner adds to the command, as a shell has them.
	Flags string
	// Gain is the speed of the winner over that of the command as it is, where Found.
	Gain trial.Difference
	// Confirmed reports whether both were measured once more, one after the other, for the gain. Otherwise it may owe
	// something to the choice among many values, and to a drift of the machine.
	Confirmed bool
	// Late reports whether the time of the trial was over before the search was.
	Late bool
	// HasBase reports whether the speed of the command as it is is known.
	HasBase bool
	// Measured is the number of variants whose speed is known, and Failed that of those that did not start or failed.
	Measured int
	Failed   int
}

// Outcome returns what the search has found with the variants that have ended.
func (s *Search) Outcome(ended []trial.Variant) Outcome {
	r := s.replay(ended)
	spec := s.spec(r.choices)
	o := Outcome{
		Winner:    r.base,
		Command:   s.base.Command,
		Confirmed: len(r.confirmed) > 0,
		Late:      r.late,
		HasBase:   r.base.Name != "" && r.hasSpeed(r.base),
	}

	for _, v := range r.ended {
		switch {
		case v.State == trial.Failed:
			o.Failed++
		case r.hasSpeed(v):
			o.Measured++
		}
	}

	if len(r.choices) == 0 {
		return o
	}

	base, best := r.base, r.best
	if o.Confirmed {
		base, best = r.confirmed[0], r.confirmed[1]
		if !r.hasSpeed(base) || !r.hasSpeed(best) || isWorse(best, base) {
			return o
		}
	}

	gain := s.compare(best, base)
	if !gain.Real || gain.Ratio <= 1 {
		return o
	}

	o.Found, o.Gain, o.Winner, o.Command = true, gain, r.best, spec.Command
	o.Flags = joinWords(r.choices)

	return o
}

// joinWords returns the flags of choices as a shell has them.
func joinWords(choices []choice) string {
	var words []string
	for _, c := range choices {
		words = append(words, c.value.words...)
	}
	return strings.Join(words, " ")
}

// Tuning returns what the search has found with the variants that have ended, for the page of the trial. It
// implements [sweep.Tuner].
func (s *Search) Tuning(ended []trial.Variant) *trial.Tuning {
	o := s.Outcome(ended)
	t := &trial.Tuning{
		Found:     o.Found,
		Winner:    o.Winner.Name,
		Command:   o.Command,
		Flags:     o.Flags,
		Confirmed: o.Confirmed,
		Late:      o.Late,
	}
	if o.Found {
		t.Gain = &o.Gain
	}
	if !o.HasBase {
		t.Winner = ""
	}

	return t
}
