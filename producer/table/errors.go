package table

import "fmt"

// FileError is the error of a file that is a table, and cannot be read, or not beyond some row.
type FileError struct {
	// File is the path of the file, as given.
	File string
	// Number is the number of the row at fault in its file, from 1; 0 if it is the header.
	Number int
	// Line is the number of the line at fault, if the file is text with lines, else 0.
	Line int
	// Message says what is wrong, such as "a field begins with a quote that never ends".
	Message string
}

// Error implements error.
func (e *FileError) Error() string {
	place := e.File
	if e.Number > 0 {
		place += fmt.Sprintf(", row %d", e.Number)
	}
	if e.Line > 0 {
		place += fmt.Sprintf(", line %d", e.Line)
	}
	return place + ": " + e.Message
}
