package trial

import (
	"cmp"
	"fmt"
	"time"

	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/collector/report"
)

// Version is the version of the JSON form of a [Result].
const Version = 1

// Trial is what [Evaluate] judges.
type Trial struct {
	// Name is the name of the trial for people. Required.
	Name string
	// CreatedAt is when it began, and UpdatedAt when Variants were as they are.
	CreatedAt time.Time
	UpdatedAt time.Time
	// Done reports that nothing is left to do.
	Done bool
	// Input is what all variants ran.
	Input Input
	// Precision is the width of the interval at which a variant ends, as a part of its rate; 0: not known.
	Precision float64
	// Budget is the most time of measuring a variant; 0: no end.
	Budget time.Duration
	// SideBySide reports that variants took turns.
	SideBySide bool
	// Variants are the variants in their order, those that have not begun with them.
	Variants []Variant
	// Beside are variants of other trials, and other runs. They are in all tables but are not chosen.
	Beside []Variant
	// Tuning is what a search for settings has found, which chooses the variant; nil: there is none.
	Tuning *Tuning
}

// Input is what a trial was drawn from.
type Input struct {
	Files    []string `json:"files"`
	Requests int      `json:"requests"` // in Files; 0: not known
	// Sample is the number of requests that were drawn, and SHA256 that of the file that has them; empty: not known.
	Sample int    `json:"sample"`
	SHA256 string `json:"sha256,omitempty"`
}

// Options say how a trial is judged.
type Options struct {
	// Goal ranks the variants. Defaults to [Throughput].
	Goal Goal
	// Prices are what a machine, the energy and an API cost.
	Prices report.Prices
	// Estimates are the numbers of requests to estimate the time of. Defaults to [report.DefaultEstimates].
	Estimates []int
	// Command returns the command line of the real run with a variant; nil: not known.
	Command func(Variant) []string
	// Agreement compares the answers of two variants by their names, in either order.
	Agreement map[[2]string]quality.Comparison
}

// Result is a trial as its page shows it. It is also the JSON form.
type Result struct {
	SchemaVersion int       `json:"schema_version"`
	Name          string    `json:"name"`
	CreatedAt     time.Time `json:"created_at,omitzero"`
	UpdatedAt     time.Time `json:"updated_at,omitzero"`
	Done          bool      `json:"done"`
	Goal          Goal      `json:"goal"`
	Precision     float64   `json:"precision,omitempty"`
	BudgetSeconds float64   `json:"budget_seconds,omitempty"`
	SideBySide    bool      `json:"side_by_side"`
	Input         Input     `json:"input"`

	// Answer says what the trial has found in one sentence, and Findings what follows besides.
	Answer   string   `json:"answer"`
	Findings []string `json:"findings,omitempty"`
	// Warning says why its figures may not be compared; empty: they may.
	Warning string `json:"warning,omitempty"`
	// Chosen is the name of the variant to take; empty: none was measured.
	Chosen string `json:"chosen,omitempty"`
	// Tuning is what a search for settings has found; nil: there was none.
	Tuning *Tuning `json:"tuning,omitempty"`
	// Measure is the quality by which variants are compared; empty: it is not known of any.
	Measure Measure `json:"measure,omitempty"`
	// Variants are ranked by the goal. Those of which no speed is known come last.
	Variants []Row `json:"variants"`
	// Agreements compare the answers of variants, in the order of their ranks.
	Agreements []Agreement `json:"agreements,omitempty"`
	// Currency is that of all costs, as in ISO 4217; empty: not said.
	Currency string `json:"currency,omitempty"`
	// Next are the commands to type next.
	Next []report.Command `json:"next,omitempty"`

	prices report.Prices
}

// Agreement compares the answers of two variants.
type Agreement struct {
	First  string `json:"first"`
	Second string `json:"second"`
	quality.Comparison
}

// Measure is a quality of answers.
type Measure string

// The measures of quality, the one that says most first.
const (
	Right  Measure = "right"  // the share of answers that equal the expected one
	Scored Measure = "score"  // the mean score
	Formed Measure = "schema" // the share of answers that match the schema
)

