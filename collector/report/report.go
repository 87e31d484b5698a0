// Package report says what a run, or several, have come to: the tables, the estimates
// and the conclusions, as Markdown, as one page of HTML, or as JSON. It reads metadata
// alone, so that the length of a run makes no difference, and that of any tool which
// uses the same names. What is unknown is left out, or called unknown.
package report

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
)

// Version is the version of the JSON form.
const Version = 1

// Report is what is said of a run, or of several. It is the JSON form, too.
type Report struct {
	SchemaVersion int          `json:"schema_version"`
	TestID        string       `json:"test_id"` // the run; empty if there are several
	Title         string       `json:"title"`
	Subtitle      string       `json:"subtitle"`
	Conclusions   []Conclusion `json:"conclusions"`
	Sections      []Section    `json:"sections"`
	Next          []Command    `json:"next"`
}

// Conclusion is a sentence that follows from the figures by a rule.
type Conclusion struct {
	Rule string `json:"rule"`
	Text string `json:"text"`
}

// Command is a command line to type, and what it is for.
type Command struct {
	Why  string `json:"why"`
	Line string `json:"line"`
}

// Section is a table with a heading. Rows have as many cells as there are columns.
type Section struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Columns []Column `json:"columns"`
	Rows    [][]Cell `json:"rows"`
	Notes   []string `json:"notes"` // sentences below the table
	Plots   []Plot   `json:"-"`     // the metadata has their figures
}

// Column is the head of a column.
type Column struct {
	Name   string `json:"name"`
	Number bool   `json:"number"` // so it is aligned to the right
}

// Cell is a field of a table: the text for people, and the figure in it, in the unit
// that the row or the column names, or else in that of the metadata; null if it has none.
type Cell struct {
	Text  string   `json:"text"`
	Value *float64 `json:"value"`
}

// Options say what to write besides the run.
type Options struct {
	Baseline     *metadata.Run // to compare with; may be nil
	BaselinePath string        // of its metadata, as one would type it; may be empty
	Path         string        // of the run's metadata, as one would type it; may be empty
	// Estimates are the numbers of requests to estimate the time of. Defaults to
	// [DefaultEstimates].
	Estimates []int
	Workers   int // that the estimates are for. Defaults to as many as the run had.
	Prices    Prices
}

// DefaultEstimates are the numbers of requests that people ask about.
var DefaultEstimates = []int{100, 5_000, 50_000, 200_000}

// Prices are what things cost, in any one currency; nil is unknown.
type Prices struct {
	In, Out *float64 // of a million tokens, prompt and completion
	KWh     *float64 // of a kilowatt-hour
}

// builder makes the sections of a run's report.
type builder struct {
	run *metadata.Run
	Options
	estimates []estimated
}

// Build makes the report of a run.
func Build(run *metadata.Run, o Options) *Report {
	b := &builder{run: run, Options: o}
	b.estimate()

	r := &Report{
		SchemaVersion: Version,
		TestID:        run.TestID,
		Title:         title(run),
		Subtitle:      subtitle(run),
		Conclusions:   b.conclude(),
		Sections:      []Section{},
		Next:          b.next(),
	}
	for _, section := range []func(*builder) Section{
		summary, comparison, overTime, result, perRequest, timing, latency, estimates, energy, memory,
		failures, outliers, finishReasons, attempts, workers, about, files,
	} {
		if s := section(b); len(s.Rows)+len(s.Plots)+len(s.Notes) > 0 {
			r.add(s)
		}
	}

	return r
}

func (r *Report) add(s Section) {
	if s.Columns == nil {
		s.Columns = []Column{}
	}
	if s.Rows == nil {
		s.Rows = [][]Cell{}
	}
	if s.Notes == nil {
		s.Notes = []string{}
	}

	r.Sections = append(r.Sections, s)
}

// name is what a run is called in a sentence: its model, or else the run.
func name(run *metadata.Run) string { return cmp.Or(run.Model, run.TestID, "a run without a name") }

// baseline is what the baseline is called beside the run, which may be of its model.
func (b *builder) baseline() string {
	if b.Baseline.Model == b.run.Model {
		return cmp.Or(b.Baseline.TestID, name(b.Baseline))
	}
	return name(b.Baseline)
}

func title(run *metadata.Run) string {
	return fmt.Sprintf("%s: %s", name(run), plural(int64(run.Test.NumRequests), "request"))
}

func subtitle(run *metadata.Run) string {
	var parts []string
	if run.TestID != "" && run.TestID != name(run) {
		parts = append(parts, run.TestID)
	}
	if !run.Timestamp.IsZero() {
		parts = append(parts, run.Timestamp.UTC().Format("2 January 2006, 15:04 UTC"))
	}
	if run.Platform != "" {
		parts = append(parts, run.Platform)
	}
	if run.Status != "" {
		parts = append(parts, string(run.Status))
	}

	return strings.Join(parts, " · ")
}

// requests is how many requests of a run have ended.
func requests(run *metadata.Run) int { return run.Results.SuccessCount + run.Results.FailureCount }

// ours reports whether promptmill wrote the metadata: then a count of 0 is known.
func ours(run *metadata.Run) bool { return run.Manifest != nil }

// columns are those of a table of names and figures.
func columns(names ...string) []Column {
	list := []Column{{}}
	for _, n := range names {
		list = append(list, Column{Name: n, Number: true})
	}
	return list
}

// words is a cell of text.
func words(s string) Cell { return Cell{Text: s} }

// unknown is the cell of what is not known.
var unknown = Cell{Text: "unknown"}

// figure is the cell of a number, or unknown.
func figure(v *float64, format func(float64) string) Cell {
	if v == nil {
		return unknown
	}
	return Cell{Text: format(*v), Value: v}
}

// number is the cell of a count.
func number[N int | int64](n N) Cell {
	return Cell{Text: count(int64(n)), Value: new(float64(n))}
}

// part is the cell of a share in percent.
func part(n, whole int64) Cell {
	if whole <= 0 {
		return unknown
	}
	return Cell{Text: share(n, whole), Value: new(100 * float64(n) / float64(whole))}
}

// add adds a row.
func (s *Section) add(name string, cells ...Cell) {
	s.Rows = append(s.Rows, append([]Cell{words(name)}, cells...))
}

// known adds a row if its figure is known.
func (s *Section) known(name string, v *float64, format func(float64) string) {
	if v != nil {
		s.add(name, figure(v, format))
	}
}

func (s *Section) note(format string, args ...any) {
	s.Notes = append(s.Notes, fmt.Sprintf(format, args...))
}

// whole makes a float of a count that may be unknown.
func whole(n *int64) *float64 {
	if n == nil {
		return nil
	}
	return new(float64(*n))
}

// date is a time as tables show it.
func date(t time.Time) string {
	if t.IsZero() {
		return unknown.Text
	}
	return t.UTC().Format("2006-01-02 15:04")
}
