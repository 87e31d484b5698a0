package table

import (
	"context"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// jsonLines reads the rows of JSON lines. Blank lines are no rows.
type jsonLines struct {
	text     *textFile
	lines    *jsonl.Reader
	parser   jsonParser
	columns  []Column
	position Position
}

// openJSONLines returns the reader of a text of JSON lines.
func openJSONLines(ctx context.Context, text *textFile) (Reader, error) {
	columns, err := findColumns(ctx, text, func(t *textFile) Reader { return newJSONLines(t) })
	if err != nil {
		text.Close()
		return nil, err
	}

	r := newJSONLines(text)
	r.columns = columns

	r.lines, r.position, err = text.openLines(ctx)
	if err != nil {
		return nil, err
	}

	return r, nil
}

// newJSONLines returns a reader of the rows of a text.
func newJSONLines(text *textFile) *jsonLines {
	return &jsonLines{
		text:     text,
		lines:    jsonl.NewReaderAt(text, text.offset, 0),
		parser:   jsonParser{wanted: text.cfg.Only},
		position: Position{Offset: text.offset},
	}
}

// Format implements Reader.
func (r *jsonLines) Format() string { return proto.FormatJSONL }

// Delimiter implements Reader.
func (r *jsonLines) Delimiter() string { return "" }

// Columns implements Reader.
func (r *jsonLines) Columns() []Column { return r.columns }

// Position implements Reader.
func (r *jsonLines) Position() Position { return r.position }

// Close implements Reader.
func (r *jsonLines) Close() error { return r.text.Close() }

// Next implements Reader.
func (r *jsonLines) Next() (Row, error) {
	line, err := nextLine(r.lines, &r.position)
	if err != nil {
		return Row{}, err
	}

	var columns []Column
	var values []Value
	if err = r.text.checkDecoded(line); err == nil {
		columns, values, err = r.parser.parse(line)
	}
	if err != nil {
		return Row{}, &RowError{
			Number:  r.position.Row,
			Line:    r.position.Line,
			Message: err.Error(),
		}
	}

	return Row{
		Number:  r.position.Row,
		Line:    r.position.Line,
		Columns: columns,
		Values:  values,
	}, nil
}
