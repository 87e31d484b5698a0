package table

import (
	"context"
	"errors"
	"fmt"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// TextColumn is the column of lines of text.
const TextColumn = "text"

// lineReader reads lines of text. Blank lines are no rows.
type lineReader struct {
	text     *textFile
	lines    *jsonl.Reader
	only     bool
	columns  []Column
	position Position
	values   [1]Value
}

// openLines returns the reader of the lines of a text.
func openLines(ctx context.Context, text *textFile) (Reader, error) {
	lines, from, err := text.openLines(ctx)
	if err != nil {
		return nil, err
	}

	columns := []Column{{Name: TextColumn, Kind: KindText}}

	return &lineReader{
		text:     text,
		lines:    lines,
		only:     selectColumns(columns, text.cfg.Only)[0],
		columns:  columns,
		position: from,
	}, nil
}

// openLines moves to the place where the configuration starts, and returns a reader of the
// lines from there.
func (t *textFile) openLines(ctx context.Context) (*jsonl.Reader, Position, error) {
	from := t.cfg.From
	if from.Offset <= t.offset {
		return jsonl.NewReaderAt(t, t.offset, 0), Position{Offset: t.offset}, nil
	}

	if err := t.continueAt(ctx, from.Offset); err != nil {
		return nil, from, err
	}

	return jsonl.NewReaderAt(t, from.Offset, from.Line), from, nil
}

// Format implements Reader.
func (r *lineReader) Format() string { return proto.FormatText }

// Delimiter implements Reader.
func (r *lineReader) Delimiter() string { return "" }

// Columns implements Reader.
func (r *lineReader) Columns() []Column { return r.columns }

// Position implements Reader.
func (r *lineReader) Position() Position { return r.position }

// Close implements Reader.
func (r *lineReader) Close() error { return r.text.Close() }

// Next implements Reader.
func (r *lineReader) Next() (Row, error) {
	line, err := nextLine(r.lines, &r.position)
	if err != nil {
		return Row{}, err
	}

	if err := r.text.check(line); err != nil {
		return Row{}, &RowError{Number: r.position.Row, Line: r.position.Line, Message: err.Error()}
	}

	r.values[0] = Value{}
	if r.only {
		r.values[0] = Value{Kind: KindText, Text: line}
	}

	return Row{
		Number:  r.position.Row,
		Line:    r.position.Line,
		Columns: r.columns,
		Values:  r.values[:],
	}, nil
}

// nextLine returns the next line that is not blank, and moves the position behind it.
func nextLine(lines *jsonl.Reader, position *Position) ([]byte, error) {
	line, err := lines.Next()
	if err != nil && !errors.Is(err, jsonl.ErrLineTooLong) {
		return nil, err
	}

	position.Offset, position.Line = lines.Offset(), lines.Line()
	position.Row++

	if err != nil {
		return nil, &RowError{
			Number:  position.Row,
			Line:    position.Line,
			Message: fmt.Sprintf("it is longer than %d MiB", jsonl.MaxLine>>20),
		}
	}

	return line, nil
}
