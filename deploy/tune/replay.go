package tune

import (
	"math"
	"slices"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/sweep"
)

// replay is a search as far as the variants that have ended lead it.
type replay struct {
	*Search
	ended map[string]trial.Variant

	next *sweep.Spec // the variant to measure now; nil: the search is over
	late bool        // the time of the trial was over before the search was

	base, best trial.Variant
	choices    []choice // of the best
	// confirmed are the base and the best once more; nil: they have not been measured.
	confirmed []trial.Variant
}

// replay goes through the search from the beginning until it needs a variant that has not ended, or is over.
func (s *Search) replay(ended []trial.Variant) *replay {
	r := &replay{Search: s, ended: map[string]trial.Variant{}}
	for _, v := range ended {
		if v.State.HasEnded() {
			r.ended[v.Name] = v
		}
	}

	var ok bool
	if r.base, ok = r.measure(s.spec(nil)); !ok || !r.hasSpeed(r.base) {
		return r // nothing to compare the others with
	}

	r.best = r.base
	for _, f := range s.flags {
		if !r.tryFlag(f) {
			return r
		}
	}

	if len(r.choices) > 0 {
		r.confirm()
	}

	return r
}

// measure returns a variant that has ended. If it has not, it is the next one, and the search waits for it.
func (r *replay) measure(spec sweep.Spec) (v trial.Variant, ok bool) {
	v, ok = r.ended[spec.Name]
	switch {
	case !ok:
		r.next = &spec
	case v.State == trial.Skipped:
		r.late = true
		return v, false
	}

	return v, ok
}

// tryFlag tries the values of a flag, and reports whether all of them have ended.
func (r *replay) tryFlag(f flag) bool {
	for _, ladder := range f.ladders {
		kept, ok := r.climb(f, ladder)
		if !ok || kept {
			return ok
		}
	}
	return true
}

// climb tries the values of a ladder, and reports whether it kept one, and whether it got to the end.
func (r *replay) climb(f flag, ladder []value) (kept, ok bool) {
	before := r.choices
	for _, v := range ladder {
		choices := append(slices.Clone(before), choice{flag: f.name, value: v})
		got, ok := r.measure(r.spec(choices))
		if !ok {
			return kept, false
		}

		switch {
		case !r.hasSpeed(got), got.State == trial.Beaten, r.isFaster(r.best, got):
			return kept, true
		case r.isFaster(got, r.best) && !isWorse(got, r.base):
			r.best, r.choices, kept = got, choices, true
		}
	}

	return kept, true
}

// confirm measures the base and the best once more.
func (r *replay) confirm() {
	var confirmed []trial.Variant
	for _, spec := range r.confirmations(r.choices) {
		v, ok := r.measure(spec)
		if !ok {
			return
		}
		confirmed = append(confirmed, v)
	}

	r.confirmed = confirmed
}

// hasSpeed reports whether the speed of a variant is known.
func (r *replay) hasSpeed(v trial.Variant) bool {
	return v.State != trial.Failed && r.compare(v, v).Low > 0
}

const (
	// falsely is how often a search may keep a value that is not faster.
	falsely = 0.05
	// blocks are the degrees of freedom that the difference of two speeds has at least, where both are as precise as a
	// trial wants them.
	blocks = 8
)

// isFaster reports whether a variant is faster than another beyond doubt: so much that in at most one of twenty
// searches chance makes any of its values look so (Bonferroni).
func (r *replay) isFaster(a, b trial.Variant) bool {
	d := r.compare(a, b)
	if !d.Real || d.Ratio <= 1 {
		return false
	}

	const usual = 0.9
	certain := 1 - 2*falsely/float64(r.Most())
	wider := studentT(certain) / studentT(usual)

	return math.Log(d.Ratio) > wider*math.Log(d.Ratio/d.Low)
}

func studentT(confidence float64) float64 {
	return estimate.StudentT(estimate.NormalPoint(confidence), blocks)
}
