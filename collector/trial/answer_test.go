package trial

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/collector/report"
)

// with changes a spec.
func with(s spec, change func(*spec)) spec {
	change(&s)
	return s
}

// Sentences cut a long name, as that of a tuned variant. It is chosen all the same, with its estimate and its command.
func TestLongNameIsChosen(t *testing.T) {
	t.Parallel()

	name := "max-num-seqs=1024 max-num-batched-tokens=16384 kv-cache-dtype=fp8"
	r := Evaluate(newTrial(newVariant(name, gemma), newVariant("as it is", qwen)), Options{
		Command: func(v Variant) []string { return []string{"promptmill", "run", v.Name} },
	})

	if r.Chosen != name || len(r.Next) != 1 || !strings.Contains(r.Next[0].Line, name) {
		t.Errorf("chosen %q with the commands %+v, want %q", r.Chosen, r.Next, name)
	}
	if !strings.Contains(r.Answer, "200,000 requests in 68 to 75 min") {
		t.Errorf("the answer lacks the estimate: %s", r.Answer)
	}
}

// readOld reads one of the two runs that the project grew from.
func readOld(t *testing.T, name string) Variant {
	t.Helper()

	list, err := ReadVariants("../metadata/testdata/" + name + ".meta.json")
	if err != nil {
		t.Fatal(err)
	}

	return list[0]
}

func TestAnswers(t *testing.T) {
	t.Parallel()

	var (
		unjudged = func(s *spec) { s.right = 0 }
		twin     = with(gemma, func(s *spec) { s.model, s.right = "google/gemma-3-4b-it-qat", 0.93 })
		failed   = Variant{Name: "Phi 4", State: Failed, Reason: "its server ended with exit status 1: CUDA out of memory."}
		priced   = func(v Variant, price float64) Variant {
			v.PricePerHour = &price
			return v
		}
		soFar = newTrial(newVariant("Gemma", gemma), newVariant("Qwen", qwen), Variant{Name: "Llama", State: Waiting})
	)
	soFar.Done = false

	for name, c := range map[string]struct {
		trial    Trial
		options  Options
		answer   string
		findings []string
		chosen   string
	}{
		"two with quality": {
			trial:  newTrial(newVariant("Qwen", qwen), newVariant("Gemma", gemma)),
			answer: "Gemma: 1.6 times the throughput of Qwen (1.5 to 1.7) at the same success rate and 2 points less accuracy; 200,000 requests in 68 to 75 min on this card.",
			chosen: "Gemma",
		},
		"one without quality": {
			trial:  newTrial(newVariant("Gemma", with(gemma, unjudged))),
			answer: "Gemma: 46.7 requests/s (45.4 to 48.0) and 9,571 output tokens/s, 100% answered; 200,000 requests in 68 to 75 min on this card.",
			chosen: "Gemma",
		},
		"one and a failed one": {
			trial:    newTrial(failed, newVariant("Gemma", gemma)),
			answer:   "Gemma: 46.7 requests/s (45.4 to 48.0) and 9,571 output tokens/s, 100% answered, 90% right (89% to 91%); 200,000 requests in 68 to 75 min on this card.",
			findings: []string{"Phi 4 failed: its server ended with exit status 1: CUDA out of memory."},
			chosen:   "Gemma",
		},
		"all failed": {
			trial:    newTrial(failed, Variant{Name: "Qwen", State: Failed}),
			answer:   "No variant was measured.",
			findings: []string{"Phi 4 and Qwen failed; Phi 4: its server ended with exit status 1: CUDA out of memory."},
		},
		"not begun": {
			trial:  Trial{Name: "t", Variants: []Variant{{Name: "A", State: Waiting}}},
			answer: "No variant has been measured so far.",
		},
		"empty": {trial: Trial{Name: "t"}, answer: "The trial has no variants."},
		"running": {
			trial:  soFar,
			answer: "So far, with two of 3 variants ended: Gemma: 1.6 times the throughput of Qwen (1.5 to 1.7) at the same success rate and 2 points less accuracy; 200,000 requests in 68 to 75 min on this card.",
			chosen: "Gemma",
		},
		// Of two that are equally fast, the better one is to be taken.
		"equal, one is better": {
			trial:    newTrial(newVariant("A", gemma), newVariant("B", twin), newVariant("Qwen", qwen)),
			answer:   "A and B are equally fast as far as this trial shows: within 4%; B has 3 points more accuracy; 200,000 requests in 68 to 75 min on this card with B.",
			findings: []string{"Qwen is next, 37% slower than A."},
			chosen:   "B",
		},
		"costs": {
			trial:   newTrial(priced(newVariant("Gemma", gemma), 4), priced(newVariant("Qwen", qwen), 1.5)),
			options: Options{Goal: Cost, Prices: report.Prices{Currency: "EUR"}},
			answer:  "Qwen is the cheapest: EUR 0.014 per 1,000 answers, 40% less than Gemma (38% to 42%), at the same success rate and 2 points more accuracy; 200,000 requests in 1.8 to 2.0 h on this card.",
			chosen:  "Qwen",
		},
		"no prices": {
			trial:    newTrial(newVariant("Gemma", gemma)),
			options:  Options{Goal: Cost},
			answer:   "Gemma: 46.7 requests/s (45.4 to 48.0) and 9,571 output tokens/s, 100% answered, 90% right (89% to 91%); 200,000 requests in 68 to 75 min on this card.",
			findings: []string{"Costs are not known, for want of prices, so the variants are ranked by throughput."},
			chosen:   "Gemma",
		},
		"quality": {
			trial:   newTrial(newVariant("Gemma", gemma), newVariant("Qwen", qwen)),
			options: Options{Goal: Best},
			answer:  "Qwen has the best answers: 92% right (91% to 93%), 2 points more than Gemma (1 to 3 points), with 37% less throughput than it (35% to 40%); 200,000 requests in 1.8 to 2.0 h on this card.",
			chosen:  "Qwen",
		},
		"equal quality, one is faster": {
			trial:   newTrial(newVariant("Gemma", gemma), newVariant("Qwen", with(qwen, func(s *spec) { s.right = 0.901 }))),
			options: Options{Goal: Best},
			answer:  "Qwen and Gemma are equally good as far as this trial shows: within 1.1 points; Gemma has 1.6 times the throughput of Qwen (1.5 to 1.7); 200,000 requests in 68 to 75 min on this card with Gemma.",
			chosen:  "Gemma",
		},
		"quality unknown": {
			trial:    newTrial(newVariant("Gemma", with(gemma, unjudged)), newVariant("Qwen", with(qwen, unjudged))),
			options:  Options{Goal: Best},
			answer:   "Gemma: 1.6 times the throughput of Qwen (1.5 to 1.7) at the same success rate; 200,000 requests in 68 to 75 min on this card.",
			findings: []string{"The quality of the answers is not known, so the variants are ranked by throughput."},
			chosen:   "Gemma",
		},
		"fewer answered": {
			trial: newTrial(newVariant("Gemma", with(gemma, func(s *spec) { s.failed = 0.1 })), newVariant("Qwen", qwen)),
			answer: "Gemma: 1.5 times the throughput of Qwen (1.4 to 1.5) with 91.0% answered instead of 100% and 2 points less accuracy; " +
				"200,000 requests in 68 to 75 min on this card.",
			chosen: "Gemma",
		},
	} {
		r := Evaluate(c.trial, c.options)
		if d := cmp.Diff(c.answer, r.Answer); d != "" {
			t.Errorf("%s: answer:\n%s", name, d)
		}
		if !slices.Equal(c.findings, r.Findings) || r.Chosen != c.chosen {
			t.Errorf("%s: findings %q, chosen %q; want %q, %q", name, r.Findings, r.Chosen, c.findings, c.chosen)
		}
	}
}

