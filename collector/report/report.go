// Package report describes the outcome of one or several runs: the tables, the estimates
// and the conclusions, as Markdown, as one page of HTML, or as JSON. It reads metadata
// alone, so that the length of a run makes no difference. The metadata may come from any
// tool that uses the same names. Unknown values are left out, or called unknown.
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

// Report describes a run, or compares several. It is also the JSON form.
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

// Prices are in any one currency; nil is unknown.
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
	b.addEstimate()

	r := &Report{
		SchemaVersion: Version,
		TestID:        run.TestID,
		Title:         buildTitle(run),
		Subtitle:      buildSubtitle(run),
		Conclusions:   b.drawConclusions(),
		Sections:      []Section{},
		Next:          b.nextCommands(),
	}
	for _, section := range []func(*builder) Section{
		buildSummary, buildComparison, buildPlots, buildResult, buildPerRequest, buildTiming, buildLatency,
		buildEstimates, buildEnergy, buildMemory,
		buildFailures, buildOutliers, buildFinishReasons, buildAttempts, buildWorkers, buildAbout, buildFiles,
	} {
		if s := section(b); len(s.Rows)+len(s.Plots)+len(s.Notes) > 0 {
			r.addSection(s)
		}
	}

	return r
}

func (r *Report) addSection(s Section) {
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

// modelName names a run in a sentence: by its model, or else by its id.
func modelName(run *metadata.Run) string {
	return cmp.Or(run.Model, run.TestID, "a run without a name")
}

// baselineName names the baseline beside the run, which may have the same model.
func (b *builder) baselineName() string {
	if b.Baseline.Model == b.run.Model {
		return cmp.Or(b.Baseline.TestID, modelName(b.Baseline))
	}
	return modelName(b.Baseline)
}

func buildTitle(run *metadata.Run) string {
	title := fmt.Sprintf("%s: %s", modelName(run), formatPlural(int64(run.Test.NumRequests), "request"))
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

// countRequests returns how many requests of a run have ended.
func countRequests(run *metadata.Run) int { return run.Results.SuccessCount + run.Results.FailureCount }

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

// textCell is a cell of text.
func textCell(s string) Cell { return Cell{Text: s} }

// unknown is the cell of an unknown value.
var unknown = Cell{Text: "unknown"}

// figureCell is the cell of a number, or unknown.
func figureCell(v *float64, format func(float64) string) Cell {
	if v == nil {
		return unknown
	}
	return Cell{Text: format(*v), Value: v}
}

// countCell is the cell of a count.
func countCell[N int | int64](n N) Cell {
	return Cell{Text: formatCount(int64(n)), Value: new(float64(n))}
}

// shareCell is the cell of a share in percent.
func shareCell(n, whole int64) Cell {
	if whole <= 0 {
		return unknown
	}
	return Cell{Text: formatShare(n, whole), Value: new(100 * float64(n) / float64(whole))}
}

// addRow adds a row.
func (s *Section) addRow(name string, cells ...Cell) {
	s.Rows = append(s.Rows, append([]Cell{textCell(name)}, cells...))
}

// addKnownRow adds a row if its figure is known.
func (s *Section) addKnownRow(name string, v *float64, format func(float64) string) {
	if v != nil {
		s.addRow(name, figureCell(v, format))
	}
}

func (s *Section) addNote(format string, args ...any) {
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
