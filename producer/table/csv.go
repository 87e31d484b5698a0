package table

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/promptmill/promptmill/producer/fileformat"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// csvReader reads the rows of CSV and TSV.
type csvReader struct {
	text   *textFile
	format string
	buffer rowBuffer
	parser csvParser
	// columns are the columns.
	columns  []Column
	position Position
	// firstLine is the number of the first line of the row that was read last.
	firstLine int
	// values are the values of the row that was returned last.
	values []Value
	// err ended the file; nil before.
	err error
}

// openCSV returns the reader of a text in CSV. delimiter is 0 if it is not known.
func openCSV(ctx context.Context, text *textFile, format string, delimiter rune) (Reader, error) {
	cfg := text.cfg
	switch {
	case cfg.Table.Delimiter != "":
		delimiter, _ = utf8.DecodeRuneInString(cfg.Table.Delimiter)
		if len(cfg.Table.Delimiter) != utf8.RuneLen(delimiter) || slices.Contains([]rune("\"\r\n"), delimiter) {
			text.Close()
			return nil, fmt.Errorf("the delimiter %q is not one character, such as ; or a tab", cfg.Table.Delimiter)
		}
	case format == proto.FormatTSV:
		delimiter = '\t'
	case delimiter == 0:
		delimiter = fileformat.FindDelimiter(text.start, text.whole)
	}

	line := 0
	if named, size := text.findDelimiterLine(); size > 0 {
		if cfg.Table.Delimiter == "" {
			delimiter = named
		}

		if _, err := io.CopyN(io.Discard, text, int64(size)); err != nil {
			text.Close()
			return nil, err
		}

		line = 1
		text.offset += int64(size)
	}

	r := &csvReader{
		text:     text,
		format:   format,
		buffer:   rowBuffer{r: text, offset: text.offset},
		parser:   csvParser{delimiter: []byte(string(delimiter))},
		position: Position{Offset: text.offset, Line: line},
	}

	if err := r.readHeader(); err != nil {
		text.Close()
		return nil, err
	}

	if cfg.From.Offset > r.position.Offset {
		if err := text.continueAt(ctx, cfg.From.Offset); err != nil {
			return nil, err
		}
		r.buffer = rowBuffer{r: text, offset: cfg.From.Offset}
		r.position = cfg.From
	}

	return r, nil
}

// readHeader finds the columns.
func (r *csvReader) readHeader() error {
	names := r.text.cfg.Table.Columns
	if len(names) == 0 {
		text, err := r.nextRow()
		if errors.Is(err, io.EOF) {
			return nil // an empty file
		}

		if wrong, ok := errors.AsType[*RowError](err); ok {
			return r.text.newFileError(0, wrong.Line, "the header is wrong: "+wrong.Message)
		}

		if err != nil {
			return err
		}

		for _, field := range r.parser.fields {
			names = append(names, string(r.parser.value(text, field).Text))
		}

		r.position.Row = 0
	}

	columns, err := nameColumns(names)
	if err != nil {
		return r.text.newFileError(0, r.position.Line, err.Error())
	}

	r.columns = columns
	r.parser.only = selectColumns(r.columns, r.text.cfg.Only)

	return nil
}

// Format implements Reader.
func (r *csvReader) Format() string { return r.format }

// Delimiter implements Reader.
func (r *csvReader) Delimiter() string { return string(r.parser.delimiter) }

// Columns implements Reader.
func (r *csvReader) Columns() []Column { return r.columns }

// Position implements Reader.
func (r *csvReader) Position() Position { return r.position }

// Close implements Reader.
func (r *csvReader) Close() error { return r.text.Close() }

