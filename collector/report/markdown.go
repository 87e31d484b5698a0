package report

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Markdown writes the report as Markdown in GitHub's flavour, whose tables also read well as
// plain text.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", escapeMarkdown(r.Title))

	if r.Subtitle != "" {
		fmt.Fprintf(&b, "\n%s\n", escapeParagraph(r.Subtitle))
	}

	for _, text := range []string{r.Warning, r.Answer} {
		if text != "" {
			fmt.Fprintf(&b, "\n**%s**\n", strings.TrimSpace(escapeMarkdown(text)))
		}
	}

	if len(r.Conclusions) > 0 {
		b.WriteString("\n")
		for _, c := range r.Conclusions {
			fmt.Fprintf(&b, "- %s\n", escapeParagraph(c.Text))
		}
	}

	for _, s := range r.Sections {
		if len(s.Rows)+len(s.Commands) > 0 || s.Picture == "" {
			s.writeMarkdown(&b)
		}
	}

	if len(r.Next) > 0 {
		b.WriteString("\n## Next\n")
		writeCommands(&b, r.Next)
	}

	_, err := io.WriteString(w, b.String())

	return err
}

// writeCommands writes command lines with their purposes.
func writeCommands(b *strings.Builder, list []Command) {
	for _, c := range list {
		fmt.Fprintf(b, "\n%s:\n\n%s\n", escapeParagraph(c.Why), fenceCode(c.Line))
	}
}

func (s Section) writeMarkdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n", escapeMarkdown(s.Title))
	if len(s.Rows) > 0 {
		table := make([][]string, 1, len(s.Rows)+1)
		for _, c := range s.Columns {
			table[0] = append(table[0], escapeMarkdown(c.Name))
		}

		for _, row := range s.Rows {
			var cells []string
			for _, c := range row {
				cells = append(cells, escapeMarkdown(c.Text))
			}
			table = append(table, cells)
		}

		b.WriteString("\n")
		s.writeRows(b, table)
	}

	for _, note := range s.Notes {
		fmt.Fprintf(b, "\n%s\n", escapeParagraph(note))
	}

	writeCommands(b, s.Commands)
}

// writeRows writes a table, the first of whose rows is the head.
func (s Section) writeRows(b *strings.Builder, table [][]string) {
	width := make([]int, len(s.Columns))
	for _, row := range table {
		for i, cell := range row {
			width[i] = max(3, width[i], utf8.RuneCountInString(cell))
		}
	}

	for i, row := range table {
		for j, cell := range row {
			fill := strings.Repeat(" ", width[j]-utf8.RuneCountInString(cell))
			if s.Columns[j].Number {
				cell = fill + cell
			} else {
				cell += fill
			}

			b.WriteString("| " + cell + " ")
		}

		b.WriteString("|\n")
		if i > 0 {
			continue
		}

		for j, c := range s.Columns {
			line := strings.Repeat("-", width[j]+1)
			if c.Number {
				b.WriteString("|" + line + ":")
			} else {
				b.WriteString("|-" + line)
			}
		}

		b.WriteString("|\n")
	}
}

// escapeMarkdown is foreign text that Markdown and HTML in it see as text, in one line.
func escapeMarkdown(text string) string {
	var b strings.Builder
	text = joinLines(text)
	for i, r := range text {
		if strings.ContainsRune("\\`*[]<>|~&", r) || r == '_' && isWordEdge(text, i) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}

	return b.String()
}

// escapeParagraph is foreign text that begins a line.
func escapeParagraph(text string) string {
	text = strings.TrimSpace(escapeMarkdown(text))
	mark := strings.TrimLeft(text, "0123456789") // of a list, such as 1.
	if strings.ContainsAny(text[:min(1, len(text))], "#+-=") {
		return "\\" + text
	}

	if n := len(text) - len(mark); n > 0 && (strings.HasPrefix(mark, ". ") || strings.HasPrefix(mark, ") ")) {
		return text[:n] + "\\" + mark
	}

	return text
}

// isWordEdge reports whether the underscore at i is at the edge of a word: within one it
// emphasises nothing.
func isWordEdge(text string, i int) bool {
	before, _ := utf8.DecodeLastRuneInString(text[:i])
	after, _ := utf8.DecodeRuneInString(text[i+1:])
	inWord := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' }
	return !inWord(before) || !inWord(after)
}

// joinLines makes spaces of what would break a line, hide or turn around text.
func joinLines(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

// fenceCode is a block of code.
func fenceCode(text string) string {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fence + "sh\n" + joinLines(text) + "\n" + fence
}
