package table

import (
	"io"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

// Reader reads the rows of a file, in their order. It is not safe for concurrent use.
type Reader interface {
	// Format returns the format of the file, one of [proto.TableFormats].
	Format() string
	// Delimiter returns the character between the fields of CSV and TSV; empty for any other format.
	Delimiter() string
	// Columns returns the columns of the file, in their order. Of JSON, where each row has its
	// own, they are the columns of the first good row.
	Columns() []Column
	// Next returns the next row, which is valid until the next call, and [io.EOF] at the end. A
	// [RowError] is the error of this row alone: the next call returns the row behind it.
	Next() (Row, error)
	// Position returns the place behind the row that was returned last.
	Position() Position
	// Close closes the file.
	Close() error
}

// Position is a place between two rows of a file.
type Position struct {
	// Offset is an offset in the text of the file, if it is text.
	Offset int64
	// Row counts the rows before the place.
	Row int
	// Line counts the lines of text before the place.
	Line int
}

// Config says how a file is read.
type Config struct {
	// Opener opens the file. Required.
	Opener inputfile.Opener
	// File is the file. Required.
	File proto.File
	// Origin is the path that the rows are from, if the file is a copy or was moved: its folders give
	// columns. Defaults to the path of File.
	Origin string
	// Table has the format, the columns, the delimiter and the encoding.
	Table proto.Table
	// Only are the columns whose values are read. Others are null in the rows. Defaults to all.
	// A column that the file does not have is ignored.
	Only []string
	// Text gets the unpacked text of a file of text as it is read, if From is the beginning:
	// all of it, when Next returns io.EOF. It gets nothing of Parquet. Defaults to none.
	Text io.Writer
	// From is the place of the first row. Defaults to the beginning.
	From Position
}

// Column is a column of a table.
type Column struct {
	// Name is the name of the column.
	Name string
	// Unnamed is set if the header of the file has no name for the column. Name is column_N
	// then, where N is its place in the header, from 1.
	Unnamed bool
	// Kind is the kind of its values; KindNull if they differ, or are not known.
	Kind Kind
	// Parquet is the exact type, if the file is one of Parquet, else nil.
	Parquet *ParquetColumn
}

// Row is a row of a table.
type Row struct {
	// Number is the number of the row in its file, from 1.
	Number int
	// Line is the number of its first line in a file of text, else 0.
	Line int
	// Columns are the columns of the row. Readers whose rows all have the same share them.
	Columns []Column
	// Values are the values, one for each column.
	Values []Value
}
