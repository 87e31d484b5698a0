package table

import (
	"fmt"

	"github.com/promptmill/promptmill/producer/fileformat"
)

// FormatError is the error of a file that is not a table, or not in the format that was given.
type FormatError struct {
	// File is the path of the file, as given.
	File string
	// Compression is "gzip" or "zstd" if the file is compressed, and empty if it is not. The format
	// describes the unpacked text.
	Compression string
	// Given is the format that was given, one of [proto.TableFormats]; empty if the contents
	// decided.
	Given string
	// HasOldLineEnds is set if the lines end as those of classic Mac OS do, with carriage
	// returns alone.
	HasOldLineEnds bool
	fileformat.Detection
}

// Error implements error.
func (e *FormatError) Error() string {
	of := ""
	if e.Run != "" {
		of = " of run " + e.Run
	}

	switch {
	case e.Transposed:
		return e.File + " is one JSON document with all rows of a table; promptmill reads an object of each row"
	case e.HasOldLineEnds:
		return e.File + " has the line ends of classic Mac OS, carriage returns without line feeds"
	case e.Format == fileformat.Gzip || e.Format == fileformat.Zstd:
		return fmt.Sprintf("%s is compressed twice: %s in %s", e.File, e.Format, e.Compression)
	case e.Format == fileformat.Results:
		return fmt.Sprintf("%s has answers%s, not rows to ask about", e.File, of)
	case e.Format == fileformat.Failures:
		return fmt.Sprintf("%s has the failed requests%s, not rows to ask about", e.File, of)
	case e.Format == fileformat.Metadata:
		return fmt.Sprintf("%s is the metadata%s, and has no rows", e.File, of)
	case e.Format == fileformat.JSONArray && e.Element != 0 && e.Element != '{':
		return e.File + " is one JSON array whose elements are not objects; a row is an object"
	case e.Format == fileformat.OtherText:
		return e.File + " is text that is not UTF-8, and its encoding is not given"
	case e.Format == fileformat.UTF16LE, e.Format == fileformat.UTF16BE:
		return e.File + " is UTF-16 text without a byte-order mark, and its encoding is not given"
	case e.Given != "":
		return fmt.Sprintf("%s looks like %s, and not like %s", e.File, e.Format, formatNames[e.Given])
	}

	return fmt.Sprintf("%s looks like %s; promptmill reads tables of CSV, TSV, Parquet, JSON lines, "+
		"one JSON array or lines of text", e.File, e.Format)
}

// RowError is the error of one row.
type RowError struct {
	// Number is the number of the row in its file, from 1.
	Number int
	// Line is the number of the line, if the file is text, else 0.
	Line int
	// Message says what is wrong, such as "it has 3 fields, and the header has 4".
	Message string
}

// Error implements error.
func (e *RowError) Error() string { return e.Message }

// FileError is the error of a file that is a table, and cannot be read, or not beyond some row.
type FileError struct {
	// File is the path of the file, as given.
	File string
	// Number is the number of the row at fault in its file, from 1; 0 if it is the header.
	Number int
	// Line is the number of the line at fault, if the file is text with lines, else 0.
	Line int
	// Message says what is wrong, such as "the file ends in the middle of its JSON array".
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
