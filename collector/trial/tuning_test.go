package trial

import (
	"strings"
	"testing"
)

// A tuning chooses its variant, also where another one was measured faster: that one may have worse answers, or be the
// luckiest of many.
func TestTuningChooses(t *testing.T) {
	t.Parallel()

	fast := func(rate float64) spec { return with(gemma, func(s *spec) { s.rate = rate }) }
	variants := []Variant{
		newVariant("as it is", fast(20)),
		newVariant("seqs=512", fast(40)),
		newVariant("seqs=512 fp8", fast(48)),
		{Name: "seqs=1024", State: Failed, Reason: "out of memory"},
	}
	command := Options{Command: func(v Variant) []string { return []string{"promptmill", "run", v.Name} }}
	found := &Tuning{
		Found:     true,
		Winner:    "seqs=512",
		Command:   "vllm serve m --max-num-seqs 512",
		Flags:     "--max-num-seqs 512",
		Gain:      &Difference{Ratio: 2.004, Low: 1.9, High: 2.1},
		Confirmed: true,
	}

	const gain = "2.00 times the throughput of the command as it is (1.90 to 2.10) with --max-num-seqs 512"
	late := *found
	late.Confirmed, late.Late = false, true
	for _, c := range []struct {
		name   string
		tuning *Tuning
		done   bool
		chosen string
		want   string // the begin of the answer
	}{
		{"found", found, true, "seqs=512", gain},
		{"not yet", found, false, "seqs=512", "So far, with four of 4 variants ended: " + gain},
		{"late", &late, true, "seqs=512", gain + ", not measured a second time; the time was over before all was tried"},
		{"none", &Tuning{Winner: "as it is"}, true, "as it is", "No setting is faster than the command as it is"},
		{"by rank", nil, true, "seqs=512 fp8", "seqs=512 fp8"},
	} {
		r := Evaluate(Trial{Name: "t", Done: c.done, Variants: variants, Tuning: c.tuning}, command)
		if r.Chosen != c.chosen || !strings.HasPrefix(r.Answer, c.want) {
			t.Errorf("%s: chosen %q: %s", c.name, r.Chosen, r.Answer)
		}
		if len(r.Next) != 1 || !strings.Contains(r.Next[0].Why, c.chosen) {
			t.Errorf("%s: next %+v, want %s", c.name, r.Next, c.chosen)
		}
	}
}
