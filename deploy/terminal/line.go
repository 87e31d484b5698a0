package terminal

import (
	"slices"
	"strings"

	"github.com/rivo/uniseg"
)

// Line is a line of text for a terminal.
type Line []Span

// Span is text of one colour.
type Span struct {
	// Text is the text.
	Text string
	// Colour is the escape sequence of its colour. Empty for that of the terminal.
	Colour string
	// Whole keeps the words of the text on one line, for a command that people copy.
	Whole bool
}

// Colours of spans.
const (
	Red    = "\x1b[31m"
	Green  = "\x1b[32m"
	Yellow = "\x1b[33m"
	Dim    = "\x1b[2m"
	reset  = "\x1b[0m"
)

// NewLine returns a line without colours.
func NewLine(s string) Line { return Line{{Text: s}} }

// Width returns how many cells the line takes.
func (l Line) Width() (cells int) {
	for _, s := range l {
		cells += TextWidth(s.Text)
	}
	return cells
}

// cut returns the part of the line that fits into cells, with a mark where something is
// missing: half a number would be a wrong one.
func (l Line) cut(cells int) (out Line) {
	if l.Width() <= cells {
		return l
	}

	if cells--; cells < 0 {
		return nil
	}

	for _, s := range l {
		kept := cutText(s.Text, cells)
		if len(kept) < len(s.Text) {
			return append(out, Span{Text: kept + "…", Colour: s.Colour})
		}
		out = append(out, s)
		cells -= TextWidth(kept)
	}

	return out
}

// String returns the line with its colours.
func (l Line) String() string {
	var b strings.Builder
	for _, s := range l {
		text := breakable(s.Text)
		if s.Colour != "" && text != "" {
			text = s.Colour + text + reset
		}
		b.WriteString(text)
	}

	return b.String()
}

// Plain returns the line without colours.
func (l Line) Plain() Line {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.Text)
	}
	return NewLine(b.String())
}

// cutText returns the beginning of a text that fits into cells.
func cutText(s string, cells int) string {
	rest, state := s, -1
	for rest != "" {
		var width int
		at := len(s) - len(rest)
		_, rest, width, state = uniseg.FirstGraphemeClusterInString(rest, state)
		if cells -= width; cells < 0 {
			return s[:at]
		}
	}

	return s
}

// TextWidth returns how many cells a terminal gives a text: two to a wide character, and one to a
// letter with its accents.
func TextWidth(s string) int { return uniseg.StringWidth(s) }

// makePrintable returns the line with printable texts.
func (l Line) makePrintable() Line {
	l = slices.Clone(l)
	for i := range l {
		l[i].Text = Printable(l[i].Text)
		if l[i].Whole {
			l[i].Text = keepTogether(l[i].Text)
		}
	}
	return l
}

// Table returns the rows as lines with aligned columns, two cells apart. It leaves out columns
// without text.
func Table(rows [][]Span) []Line {
	var columns []int
	for _, row := range rows {
		for i, s := range row {
			if i == len(columns) {
				columns = append(columns, 0)
			}
			if i < len(row)-1 { // nothing follows the last
				columns[i] = max(columns[i], TextWidth(s.Text))
			}
		}
	}

	lines := make([]Line, len(rows))
	for i, row := range rows {
		gap := 0
		for j, s := range row {
			if s.Text == "" && columns[j] == 0 {
				continue
			}

			if s.Text != "" {
				lines[i] = append(lines[i], Span{Text: strings.Repeat(" ", gap)}, s)
				gap = 0
			}

			gap += columns[j] - TextWidth(s.Text) + 2
		}
	}

	return lines
}
