package report

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
	"slices"

	"github.com/promptmill/promptmill/collector/report/uplot"
)

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

//go:embed page.js
var pageScript string

// style and script are all that a page with charts runs: its policy names their hashes, and allows nothing else. One
// without charts does without uPlot.
var (
	style  = "\n" + uplot.Style + "\n" + pageStyle
	script = "\n/* uPlot " + uplot.Version + "\n\n" + uplot.License + "*/\n" + uplot.Script + "\n" + pageScript

	policy      = newPolicy(style, script)
	plainPolicy = newPolicy(pageStyle, pageScript)
)

// newPolicy is the content security policy of a page. The network is out of reach.
func newPolicy(style, script string) string {
	return "default-src 'none'; base-uri 'none'; form-action 'none'; connect-src 'none'; style-src " +
		hashSource(style) + "; script-src " + hashSource(script)
}

// hashSource is the source of a content security policy that allows one inline text.
func hashSource(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"line": joinLines,
}).Parse(pageText))

// HTML writes the report as one page that needs nothing else.
func (r *Report) HTML(w io.Writer) error { return page.Execute(w, pageData{Report: r}) }

// pageData is a report as its page shows it.
type pageData struct{ *Report }

// Charts are the charts; nil if there are none.
func (p pageData) Charts() *chartSet { return p.charts }

// Style is the style of the page.
func (p pageData) Style() template.CSS {
	if p.charts == nil {
		return template.CSS(pageStyle)
	}
	return template.CSS(style)
}

// Script is the script of the page.
func (p pageData) Script() template.JS {
	if p.charts == nil {
		return template.JS(pageScript)
	}
	return template.JS(script)
}

// Policy is the content security policy of the page.
func (p pageData) Policy() string {
	if p.charts == nil {
		return plainPolicy
	}
	return policy
}

// ChartData is the JSON of the charts.
func (p pageData) ChartData() (template.JS, error) {
	text, err := p.charts.encode()
	return template.JS(text), err
}

// Tiles is the section that is shown as tiles, if there is one.
func (p pageData) Tiles() [][]Cell {
	for _, s := range p.Sections {
		if s.Form == FormTiles {
			return s.Rows
		}
	}
	return nil
}

// Shown are the sections of tables that are open.
func (p pageData) Shown() []Section {
	return slices.DeleteFunc(slices.Clone(p.Sections), func(s Section) bool {
		return s.Folded || s.Form == FormTiles
	})
}

// Hidden are the sections that one opens.
func (p pageData) Hidden() []Section {
	return slices.DeleteFunc(slices.Clone(p.Sections), func(s Section) bool { return !s.Folded })
}

// Headed reports whether any column has a name.
func (s Section) Headed() bool {
	return slices.ContainsFunc(s.Columns, func(c Column) bool { return c.Name != "" })
}

// Class is the class of the table. Where the columns of one are too many for a screen, each row is a
// block: a wide one's on a phone, a wider one's on a tablet, too.
func (s Section) Class() string {
	switch n := len(s.Columns); {
	case s.Form == FormPairs:
		return "pairs"
	case n > 6:
		return "wide wider"
	case n > 4:
		return "wide"
	}

	return "plain"
}
