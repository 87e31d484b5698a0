package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Table holds the figures of a section.
type Table struct {
	Name    string   `json:"name"`
	About   string   `json:"about"`
	Columns []string `json:"columns"`
	Rows    []Row    `json:"rows"`
}

// Row is one thing that was measured.
type Row struct {
	Name    string          `json:"name"`
	Figures map[string]Stat `json:"figures"` // by column; absent where a column does not apply
}

func newTable(s section) Table {
	t := Table{Name: s.name, About: s.about, Rows: []Row{}}
	for _, c := range s.columns {
		t.Columns = append(t.Columns, c.name)
	}
	return t
}

// addSamples takes in the samples of a round. A value that is not a number does not apply.
func (t *Table) addSamples(columns []column, samples []sample) {
	values := make(map[string]map[string]float64, len(samples)) // by row and column
	for _, s := range samples {
		row, rest := map[string]float64{}, s.values
		for _, c := range columns {
			if c.against == "" {
				row[c.name], rest = rest[0], rest[1:]
			}
		}

		values[s.row] = row
	}

	for _, s := range samples {
		row := t.findRow(s.row)
		for _, c := range columns {
			v := values[s.row][c.name]
			if c.against != "" {
				v = math.NaN()
				if base, ok := values[c.against]; ok {
					v = values[s.row][c.of] / base[c.of]
				}
			}

			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				row.Figures[c.name] = newStat(append(row.Figures[c.name].Values, v))
			}
		}
	}
}

func (t *Table) findRow(name string) *Row {
	i := slices.IndexFunc(t.Rows, func(r Row) bool { return r.Name == name })
	if i < 0 {
		i = len(t.Rows)
		t.Rows = append(t.Rows, Row{Name: name, Figures: map[string]Stat{}})
	}
	return &t.Rows[i]
}

// sortRows puts the rows in the order of the names; others stay behind them as they are.
func (t *Table) sortRows(names []string) {
	place := func(r Row) int {
		if i := slices.Index(names, r.Name); i >= 0 {
			return i
		}
		return len(names)
	}
	slices.SortStableFunc(t.Rows, func(a, b Row) int { return cmp.Compare(place(a), place(b)) })
}

// printText writes the table as text, each column as wide as it must be.
func (t Table) printText(w io.Writer) error {
	lines := [][]string{append([]string{""}, t.Columns...)}
	for _, r := range t.Rows {
		line := []string{r.Name}
		for _, c := range t.Columns {
			if s, ok := r.Figures[c]; ok {
				line = append(line, s.String())
			} else {
				line = append(line, "-")
			}
		}

		lines = append(lines, line)
	}

	widths := make([]int, len(t.Columns)+1)
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}

	var text strings.Builder
	fmt.Fprintf(&text, "\n%s: %s\n", t.Name, t.About)

	for _, line := range lines {
		for i, cell := range line {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				text.WriteString("  " + cell + space)
			} else {
				text.WriteString("  " + space + cell)
			}
		}

		text.WriteByte('\n')
	}

	_, err := io.WriteString(w, text.String())

	return err
}