// Next implements Reader.
func (r *csvReader) Next() (Row, error) {
	text, err := r.nextRow()
	if err != nil {
		return Row{}, err
	}

	fields := r.parser.fields
	if len(fields) != len(r.columns) {
		return Row{}, &RowError{
			Number:  r.position.Row,
			Line:    r.firstLine,
			Message: r.describeCount(len(fields)),
		}
	}

	r.values = r.values[:0]
	for i, field := range fields {
		var value Value
		if r.parser.only[i] {
			value = r.parser.value(text, field)
		}
		r.values = append(r.values, value)
	}

	return Row{
		Number:  r.position.Row,
		Line:    r.firstLine,
		Columns: r.columns,
		Values:  r.values,
	}, nil
}

var lineFeed = []byte("\n")

// describeCount describes a row with a wrong number of fields.
func (r *csvReader) describeCount(fields int) string {
	noun, than := "fields", "the header has"
	if fields == 1 {
		noun = "field"
	}
	if len(r.text.cfg.Table.Columns) > 0 {
		than = "there are names for"
	}

	return fmt.Sprintf("it has %d %s, and %s %d", fields, noun, than, len(r.columns))
}

// nextRow returns the text of the next row, whose fields the parser has, and moves behind it.
func (r *csvReader) nextRow() ([]byte, error) {
	if r.err == nil {
		r.err = r.skipBlankLines()
	}
	if r.err != nil {
		return nil, r.err
	}

	r.firstLine = r.position.Line + 1

	text, err := r.parseRow()
	if errors.Is(err, errOpenQuote) || errors.Is(err, jsonl.ErrLineTooLong) {
		message := err.Error()
		if errors.Is(err, jsonl.ErrLineTooLong) {
			message = fmt.Sprintf("the row is longer than %d MiB; is there a quote that never ends?", jsonl.MaxLine>>20)
		}

		r.err = r.text.newFileError(r.position.Row+1, r.firstLine, message)

		return nil, r.err
	}

	if err != nil && text == nil {
		r.err = err
		return nil, err
	}

	r.buffer.skip(len(text))
	r.position.Offset = r.buffer.offset
	r.position.Row++

	r.position.Line += bytes.Count(text, lineFeed)
	if !bytes.HasSuffix(text, lineFeed) {
		r.position.Line++
	}

	if err == nil {
		err = r.text.check(text)
	}
	if err != nil {
		return nil, &RowError{Number: r.position.Row, Line: r.firstLine, Message: err.Error()}
	}

	return text, nil
}

// parseRow returns the text of the row that comes next, with an error if it is wrong.
func (r *csvReader) parseRow() ([]byte, error) {
	for {
		text, whole := r.buffer.text()
		size, err := r.parser.parse(text, whole)
		switch {
		case !errors.Is(err, errNotComplete) && size > jsonl.MaxLine,
			errors.Is(err, errNotComplete) && len(text) > jsonl.MaxLine:
			return nil, jsonl.ErrLineTooLong
		case !errors.Is(err, errNotComplete):
			return text[:size], err
		}

		if err := r.buffer.fill(); err != nil {
			return nil, err
		}
	}
}

// skipBlankLines moves to the next line that is not empty. The error is [io.EOF] if there is none.
func (r *csvReader) skipBlankLines() error {
	for {
		text, whole := r.buffer.text()
		n := 0
		for n < len(text) && (text[n] == '\n' || text[n] == '\r' && n+1 < len(text) && text[n+1] == '\n') {
			n++
		}

		r.position.Line += bytes.Count(text[:n], lineFeed)
		r.buffer.skip(n)

		rest := text[n:]
		switch isReturn := len(rest) == 1 && rest[0] == '\r'; {
		case len(rest) > 0 && !isReturn:
			return nil
		case whole:
			return io.EOF
		}

		if err := r.buffer.fill(); err != nil {
			return err
		}
	}
}

// selectColumns says of each column whether its values are read.
func selectColumns(columns []Column, only []string) []bool {
	selected := make([]bool, len(columns))
	for i, c := range columns {
		selected[i] = len(only) == 0 || slices.Contains(only, c.Name)
	}
	return selected
}
