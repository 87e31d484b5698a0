package prompt

import "fmt"

// TemplateError is the error of a template or of the name of a column. It concerns all rows of
// a table.
type TemplateError struct {
	// Flag is the flag of the command line that has the template, such as --prompt.
	Flag string
	// Message says what is wrong, such as "the table has no column txt".
	Message string
	// Column is the name of the column that the table does not have; empty for any other fault.
	Column string
	// Hint says how to write it; empty if there is nothing to add.
	Hint string
}

// Error implements error.
func (e *TemplateError) Error() string {
	text := e.Flag + ": " + e.Message
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// CellError is the error of a row: a cell is empty or cannot be used.
type CellError struct {
	// Flag is the flag of the command line that uses the cell, such as --prompt.
	Flag string
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
