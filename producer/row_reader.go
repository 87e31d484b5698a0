package producer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

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
	// row is the row that was read last.
	row table.Row
	// renderer is nil if the file has no columns, and so no rows.
	renderer *prompt.Renderer
	// unseen are the errors of columns that no row of the files so far has. Nil: no file was read.
	unseen []*prompt.TemplateError
	// tee gets the lines. It may be nil.
	tee io.Writer
	// line is the line of the current row, id its custom_id if the row is wrong.
	line, id []byte
}

// newRowReader returns a reader of the rows of a source, without a file. The error is a
// [prompt.TemplateError] if a template is wrong.
func newRowReader(ctx context.Context, source Source, s proto.Settings) (*rowReader, error) {
	columns, err := prompt.Columns(s)
	if err != nil {
		return nil, describeTemplate(ctx, source, s, err)
	}
	return &rowReader{settings: s, columns: columns}, nil
}

// describeTemplate returns the error of a template as it is for a table with the columns of the
// first file, which may be meant; otherwise, if the file cannot be read.
func describeTemplate(ctx context.Context, source Source, s proto.Settings, otherwise error) error {
	if len(source.Files) == 0 {
		return otherwise
	}

	t, err := source.OpenTable(ctx, 0, s.Rows.Table)
	if err != nil {
		return otherwise
	}
	defer t.Close()

	if _, err := prompt.New(ctx, prompt.Config{Settings: s, Columns: t.Columns()}); err != nil {
		return err
	}

	return otherwise
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
	cfg := r.source.tableConfig(r.at.File, r.rows.settings.Rows.Table)
	cfg.Only, cfg.From = r.rows.columns, from
	if from == (table.Position{}) {
		cfg.Text = r.tee
	}

	t, err := table.Open(r.ctx, cfg)
	if err != nil {
		return err
	}

	r.rows.renderer, r.rows.tee = nil, nil
	if columns := t.Columns(); len(columns) > 0 {
		isCSV := t.Format() == proto.FormatCSV || t.Format() == proto.FormatTSV
		r.rows.renderer, err = prompt.New(r.ctx, prompt.Config{
			Settings:  r.rows.settings,
			Columns:   columns,
			IsChecked: true,
			Varied:    t.Format() == proto.FormatJSON || t.Format() == proto.FormatJSONL,
			Header:    isCSV && len(cfg.Table.Columns) == 0,
			File:      cfg.Origin,
			Opener:    r.source.opener(),
			NoFiles:   r.source.Stored,
		})
		if err != nil {
			t.Close()
			if wrong, ok := errors.AsType[*prompt.TemplateError](err); ok && wrong.Column != "" && r.at.File > 0 {
				wrong.Hint = "the files before it have this column: rename it here, or run this file alone"
			}

			return fmt.Errorf("%s: %w", path, err)
		}
	}

	if t.Format() == proto.FormatParquet {
		r.rows.tee = r.tee
	}

	r.rows.table = t
	if r.opened != nil {
		r.opened(t)
	}

	return nil
}

// nextRow reads the next row of the current file into an item.
func (r *Reader) nextRow(item *Item) error {
	rows := r.rows
	row, err := rows.table.Next()
	wrong, isWrong := errors.AsType[*table.RowError](err)
	if errors.Is(err, io.EOF) {
		rows.noteUnseen()
	}
	if err != nil && !isWrong {
		return err
	}

	if !r.selection.next() {
		return r.selection.checkContext(r.ctx)
	}

	*item = Item{
		File:     r.source.Files[r.at.File],
		Line:     row.Number,
		TextLine: row.Line,
		isRow:    true,
	}

	rows.line, rows.row = rows.line[:0], row
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
			return fmt.Errorf("%s: %w", item.Place(), err)
		case len(rows.line) > jsonl.MaxLine:
			item.Err = &LineError{Fault: FaultTooLong}
		default:
			item.Request, item.Model, item.Err = r.parser.Parse(rows.line)
		}
	}

	if rows.tee != nil {
		// The line is part of the request, and the feed of none.
		if _, err := rows.tee.Write(rows.line); err != nil {
			return err
		}
		if _, err := rows.tee.Write([]byte{'\n'}); err != nil {
			return err
		}
	}

	if cap(rows.line) > 1<<20 && len(rows.line) < 1<<16 {
		rows.line = nil // one long line does not cost its memory for the rest of the run
	}

	return nil
}

// noteUnseen notes the columns that no row of the current file had, at its end.
func (r *rowReader) noteUnseen() {
	if r.renderer == nil {
		return
	}

	unseen := r.renderer.Unseen()
	if r.unseen == nil {
		r.unseen = append([]*prompt.TemplateError{}, unseen...)
		return
	}

	r.unseen = slices.DeleteFunc(r.unseen, func(e *prompt.TemplateError) bool {
		return !slices.ContainsFunc(unseen, func(other *prompt.TemplateError) bool { return other.Column == e.Column })
	})
}

// checkSeen returns the error of a template that uses a column that no row has, when all rows were
// read. JSON has no list of its columns, and a row may lack some.
func (r *Reader) checkSeen() error {
	if r.rows == nil || len(r.rows.unseen) == 0 {
		return nil
	}
	return r.rows.unseen[0]
}

// newCellError returns the error of a row by the error of its cell.
func newCellError(cell *prompt.CellError) *LineError {
	e := &LineError{
		Fault:   FaultCell,
		Flag:    cell.Flag,
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
