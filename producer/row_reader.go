package producer

import (
	"errors"
	"fmt"
	"io"

	"github.com/promptmill/promptmill/producer/prompt"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// rowReader renders the rows of the current file as lines.
type rowReader struct {
	settings proto.Settings
	// columns are the columns that are read. Nil: all.
	columns []string
	// table is the current file. Nil: none is open.
	table table.Reader
	// renderer is nil if the file has no columns, and so no rows.
	renderer *prompt.Renderer
	// tee gets the lines. It may be nil.
	tee io.Writer
	// line is the line of the current row, id its custom_id if the row is wrong.
	line, id []byte
}

// newRowReader returns a reader of rows, without a file. The error is a [prompt.TemplateError]
// if a template is wrong.
func newRowReader(s proto.Settings) (*rowReader, error) {
	columns, err := prompt.Columns(s)
	if err != nil {
		return nil, err
	}
	return &rowReader{settings: s, columns: columns}, nil
}

// close closes the file.
func (r *rowReader) close() {
	if r.table != nil {
		r.table.Close()
		r.table = nil
	}
}

// openTable opens the current file as a table.
func (r *Reader) openTable(from table.Position) error {
	path := r.source.Files[r.at.File]
	cfg := table.Config{
		Opener: r.source.opener(),
		File:   r.source.file(path),
		Table:  r.rows.settings.Rows.Table,
		Only:   r.rows.columns,
		From:   from,
	}
	if from == (table.Position{}) {
		cfg.Text = r.tee
	}

	t, err := table.Open(r.ctx, cfg)
	if err != nil {
		return err
	}

	r.rows.renderer, r.rows.tee = nil, nil
	if columns := t.Columns(); len(columns) > 0 {
		r.rows.renderer, err = prompt.New(r.ctx, prompt.Config{
			Settings: r.rows.settings,
			Columns:  columns,
			Varied:   t.Format() == proto.FormatJSON || t.Format() == proto.FormatJSONL,
			File:     path,
			Opener:   r.source.opener(),
		})
		if err != nil {
			t.Close()
			return fmt.Errorf("%s: %w", path, err)
		}
	}

	if t.Format() == proto.FormatParquet {
		r.rows.tee = r.tee
	}

	r.rows.table = t

	return nil
}

// nextRow returns the next row of the current file.
func (r *Reader) nextRow() (Item, error) {
	rows := r.rows
	row, err := rows.table.Next()
	wrong, isWrong := errors.AsType[*table.RowError](err)
	if err != nil && !isWrong {
		return Item{}, err
	}

	if !r.selection.next() {
		return Item{}, r.selection.checkContext(r.ctx)
	}

	item := Item{
		File:     r.source.Files[r.at.File],
		Line:     row.Number,
		TextLine: row.Line,
		isRow:    true,
	}

	rows.line = rows.line[:0]
	if isWrong {
		item.Line, item.TextLine = wrong.Number, wrong.Line
		item.Err = &LineError{Fault: FaultRow, Detail: wrong.Message}
	} else {
		rows.line, err = rows.renderer.AppendLine(rows.line, row)
		cell, isCell := errors.AsType[*prompt.CellError](err)
		switch {
		case isCell:
			item.Err = newCellError(cell)
			if rows.id = rows.renderer.AppendID(rows.id[:0], row); len(rows.id) > 0 {
				item.CustomID = rows.id
			}
			rows.line = rows.line[:0]
		case err != nil:
			return Item{}, fmt.Errorf("%s: %w", item.Place(), err)
		case len(rows.line) > jsonl.MaxLine:
			item.Err = &LineError{Fault: FaultTooLong}
		default:
			item.Request, item.Model, item.Err = r.parser.Parse(rows.line)
		}
	}

	if rows.tee != nil {
		// The line is part of the request, and the feed of none.
		if _, err := rows.tee.Write(rows.line); err != nil {
			return Item{}, err
		}
		if _, err := rows.tee.Write([]byte{'\n'}); err != nil {
			return Item{}, err
		}
	}

	if cap(rows.line) > 1<<20 && len(rows.line) < 1<<16 {
		rows.line = nil // one long line does not cost its memory for the rest of the run
	}

	return item, nil
}

// newCellError returns the error of a row by the error of its cell.
func newCellError(cell *prompt.CellError) *LineError {
	e := &LineError{
		Fault:   FaultCell,
		Subject: cell.Column,
		Param:   cell.Column,
		Detail:  cell.Reason,
	}

	switch {
	case cell.Column == "":
		e.Fault = FaultTemplate
	case cell.Empty:
		e.Fault = FaultEmptyCell
		if cell.Reason == "it is empty" {
			e.Detail = ""
		}
	}

	return e
}
