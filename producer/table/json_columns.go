package table

import (
	"bytes"
	"context"
	"errors"
	"io"
)

// maxSearched is the number of rows among which a good one is looked for. Its columns are the columns
// of the file.
const maxSearched = 1000

// findColumns returns the columns of the first good row of a text: in its beginning if it is
// there, else in the file, which is opened for that. newReader returns a reader of the rows of
// a text.
func findColumns(ctx context.Context, text *textFile, newReader func(*textFile) Reader) ([]Column, error) {
	start := *text
	start.Reader = bytes.NewReader(text.start)
	if columns, _ := readColumns(newReader(&start)); columns != nil || text.whole {
		return columns, nil
	}

	cfg := text.cfg
	cfg.Text = nil // the rows that are read here are read once more

	again, err := openText(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer again.Close()

	return readColumns(newReader(again))
}

// readColumns returns the columns of the first good row, nil if there is none.
func readColumns(r Reader) ([]Column, error) {
	for range maxSearched {
		row, err := r.Next()
		if err == nil {
			return row.Columns, nil
		}

		_, isRow := errors.AsType[*RowError](err)
		_, isFile := errors.AsType[*FileError](err)
		switch {
		case isRow:
		case isFile, errors.Is(err, io.EOF): // the rows end in the same way later
			return nil, nil
		default:
			return nil, err
		}
	}

	return nil, nil
}
