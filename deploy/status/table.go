package status

import (
	"fmt"
	"io"
	"strings"

	"github.com/promptmill/promptmill/deploy/terminal"
)

// table is a table whose columns give way where it is too wide.
type table []column

// column is a column of a table. It gives way in steps, see [table.fit]: a column with a step of 0
// does not give way in that manner.
type column struct {
	head  string
	cells []string
	// cutAt is the step at which long cells are cut to least or more.
	cutAt, least int
	// briefAt is the step at which brief replaces cells.
	briefAt int
	brief   []string
	// dropAt is the step at which the column is left out.
	dropAt int
}

// lastStep is the last step of [table.fit].
const lastStep = 9

// fit returns the table in at most width cells, if it can have so few; 0: without a limit.
func (t table) fit(width int) table {
	for step := 1; step <= lastStep && width > 0 && t.width() > width; step++ {
		var rest table
		for _, c := range t {
			if c.dropAt == step {
				continue
			}
			if c.briefAt == step {
				c.cells = c.brief
			}
			rest = append(rest, c)
		}

		t = rest
		for i, c := range t {
			if excess := t.width() - width; c.cutAt == step && excess > 0 {
				t[i].cells = cutCells(c.cells, max(c.least, c.width()-excess))
			}
		}
	}

	return t
}

// cutCells returns cells of at most width.
func cutCells(cells []string, width int) []string {
	cut := make([]string, len(cells))
	for i, c := range cells {
		cut[i] = terminal.TruncateName(c, width)
	}
	return cut
}

// width returns the width of the table's lines.
func (t table) width() (cells int) {
	for _, c := range t {
		cells += c.width() + columnGap
	}
	return cells - columnGap
}

// width returns the width of the column.
func (c column) width() int {
	cells := terminal.TextWidth(c.head)
	for _, text := range c.cells {
		cells = max(cells, terminal.TextWidth(text))
	}
	return cells
}

// columnGap is the number of spaces between two columns.
const columnGap = 2

// print prints the table in at most width cells, if it can have so few; 0: without a limit.
func (t table) print(w io.Writer, width int) error {
	for i, c := range t {
		for j, text := range c.cells {
			t[i].cells[j] = terminal.Printable(text)
		}
	}

	t = t.fit(width)

	widths := make([]int, len(t))
	for i, c := range t {
		widths[i] = c.width()
	}

	lines := []string{t.formatRow(widths, func(c column) string { return c.head })}
	for i := range t[0].cells {
		lines = append(lines, t.formatRow(widths, func(c column) string { return c.cells[i] }))
	}

	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))

	return err
}

// formatRow formats one cell of each column as a line.
func (t table) formatRow(widths []int, cell func(column) string) string {
	var b strings.Builder
	for i, c := range t {
		text := cell(c)
		b.WriteString(text + strings.Repeat(" ", widths[i]-terminal.TextWidth(text)+columnGap))
	}

	return strings.TrimRight(b.String(), " ")
}
