// Package report describes the outcome of one or several runs: the tables, the estimates
// and the conclusions, as Markdown, as one page of HTML, or as JSON. It reads metadata
// alone, so that the length of a run makes no difference. The metadata may come from any
// tool that uses the same names. What is unknown is left out.
package report

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
)

// Version is the version of the JSON form. Version 2 has the answer and the verdict, and tables
// without what is unknown.
const Version = 2

// Report describes a run, or compares several. It is also the JSON form.
type Report struct {
	SchemaVersion int          `json:"schema_version"`
	TestID        string       `json:"test_id"` // the run; empty if there are several
	Title         string       `json:"title"`
	Subtitle      string       `json:"subtitle"`
	Warning       string       `json:"warning"` // stands above all else; empty: none
	Verdict       Verdict      `json:"verdict"`
	Answer        string       `json:"answer"` // the outcome in one sentence
	Conclusions   []Conclusion `json:"conclusions"`
	Sections      []Section    `json:"sections"`
	Next          []Command    `json:"next"`

	charts *chartSet // the metadata has their figures
}

// Verdict is the outcome in one word.
type Verdict string

// Verdicts.
const (
	VerdictDone     Verdict = "done"     // all requests were answered
	VerdictPartial  Verdict = "partial"  // some were
	VerdictFailed   Verdict = "failed"   // none was
	VerdictCompared Verdict = "compared" // there are several runs
)

// Conclusion is a sentence that follows from the figures by a rule.
type Conclusion struct {
	Rule string `json:"rule"`
	Text string `json:"text"`
}

// Command is a command line to type, and its purpose.
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

	Commands []Command `json:"commands"` // that show more of the same

	Form   Form `json:"-"` // how the page shows the table
	Folded bool `json:"-"` // on the page, until one opens it
	// Picture is a drawing that the page shows above the table: elements of SVG without styles of their own. A section
	// of a picture alone is on no other form of the report.
	Picture template.HTML `json:"-"`
}

// Form is the way in which a page shows a table.
type Form string

// Forms. The zero value is a table.
const (
	FormTiles Form = "tiles" // rows of a name, a figure and the context of the figure
	FormPairs Form = "pairs" // rows of a name and a value
)

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

// Options add parts to a run's report.
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

// Prices are in one currency; nil is unknown.
type Prices struct {
	In, Out  *float64 // of a million tokens, prompt and completion
	KWh      *float64 // of a kilowatt-hour
	Currency string   // three letters, as in ISO 4217; empty: not said
}

// any reports whether a price is known.
func (p Prices) any() bool { return p.In != nil || p.Out != nil || p.KWh != nil }

// Format writes an amount of money, with its currency.
func (p Prices) Format(v float64) string {
	if p.Currency == "" {
		return figures.Money(v)
	}
	return p.Currency + " " + figures.Money(v)
}

// moneyCell is the cell of an amount of money, or unknown.
func (p Prices) moneyCell(v *float64) Cell { return FigureCell(v, p.Format) }

// unitNote says in which unit costs are that have no currency; empty if they have one.
func (p Prices) unitNote() string {
	if p.Currency != "" || !p.any() {
		return ""
	}

	flag := "--price-in"
	switch {
	case p.In != nil:
	case p.Out != nil:
		flag = "--price-out"
	default:
		flag = "--price-kwh"
	}

	return "Costs are in the unit of " + flag + "."
}

// builder makes the sections of a run's report.
type builder struct {
	run *metadata.Run
	Options
	estimates []estimated
	baseline  string // its name; empty: by its model or its run
}

// Build makes the report of a run.
func Build(run *metadata.Run, o Options) *Report {
	b := &builder{run: run, Options: o}
	b.addEstimate()

	r := &Report{
		SchemaVersion: Version,
		TestID:        run.TestID,
		Title:         buildTitle(run),
		Subtitle:      buildSubtitle(run),
		Verdict:       b.verdict(),
		Answer:        b.answer(),
		Conclusions:   b.drawConclusions(),
		Sections:      []Section{},
		Next:          b.nextCommands(),
		charts:        buildCharts(run),
	}
	for _, section := range []func(*builder) Section{
		buildSummary, buildFailures, buildNotSent, buildWasted, buildComparison,
		buildEstimates, buildCosts, buildWorkers, buildDepartures,
	} {
		r.AddSection(section(b))
	}

	for _, section := range []func(*builder) Section{
		buildResult, buildLatency, buildPerRequest, buildTiming, buildMemory,
		buildOutliers, buildFinishReasons, buildAttempts, buildAbout, buildFiles,
	} {
		s := section(b)
		s.Folded = true
		r.AddSection(s)
	}

	return r
}