// The two runs that the project grew from, put beside each other as a trial, say what their first page said, and that
// it could not say so.
func TestTenRequestsAreTooFew(t *testing.T) {
	t.Parallel()

	r := Evaluate(newTrial(readOld(t, "seed"), readOld(t, "baseline")), Options{})
	want := "olmo-3-7b (olmo-3-7b-10) was 39% slower than gemma-3-4b (gemma-3-4b-5k), but ten requests of " +
		"olmo-3-7b (olmo-3-7b-10) are too few to say so (100 would do)."
	if r.Answer != want {
		t.Errorf("answer %q, want %q", r.Answer, want)
	}

	rates := map[string][2]float64{"gemma-3-4b (gemma-3-4b-5k)": {705.5, 1805.8}, "olmo-3-7b (olmo-3-7b-10)": {431.6, 1101.9}}
	for _, row := range r.Variants {
		want := rates[row.Name]
		if got := *row.OutputTokensPerSec; got < want[0]-0.1 || got > want[0]+0.1 {
			t.Errorf("%s: %v output tokens/s, want %v", row.Name, got, want[0])
		}
		if got := *row.InputTokensPerSec; got < want[1]-0.1 || got > want[1]+0.1 {
			t.Errorf("%s: %v input tokens/s, want %v", row.Name, got, want[1])
		}
	}

	d := r.Variants[1].SpeedDifference
	if r.Variants[0].Model != "gemma-3-4b" || d.Real || d.Ratio < 0.605 || d.Ratio > 0.606 || *r.Variants[1].LoadSeconds != 678.5 {
		t.Errorf("rows %+v, difference %+v", r.Variants, d)
	}
}

