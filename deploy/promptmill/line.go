package main

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/width"

	"github.com/promptmill/promptmill/deploy/exit"
)

// line is a line of text for a terminal.
type line []span

// span is text of one colour.
type span struct {
	text   string
	colour string // an escape sequence, or empty
}

const (
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	normal = "\x1b[0m"
)

// text makes a line of one colour.
func text(s string) line { return line{{text: s}} }

// width is how many cells the line takes.
func (l line) width() (cells int) {
	for _, s := range l {
		cells += textWidth(s.text)
	}
	return cells
}

// cut is what of the line has room in some cells, with a mark where something is left
// out: half a number would be a wrong one.
func (l line) cut(cells int) (out line) {
	if l.width() <= cells {
		return l
	}

	if cells--; cells < 0 {
		return nil
	}

	for _, s := range l {
		kept := cutText(s.text, cells)
		if len(kept) < len(s.text) {
			return append(out, span{kept + "…", s.colour})
		}
		out = append(out, s)
		cells -= textWidth(kept)
	}

	return out
}

// String is the line with its colours.
func (l line) String() string {
	var b strings.Builder
	for _, s := range l {
		if s.colour == "" || s.text == "" {
			b.WriteString(s.text)
			continue
		}
		b.WriteString(s.colour + s.text + normal)
	}

	return b.String()
}

// plain is the line without colours.
func (l line) plain() line {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.text)
	}
	return text(b.String())
}

// cutText is the beginning of a text that has room in some cells.
func cutText(s string, cells int) string {
	for i, r := range s {
		if cells -= runeWidth(r); cells < 0 {
			return s[:i]
		}
	}
	return s
}

func textWidth(s string) (cells int) {
	for _, r := range s {
		cells += runeWidth(r)
	}
	return cells
}

// runeWidth is how many cells a terminal gives a character.
func runeWidth(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case width.LookupRune(r).Kind() == width.EastAsianWide, width.LookupRune(r).Kind() == width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// What others chose (names, models, custom_ids, answers of servers) is printed through
// printf, [screen.say] and printError alone, so that it can neither move the cursor nor make
// a line look like another's. JSON has escapes of its own.

// printf prints a line for people.
func printf(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, format, printableArgs(args)...)
}

// printError prints an error and its hint for a person, unless it has been reported.
func printError(w io.Writer, err error) {
	if exit.IsReported(err) {
		return
	}

	fmt.Fprintf(w, "promptmill: error: %s\n", printableLines(err.Error()))
	if hint := exit.Hint(err); hint != "" {
		fmt.Fprintf(w, "promptmill: hint: %s\n", printableLines(hint))
	}
}

// printableArgs are arguments of a format in which all texts are printable.
func printableArgs(args []any) []any {
	clean := slices.Clone(args)
	for i, arg := range clean {
		switch arg := arg.(type) {
		case time.Duration, time.Time:
		case error:
			clean[i] = printable(arg.Error())
		case fmt.Stringer:
			clean[i] = printable(arg.String())
		case []byte:
			clean[i] = printable(string(arg))
		default:
			if v := reflect.ValueOf(arg); v.Kind() == reflect.String {
				clean[i] = printable(v.String())
			}
		}
	}

	return clean
}

// printable is a text on one line, without characters that do something: escape sequences,
// the C1 controls, what turns the direction of writing around.
func printable(s string) string { return strings.Map(printableRune, s) }

// printableLines is printable for a text of several lines.
func printableLines(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' {
			return r
		}
		return printableRune(r)
	}, s)
}

func printableRune(r rune) rune {
	switch {
	case unicode.IsPrint(r):
		return r
	case unicode.IsSpace(r):
		return ' '
	}
	return '?'
}

// shortName is a name in some cells at most.
func shortName(s string, cells int) string {
	if s = printable(s); textWidth(s) > cells {
		return cutText(s, cells-3) + "..."
	}
	return s
}

// printable is the line with printable texts.
func (l line) printable() line {
	l = slices.Clone(l)
	for i := range l {
		l[i].text = printable(l[i].text)
	}
	return l
}

// table gives the rows equal columns, two cells apart. Empty columns are left out.
func table(rows [][]span) []line {
	var columns []int
	for _, row := range rows {
		for i, s := range row {
			if i == len(columns) {
				columns = append(columns, 0)
			}
			if i < len(row)-1 { // nothing comes after the last
				columns[i] = max(columns[i], textWidth(s.text))
			}
		}
	}

	lines := make([]line, len(rows))
	for i, row := range rows {
		gap := 0
		for j, s := range row {
			if s.text == "" && columns[j] == 0 {
				continue
			}

			if s.text != "" {
				lines[i] = append(lines[i], span{text: strings.Repeat(" ", gap)}, s)
				gap = 0
			}

			gap += columns[j] - textWidth(s.text) + 2
		}
	}

	return lines
}
