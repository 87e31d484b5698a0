package terminal

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Columns are a table of texts whose columns give way where it is too wide for the terminal.
//
// They give way in steps, from 1 to 9, until the table fits. A step of 0 means that a column does
// not give way in that manner.
type Columns []Column

// Column is a column of a table.
type Column struct {
	// Head is above the cells.
	Head string
	// Cells are the texts, one for each row of the table. All columns have as many.
	Cells []string
	// CutAt is the step at which cells of more than Least cells of the terminal are cut.
	CutAt, Least int
	// BriefAt is the step at which Brief replaces Cells.
	BriefAt int
	Brief   []string
	// DropAt is the step at which the column is left out.
	DropAt int
}

// CellsOf returns a function that returns the cells of a column: a text for each row.
func CellsOf[Row any](rows []Row) func(format func(Row) string) []string {
	return func(format func(Row) string) (cells []string) {
		for _, row := range rows {
			cells = append(cells, format(row))
		}
		return cells
	}
}

// lastStep is the last step in which columns give way.
const lastStep = 9

// fit returns the table in at most width cells, if it can have so few; 0: without a limit.
func (t Columns) fit(width int) Columns {
	for step := 1; step <= lastStep && width > 0 && t.width() > width; step++ {
		var rest Columns
		for _, c := range t {
			if c.DropAt == step {
				continue
			}

			if c.BriefAt == step {
				c.Cells = c.Brief
			}

			rest = append(rest, c)
		}

		t = rest
		if cut := t.cut(step, width); cut.width() <= width || step == lastStep {
			t = cut
		}
	}

	return t
}

// cut returns the table with long cells cut in the columns that give way until a step, as far as
// width needs it: the columns of the first steps first.
func (t Columns) cut(last, width int) Columns {
	t = slices.Clone(t)
	for step := 1; step <= last; step++ {
		for i, c := range t {
			if excess := t.width() - width; c.CutAt == step && excess > 0 {
				t[i].Cells = cutCells(c.Cells, max(c.Least, c.width()-excess))
			}
		}
	}

	return t
}

// cutCells returns cells of at most width.
func cutCells(cells []string, width int) []string {
	cut := make([]string, len(cells))
	for i, c := range cells {
		cut[i] = TruncateName(c, width)
	}
	return cut
}

// width returns the width of the table's lines.
func (t Columns) width() (cells int) {
	for _, c := range t {
		cells += c.width() + columnGap
	}
	return cells - columnGap
}

// width returns the width of the column.
func (c Column) width() int {
	cells := TextWidth(c.Head)
	for _, text := range c.Cells {
		cells = max(cells, TextWidth(text))
	}
	return cells
}

// columnGap is the number of spaces between two columns.
const columnGap = 2

// Print prints the table in at most width cells, if it can have so few; 0: without a limit.
func (t Columns) Print(w io.Writer, width int) error {
	for i, c := range t {
		for j, text := range c.Cells {
			t[i].Cells[j] = Printable(text)
		}
	}

	t = t.fit(width)

	widths := make([]int, len(t))
	for i, c := range t {
		widths[i] = c.width()
	}

	lines := []string{t.formatRow(widths, func(c Column) string { return c.Head })}
	for i := range t[0].Cells {
		lines = append(lines, t.formatRow(widths, func(c Column) string { return c.Cells[i] }))
	}

	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))

	return err
}

// formatRow formats one cell of each column as a line.
func (t Columns) formatRow(widths []int, cell func(Column) string) string {
	var b strings.Builder
	for i, c := range t {
		text := cell(c)
		b.WriteString(text + strings.Repeat(" ", widths[i]-TextWidth(text)+columnGap))
	}

	return strings.TrimRight(b.String(), " ")
}
