package sample

import (
	"fmt"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/prompt"
)

// RefusedError is the error of an input with lines or rows that cannot be sent.
type RefusedError struct {
	// Report has these lines.
	Report producer.Report
	// Requests is the number of all that were read.
	Requests int
}

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("%d of %d requests cannot be sent", e.Report.Count, e.Requests)
}

// MissingError is the error of a column or a field with the expected answer that no request has.
type MissingError struct {
	// Name is the name of the column or the field.
	Name string
	// Names are the columns of the table, or the fields of the first line.
	Names []string
	// IsRow reports that it is a column.
	IsRow bool
}

// Error implements error.
func (e *MissingError) Error() string {
	isThere := slices.Contains(e.Names, e.Name)
	switch {
	case e.IsRow && isThere:
		return fmt.Sprintf("the column %s is empty in all rows of the sample", e.Name)
	case e.IsRow:
		return "the table has no column " + e.Name
	case isThere:
		return fmt.Sprintf("the field %s is null in all requests of the sample", e.Name)
	}

	return "no request of the sample has the field " + e.Name
}

// Hint returns how to name it, as the end of a sentence; empty if there is nothing to say.
func (e *MissingError) Hint() string {
	if slices.Contains(e.Names, e.Name) || len(e.Names) == 0 {
		return ""
	}

	if nearest := prompt.NearestName(e.Name, e.Names); nearest != "" {
		return fmt.Sprintf("did you mean %s?", nearest)
	}

	const most = 10
	names, more := e.Names, ""
	if len(names) > most+1 {
		names, more = names[:most], fmt.Sprintf(" and %d more", len(names)-most)
	}

	has := "the first line has the fields "
	if e.IsRow {
		has = "the table has the columns "
	}

	return has + strings.Join(names, ", ") + more
}
