package terminal

import "strings"

// noBreak stands for a space at which a line is not broken, until the line is written. Printable
// text has none.
const noBreak = "\u00a0"

// Command is a command line in the arguments of a format. A line is not broken inside it, so that
// it can be copied from the terminal.
type Command string

// keepTogether replaces the spaces of a text by those at which a line is not broken.
func keepTogether(s string) string { return strings.ReplaceAll(s, " ", noBreak) }

// breakable undoes keepTogether.
func breakable(s string) string { return strings.ReplaceAll(s, noBreak, " ") }

// maxLabel is the largest width of a label to whose right the rest of a broken line is aligned.
const maxLabel = 16

// wrap breaks the line at spaces into lines of less than width cells. A word that has no room in
// any line stays where it is, and the terminal breaks it: it can be copied.
func (l Line) wrap(width int) (lines []Line) {
	text := l.Plain()[0].Text
	if TextWidth(text) < width {
		return []Line{l}
	}

	most := width - 1
	indent := measureIndent(text, most/2)
	begin, end, used := 0, 0, 0 // of the current line: bytes of the text, and cells

	for end < len(text) {
		spaces := len(text[end:]) - len(strings.TrimLeft(text[end:], " "))
		word := text[end+spaces:]
		if i := strings.IndexByte(word, ' '); i >= 0 {
			word = word[:i]
		}

		cells, room := TextWidth(word), most
		if len(lines) > 0 {
			room -= indent
		}

		isFirst := strings.TrimSpace(text[begin:end]) == ""
		if used+spaces+cells > room && cells <= most-indent && !isFirst {
			lines = append(lines, l.slice(begin, end, len(lines) > 0, indent))
			begin, used = end+spaces, 0
			spaces = 0
			end = begin
		}

		used += spaces + cells
		if used > room { // the terminal breaks the word
			used %= max(1, width)
		}
		end += spaces + len(word)
	}

	return append(lines, l.slice(begin, end, len(lines) > 0, indent))
}

// WrapLines breaks the lines of a text at spaces into lines of less than width cells; 0: it leaves
// them as they are.
func WrapLines(text string, width int) (lines []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if width == 0 {
			lines = append(lines, line)
			continue
		}

		for _, part := range NewLine(line).wrap(width) {
			lines = append(lines, part.String())
		}
	}

	return lines
}

// slice returns the bytes from begin to end of the text of the line, with an indent in front if it
// continues a line.
func (l Line) slice(begin, end int, continues bool, indent int) (part Line) {
	if continues {
		part = append(part, Span{Text: strings.Repeat(" ", indent)})
	}

	for _, s := range l {
		from, to := min(max(begin, 0), len(s.Text)), min(max(end, 0), len(s.Text))
		if from < to {
			part = append(part, Span{Text: s.Text[from:to], Colour: s.Colour})
		}
		begin, end = begin-len(s.Text), end-len(s.Text)
	}

	return part
}

// measureIndent returns the indent of the lines that continue a text: at the right of its label, if
// it begins with one and two spaces, or two cells more than its own. It is at most most cells.
func measureIndent(text string, most int) int {
	rest := strings.TrimLeft(text, " ")
	lead := len(text) - len(rest)
	indent := lead + 2

	if gap := strings.Index(rest, "  "); gap > 0 {
		label := lead + TextWidth(rest[:gap])
		spaces := len(rest[gap:]) - len(strings.TrimLeft(rest[gap:], " "))
		if label+spaces <= maxLabel {
			indent = label + spaces
		}
	}

	if indent > most {
		return min(2, most)
	}

	return indent
}
