package table

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// jsonArray reads the rows of one JSON array.
type jsonArray struct {
	text  *textFile
	bound boundedReader
	dec   *jsontext.Decoder
	// base is the offset in the text at which the text of the decoder begins.
	base     int64
	parser   jsonParser
	columns  []Column
	position Position
	// err ended the file; nil before.
	err error
}

// openJSONArray returns the reader of a text that is one JSON array.
func openJSONArray(ctx context.Context, text *textFile) (Reader, error) {
	columns, err := findColumns(ctx, text, func(t *textFile) Reader { return newJSONArray(t, "", t.offset) })
	if err != nil {
		text.Close()
		return nil, err
	}

	from := text.cfg.From
	if from.Row == 0 {
		r := newJSONArray(text, "", text.offset)
		r.columns = columns

		return r, nil
	}

	if err := text.continueAt(ctx, from.Offset); err != nil {
		return nil, err
	}

	const before = "[null" // stands for the rows before
	r := newJSONArray(text, before, from.Offset-int64(len(before)))
	r.columns, r.position = columns, from

	for range 2 { // [ and null
		if _, err := r.dec.ReadToken(); err != nil {
			text.Close()
			return nil, r.describeError(err)
		}
	}

	return r, nil
}

// newJSONArray returns a reader of the rows in a text, before which some text is put. base is
// the offset at which both begin.
func newJSONArray(text *textFile, before string, base int64) *jsonArray {
	r := &jsonArray{
		text:     text,
		bound:    boundedReader{r: io.MultiReader(strings.NewReader(before), text), limit: maxBuffer},
		base:     base,
		parser:   jsonParser{wanted: text.cfg.Only},
		position: Position{Offset: base},
	}

	r.dec = jsontext.NewDecoder(&r.bound, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

	return r
}

// Format implements Reader.
func (r *jsonArray) Format() string { return proto.FormatJSON }

// Delimiter implements Reader.
func (r *jsonArray) Delimiter() string { return "" }

// Columns implements Reader.
func (r *jsonArray) Columns() []Column { return r.columns }

// Position implements Reader.
func (r *jsonArray) Position() Position { return r.position }

// Close implements Reader.
func (r *jsonArray) Close() error { return r.text.Close() }

// Next implements Reader.
func (r *jsonArray) Next() (Row, error) {
	element, err := r.nextElement()
	if err != nil {
		return Row{}, err
	}

	r.position.Offset = r.base + r.dec.InputOffset()
	r.position.Row++

	var columns []Column
	var values []Value
	if err = r.text.checkDecoded(element); err == nil {
		columns, values, err = r.parser.parse(element)
	}
	if err != nil {
		return Row{}, &RowError{Number: r.position.Row, Message: err.Error()}
	}

	return Row{
		Number:  r.position.Row,
		Columns: columns,
		Values:  values,
	}, nil
}

// nextElement returns the next element of the array.
func (r *jsonArray) nextElement() ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}

	r.bound.limit = r.dec.InputOffset() + maxBuffer

	if r.dec.StackDepth() == 0 {
		token, err := r.dec.ReadToken()
		switch {
		case errors.Is(err, io.EOF) && r.bound.err == nil:
			return nil, r.end(io.EOF) // an empty file
		case err != nil:
			return nil, r.end(r.describeError(err))
		case token.Kind() != '[':
			return nil, r.end(r.text.newFileError(0, 0, "it is not a JSON array"))
		}
	}

	if r.dec.PeekKind() == ']' {
		return nil, r.end(r.readEnd())
	}

	element, err := r.dec.ReadValue()
	switch {
	case err != nil:
		return nil, r.end(r.describeError(err))
	case len(element) > jsonl.MaxLine:
		return nil, r.end(r.describeError(jsonl.ErrLineTooLong))
	}

	return element, nil
}

// readEnd reads the end of the array, and returns [io.EOF] if nothing follows it.
func (r *jsonArray) readEnd() error {
	if _, err := r.dec.ReadToken(); err != nil {
		return r.describeError(err)
	}

	end := r.base + r.dec.InputOffset()

	_, err := r.dec.ReadToken()
	switch {
	case errors.Is(err, io.EOF) && r.bound.err == nil:
		return io.EOF
	case r.bound.err != nil:
		return r.describeError(err)
	}

	return r.text.newFileError(0, 0, fmt.Sprintf("text follows the JSON array, which ends at byte %d", end))
}

// end keeps the error that ended the file.
func (r *jsonArray) end(err error) error {
	r.err = err
	return err
}

// describeError returns the error of the decoder in words for the author of the file.
func (r *jsonArray) describeError(err error) error {
	row := r.position.Row + 1
	syntax, isSyntax := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case errors.Is(err, jsonl.ErrLineTooLong), errors.Is(r.bound.err, jsonl.ErrLineTooLong):
		return r.text.newFileError(row, 0, fmt.Sprintf("the row is longer than %d MiB", jsonl.MaxLine>>20))
	case r.bound.err != nil:
		return r.bound.err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return r.text.newFileError(row, 0, "the file ends in the middle of its JSON array")
	case isSyntax:
		return r.text.newFileError(row, 0,
			fmt.Sprintf("it is not JSON, at byte %d of the file", r.base+syntax.ByteOffset+1))
	}

	return err
}

// boundedReader reads up to a limit, and keeps the error of its reader.
type boundedReader struct {
	r io.Reader
	// offset counts the bytes that were read. Reading at limit is the error [jsonl.ErrLineTooLong].
	offset, limit int64
	// err is the first error but [io.EOF]; nil if there is none.
	err error
}

// Read implements [io.Reader].
func (r *boundedReader) Read(p []byte) (int, error) {
	if r.offset >= r.limit {
		r.err = jsonl.ErrLineTooLong
		return 0, r.err
	}

	n, err := r.r.Read(p[:min(int64(len(p)), r.limit-r.offset)])
	r.offset += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}

	return n, err
}