// AddSection adds what is known of a section, if there is any.
func (r *Report) AddSection(s Section) {
	s.leaveOutUnknown()
	if len(s.Rows)+len(s.Notes)+len(s.Commands) == 0 && s.Picture == "" {
		return
	}

	if s.Columns == nil {
		s.Columns = []Column{}
	}
	if s.Rows == nil {
		s.Rows = [][]Cell{}
	}
	if s.Notes == nil {
		s.Notes = []string{}
	}
	if s.Commands == nil {
		s.Commands = []Command{}
	}

	r.Sections = append(r.Sections, s)
}

// leaveOutUnknown removes the rows in which nothing is known, and then such columns. Tiles keep
// their columns.
func (s *Section) leaveOutUnknown() {
	s.Rows = slices.DeleteFunc(s.Rows, func(row []Cell) bool {
		return len(row) > 1 && !slices.ContainsFunc(row[1:], func(c Cell) bool { return !c.isUnknown() })
	})

	if s.Form == FormTiles || len(s.Rows) == 0 {
		return
	}

	for i := len(s.Columns) - 1; i > 0; i-- {
		if slices.ContainsFunc(s.Rows, func(row []Cell) bool { return !row[i].isUnknown() }) {
			continue
		}

		s.Columns = slices.Delete(s.Columns, i, i+1)
		for j := range s.Rows {
			s.Rows[j] = slices.Delete(s.Rows[j], i, i+1)
		}
	}
}

// modelName names a run in a sentence: by its model, or else by its id.
func modelName(run *metadata.Run) string {
	return cmp.Or(run.Model, run.TestID, "a run without a name")
}

// baselineName names the baseline beside the run, which may have the same model.
func (b *builder) baselineName() string {
	if b.baseline != "" {
		return b.baseline
	}
	if b.Baseline.Model == b.run.Model {
		return cmp.Or(b.Baseline.TestID, modelName(b.Baseline))
	}
	return modelName(b.Baseline)
}

func buildTitle(run *metadata.Run) string {
	title := fmt.Sprintf("%s: %s", modelName(run), figures.Plural(int64(run.Test.NumRequests), "request"))
	if run.Label != "" {
		return run.Label + ", " + title
	}

	return title
}

func buildSubtitle(run *metadata.Run) string {
	var parts []string
	if run.TestID != "" && run.TestID != modelName(run) {
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

// countRequests returns how many requests of a run were sent and have ended.
func countRequests(run *metadata.Run) int { return run.Results.CountSent() }

// isOurs reports whether promptmill wrote the metadata: then a count of 0 is known.
func isOurs(run *metadata.Run) bool { return run.Manifest != nil }

// newColumns returns the columns of a table of names and figures.
func newColumns(names ...string) []Column {
	list := []Column{{}}
	for _, n := range names {
		list = append(list, Column{Name: n, Number: true})
	}
	return list
}

// TextCell is a cell of text.
func TextCell(s string) Cell { return Cell{Text: s} }

// unknown is the cell of an unknown value, in a column where others are known.
var unknown = Cell{Text: "–"}

func (c Cell) isUnknown() bool { return c.Value == nil && (c.Text == "" || c.Text == unknown.Text) }

// KnownCell is the cell of a text, unknown if it is empty.
func KnownCell(s string) Cell {
	if s == "" {
		return unknown
	}
	return TextCell(s)
}

// FigureCell is the cell of a number, or unknown.
func FigureCell(v *float64, format func(float64) string) Cell {
	if v == nil {
		return unknown
	}
	return Cell{Text: format(*v), Value: v}
}

// CountCell is the cell of a count.
func CountCell[N int | int64](n N) Cell {
	return Cell{Text: figures.Count(int64(n)), Value: new(float64(n))}
}

// shareCell is the cell of a share in percent.
func shareCell(n, whole int64) Cell {
	if whole <= 0 {
		return unknown
	}
	return Cell{Text: figures.Share(n, whole), Value: new(100 * float64(n) / float64(whole))}
}

// AddRow adds a row.
func (s *Section) AddRow(name string, cells ...Cell) {
	s.Rows = append(s.Rows, append([]Cell{TextCell(name)}, cells...))
}

// addKnownRow adds a row if its figure is known.
func (s *Section) addKnownRow(name string, v *float64, format func(float64) string) {
	if v != nil {
		s.AddRow(name, FigureCell(v, format))
	}
}

// AddNote adds a sentence below the table.
func (s *Section) AddNote(format string, args ...any) {
	s.Notes = append(s.Notes, fmt.Sprintf(format, args...))
}

// toFloat makes a float of a count that may be unknown.
func toFloat(n *int64) *float64 {
	if n == nil {
		return nil
	}
	return new(float64(*n))
}

// formatDate is a time as tables show it.
func formatDate(t time.Time) string {
	if t.IsZero() {
		return unknown.Text
	}
	return t.UTC().Format("2006-01-02 15:04")
}