// A difference of answers that were compared request by request is taken from that comparison, whichever way round.
func TestQualityIsComparedByRequest(t *testing.T) {
	t.Parallel()

	r := Evaluate(newTrial(newVariant("Gemma", gemma), newVariant("Qwen", qwen)), Options{
		Agreement: map[[2]string]quality.Comparison{{"Gemma", "Qwen"}: {
			Common:     3000,
			Agreement:  quality.NewShare(2700, 3000),
			By:         quality.ByExpected,
			Difference: &quality.Difference{Mean: -0.021, Low: -0.026, High: -0.016},
		}},
	})
	want := quality.Difference{Mean: 0.021, Low: 0.016, High: 0.026}
	if got := r.find("Qwen").QualityDifference; got == nil || *got != want {
		t.Errorf("difference %+v, want %+v", got, want)
	}
	if len(r.Agreements) != 1 || r.Agreements[0].First != "Gemma" || r.Agreements[0].Common != 3000 {
		t.Errorf("agreements %+v", r.Agreements)
	}
}

// What was put beside is ranked with the others and never chosen.
func TestWhatIsBesideIsNotChosen(t *testing.T) {
	t.Parallel()

	t1 := newTrial(newVariant("Qwen", qwen))
	t1.Beside = []Variant{newVariant("Gemma", gemma)}
	t1.Beside[0].Run.Test.InputSHA256 = "other"
	t1.Beside = append(t1.Beside, t1.Variants[0])

	r := Evaluate(t1, Options{Command: func(v Variant) []string { return []string{"run", v.Name} }})
	if r.Chosen != "Qwen" || r.Variants[0].Name != "Gemma" || r.find("Qwen (2)") == nil || r.Next[0].Line != "run Qwen" {
		t.Errorf("chosen %q of %+v, next %+v", r.Chosen, r.Variants, r.Next)
	}
	if want := "Gemma, which was put beside, had 1.6 times the throughput of Qwen (1.5 to 1.7)."; !slices.Contains(r.Findings, want) {
		t.Errorf("findings %q lack %q", r.Findings, want)
	}
	if !strings.HasPrefix(r.Warning, "Different inputs: Gemma did not run") {
		t.Errorf("warning %q", r.Warning)
	}
}

// Figures from outside that no page can show are left out.
func TestFiguresThatAreNoNumbers(t *testing.T) {
	t.Parallel()

	v := newVariant("A", gemma)
	v.Run.Results.InferenceTimeSeconds = 1e-308
	v.Run.Series = nil
	v.Run.Results.EnergyJoules = new(-1.0)
	v.PricePerHour = new(1e9)

	r := Evaluate(newTrial(v, Variant{Name: "B", State: Measured, Run: &metadata.Run{}}), Options{})
	if err := r.WriteJSON(&strings.Builder{}); err != nil {
		t.Error(err)
	}
	if r.Chosen != "" || r.Variants[0].JoulesPer1000Answers != nil {
		t.Errorf("result %+v", r)
	}
}

// A variant that answered for a while before its server died is a row with its speed, but neither chosen nor compared.
func TestFailedIsNotChosen(t *testing.T) {
	t.Parallel()

	died := newVariant("fast", with(gemma, func(s *spec) { s.rate *= 3 }))
	died.State, died.Reason = Failed, "its server answered nothing in 3 turns in a row"
	r := Evaluate(newTrial(died, newVariant("slow", gemma)), Options{})
	if r.Chosen != "slow" || !strings.HasPrefix(r.Answer, "slow: ") || strings.Contains(r.Answer, "fast") {
		t.Errorf("chosen %q: %s", r.Chosen, r.Answer)
	}
	if want := "fast failed: its server answered nothing in 3 turns in a row."; !slices.Contains(r.Findings, want) {
		t.Errorf("findings %q, want %q", r.Findings, want)
	}

	if r := Evaluate(newTrial(died), Options{}); r.Chosen != "" || r.Answer != "No variant was measured." {
		t.Errorf("alone, chosen %q: %s", r.Chosen, r.Answer)
	}
}

// A number of requests that would do is said only where there were fewer.
func TestFewRequestsInWords(t *testing.T) {
	t.Parallel()

	for requests, want := range map[int]string{
		60:  "60 requests of a are too few (100 would do)",
		200: "too few requests of a ended while it was measured",
	} {
		row := &Row{
			Variant:  Variant{Name: "a"},
			Requests: requests,
			Speed: &Speed{
				Problem: estimate.TooFew,
				Needed:  100,
			},
		}
		if got := explainProblem(row) + describeNeeded(row); got != want {
			t.Errorf("%d requests: %s, want %s", requests, got, want)
		}
	}
}
