package producer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Row is the row of a request.
type Row struct {
	table.Row
	// Index is the request index.
	Index uint32
	// CustomID is the custom_id of the request as a JSON string; nil if a column has it, see
	// [proto.Rows.CustomID].
	CustomID []byte
	// File is the path of the file, as given.
	File string
	// Err is the error of a row that cannot be read, whose values are null. It is nil for any
	// other.
	Err error
}

// RowReader reads the rows of a run's requests, refused ones included, in the order of the
// requests. An input of requests has the one column custom_id. It is not safe for concurrent
// use.
type RowReader struct {
	ctx    context.Context
	source Source
	run    proto.Manifest

	// requests reads an input of requests. It is nil for a table.
	requests *Reader

	table table.Reader
	// file is the index of the file of table, or of the next one.
	file int
	// row counts the rows of the input that were read, and index the requests.
	row   int
	index uint32

	// most is the largest hash of a row of the sample.
	most  uint64
	nulls []table.Value
	buf   []byte
}

// NewRowReader returns a reader of the rows of a validated run.
func NewRowReader(ctx context.Context, source Source, m proto.Manifest) (*RowReader, error) {
	r := &RowReader{ctx: ctx, source: SourceOf(m.Input, source.Files, source.Opener), run: m}

	if m.Settings.Rows == nil {
		var err error
		r.requests, err = NewRunReader(ctx, r.source, m)
		return r, err
	}

	r.most = math.MaxUint64
	if sample := m.Settings.Sample; sample > 0 && m.Input.Rows > 0 {
		r.most = findLargestHash(sample, m.Input.Rows)
	}

	return r, nil
}

// customIDColumns are the columns of an input of requests.
var customIDColumns = []table.Column{{Name: "custom_id", Kind: table.KindText}}

// Next returns the row of the next request, which is valid until the next call, and [io.EOF] at
// the end.
func (r *RowReader) Next() (Row, error) {
	if r.requests != nil {
		return r.nextRequest()
	}

	for int(r.index) < r.run.Input.Requests { // and so for Limit
		if r.table == nil {
			if err := r.openFile(); err != nil {
				return Row{}, err
			}
		}

		row, err := r.table.Next()
		fault, isRowError := errors.AsType[*table.RowError](err)
		switch {
		case errors.Is(err, io.EOF):
			r.Close()
			r.file++
			continue
		case isRowError:
			row = r.emptyRow(fault)
		case err != nil:
			return Row{}, err
		}

		r.row++
		if HashRow(r.row) > r.most {
			continue
		}

		item := Row{Row: row, Index: r.index, File: r.source.Files[r.file]}
		if isRowError {
			item.Err = fault
		}
		if isRowError || r.run.Settings.Rows.CustomID == "" {
			item.CustomID = r.generateID()
		}

		r.index++

		return item, nil
	}

	return Row{}, io.EOF
}

// nextRequest is Next for an input of requests.
func (r *RowReader) nextRequest() (Row, error) {
	item, err := r.requests.Next()
	if err != nil {
		return Row{}, err
	}

	text, err := jsonscan.Unquote(item.CustomID)
	if err != nil {
		return Row{}, fmt.Errorf("custom_id %s: %w", item.CustomID, err)
	}

	r.nulls = append(r.nulls[:0], table.Value{Kind: table.KindText, Text: text})

	return Row{
		Row: table.Row{
			Number:  item.Line,
			Line:    item.Line,
			Columns: customIDColumns,
			Values:  r.nulls,
		},
		Index:    item.Index,
		CustomID: item.CustomID,
		File:     item.File,
	}, nil
}

// openFile opens the current file.
func (r *RowReader) openFile() (err error) {
	if r.file >= len(r.source.Files) {
		return fmt.Errorf("%w: it has %d requests, and had %d", proto.ErrInputChanged, r.index, r.run.Input.Requests)
	}

	r.table, err = r.source.OpenTable(r.ctx, r.file, r.run.Settings.Rows.Table)

	return err
}

// OpenTable opens the i-th file of the source as a table.
func (s Source) OpenTable(ctx context.Context, i int, t proto.Table) (table.Reader, error) {
	return table.Open(ctx, s.tableConfig(i, t))
}

// emptyRow returns a row without values in place of one that cannot be read.
func (r *RowReader) emptyRow(err *table.RowError) table.Row {
	columns := r.table.Columns()
	for len(r.nulls) < len(columns) {
		r.nulls = append(r.nulls, table.Value{})
	}

	return table.Row{
		Number:  err.Number,
		Line:    err.Line,
		Columns: columns,
		Values:  r.nulls[:len(columns)],
	}
}

// generateID returns the custom_id of a request that has none of its own.
func (r *RowReader) generateID() []byte {
	r.buf = append(strconv.AppendUint(append(r.buf[:0], `"request-`...), uint64(r.index)+1, 10), '"')
	return r.buf
}

// Close closes the file that is open.
func (r *RowReader) Close() {
	if r.requests != nil {
		r.requests.Close()
	}
	if r.table != nil {
		r.table.Close()
		r.table = nil
	}
}
