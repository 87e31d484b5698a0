package prompt

import (
	"fmt"
	"strings"

	"github.com/promptmill/promptmill/producer/table"
)

// TemplateError is the error of a template or of the name of a column. It concerns all rows of
// a table.
type TemplateError struct {
	// Flag is the flag of the command line that has the template, such as --prompt.
	Flag string
	// Message says what is wrong, such as "the table has no column txt".
	Message string
	// Column is the name of the column that the table does not have; empty for any other fault.
	Column string
	// Nearest is the name of the column that may be meant; empty if none is like it.
	Nearest string
	// Columns are the names of the columns of the table, if Column is set.
	Columns []string
	// Hint says how to write it; empty if there is nothing to add.
	Hint string
}

// Error implements error.
func (e *TemplateError) Error() string {
	text := e.Flag + ": " + e.Message
	switch {
	case e.Nearest != "":
		text += fmt.Sprintf("; did you mean %s?", e.Nearest)
	case e.Column != "" && len(e.Columns) > 0:
		text += "; it has " + listNames(e.Columns)
	case e.Hint != "":
		text += "; " + e.Hint
	}

	return text
}

// listNames lists the first few names.
func listNames(names []string) string {
	const most = 10
	if len(names) > most {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// CellError is the error of a row: a cell is empty or cannot be used.
type CellError struct {
	// Column is the name of the column; empty if the row has several that may be at fault.
	Column string
	// Empty reports that the cell is empty.
	Empty bool
	// Reason says what is wrong, such as "it is empty".
	Reason string
}

// Error implements error.
func (e *CellError) Error() string {
	if e.Column == "" {
		return e.Reason
	}
	return fmt.Sprintf("column %s: %s", e.Column, e.Reason)
}

// newEmptyError returns the error of an empty cell.
func newEmptyError(column string) *CellError {
	return &CellError{
		Column: column,
		Empty:  true,
		Reason: "it is empty",
	}
}

// newColumnError returns the error of a column that the table does not have.
func newColumnError(flag, name string, columns []table.Column) *TemplateError {
	e := &TemplateError{
		Flag:    flag,
		Message: "the table has no column " + name,
		Column:  name,
	}
	for _, c := range columns {
		e.Columns = append(e.Columns, c.Name)
	}

	e.Nearest = nearestName(name, e.Columns)

	return e
}

// nearestName returns the name that is most like a name, empty if none is.
func nearestName(name string, names []string) string {
	nearest, least := "", max(1, len(name)/3)+1
	for _, other := range names {
		if n := countEdits(strings.ToLower(name), strings.ToLower(other)); n < least {
			nearest, least = other, n
		}
	}
	return nearest
}

// countEdits counts the bytes to insert, remove or replace that make one text of another
// (Levenshtein, 1965).
func countEdits(a, b string) int {
	if max(len(a), len(b)) > 100 {
		return 100
	}

	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}

	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := corner
			if a[i] != b[j] {
				replaced++
			}
			corner = row[j+1]
			row[j+1] = min(replaced, row[j+1]+1, row[j]+1)
		}
	}

	return row[len(b)]
}