// Evaluate judges a trial, also one that is not done.
func Evaluate(t Trial, o Options) *Result {
	o.Goal = cmp.Or(o.Goal, Throughput)
	if len(o.Estimates) == 0 {
		o.Estimates = report.DefaultEstimates
	}

	r := &Result{
		SchemaVersion: Version,
		Name:          t.Name,
		CreatedAt:     t.CreatedAt,
		UpdatedAt:     t.UpdatedAt,
		Done:          t.Done,
		Goal:          o.Goal,
		Precision:     t.Precision,
		BudgetSeconds: t.Budget.Seconds(),
		SideBySide:    t.SideBySide,
		Input:         t.Input,
		Tuning:        t.Tuning,
		Currency:      o.Prices.Currency,
		Variants:      []Row{},
		prices:        o.Prices,
	}
	for _, v := range t.Variants {
		r.Variants = append(r.Variants, measureVariant(v, o))
	}
	for _, v := range t.Beside {
		row := measureVariant(v, o)
		row.Beside = true
		r.Variants = append(r.Variants, row)
	}

	r.makeNamesUnique()
	r.Measure = r.findMeasure()
	r.rankVariants()
	r.compareWithBest(o)
	r.addAgreements(o)
	r.Warning = r.warnOfInputs()
	r.Chosen = r.chooseVariant()
	r.Answer, r.Findings = r.findAnswer(), r.listFindings()
	r.Next = r.nextCommands(o)

	return r
}

// makeNamesUnique numbers the names that several variants have, as one of another trial may.
func (r *Result) makeNamesUnique() {
	seen := map[string]bool{}
	for i := range r.Variants {
		v := &r.Variants[i].Variant
		name := cmp.Or(v.Name, v.Model, "unnamed")
		v.Name = name
		for n := 2; seen[v.Name]; n++ {
			v.Name = fmt.Sprintf("%s (%d)", name, n)
		}

		seen[v.Name] = true
	}
}

// addAgreements lists the comparisons of answers in the order of ranks.
func (r *Result) addAgreements(o Options) {
	for i, a := range r.Variants {
		for _, b := range r.Variants[i+1:] {
			if c, ok := findAgreement(o.Agreement, a.Name, b.Name); ok && c.Common > 0 {
				r.Agreements = append(r.Agreements, Agreement{First: a.Name, Second: b.Name, Comparison: c})
			}
		}
	}
}

// findAgreement returns the comparison of a with b, which may be known as that of b with a.
func findAgreement(all map[[2]string]quality.Comparison, a, b string) (quality.Comparison, bool) {
	if c, ok := all[[2]string{a, b}]; ok {
		return c, true
	}

	c, ok := all[[2]string{b, a}]
	if d := c.Difference; d != nil {
		c.Difference = &quality.Difference{Mean: -d.Mean, Low: -d.High, High: -d.Low}
	}

	return c, ok
}

// warnOfInputs names the variants that ran on another sample than the first; empty if none did.
func (r *Result) warnOfInputs() string {
	first, others := r.findFirstInput(), []string(nil)
	for _, row := range r.Variants {
		if sum := row.inputSHA256(); first != "" && sum != "" && sum != first {
			others = append(others, row.shortName())
		}
	}

	if len(others) == 0 {
		return ""
	}

	return fmt.Sprintf("Different inputs: %s did not run on the same requests as the others, so differences from %s say little.",
		joinNames(others), map[bool]string{true: "it", false: "them"}[len(others) == 1])
}

// findFirstInput returns the checksum of what the variants of this trial ran, or else of the first run that has one.
func (r *Result) findFirstInput() string {
	first := ""
	for _, row := range r.Variants {
		sum := row.inputSHA256()
		if sum != "" && !row.Beside {
			return sum
		}

		first = cmp.Or(first, sum)
	}

	return first
}

// nextCommands is the command of the real run with the chosen variant.
func (r *Result) nextCommands(o Options) []report.Command {
	chosen := r.find(r.Chosen)
	if chosen == nil || o.Command == nil {
		return nil
	}

	args := o.Command(chosen.Variant)
	if len(args) == 0 {
		return nil
	}

	return []report.Command{{
		Why:  "Run all requests with " + chosen.shortName(),
		Line: report.ShellWords(args...),
	}}
}

// find returns the variant of a name; nil: there is none.
func (r *Result) find(name string) *Row {
	for i := range r.Variants {
		if name != "" && r.Variants[i].Name == name {
			return &r.Variants[i]
		}
	}
	return nil
}
