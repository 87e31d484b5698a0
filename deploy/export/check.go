package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

// maxExamples is the most examples of a [Comparison].
const maxExamples = 10

// Comparison is the result of comparing a table with the one that the run gives, and the form of --json.
type Comparison struct {
	// Rows is the number of rows that the table must have, and Found the number of those that it has.
	Rows  int `json:"rows"`
	Found int `json:"found"`
	// Differing is the number of rows with a cell that differs.
	Differing int `json:"differing"`
	// Complete is set if the table has exactly the rows and the columns that it must have.
	Complete bool `json:"complete"`
	// Examples are the first differences.
	Examples []string `json:"examples"`

	omitted int // differences that are no example
}

// addExample adds a difference.
func (c *Comparison) addExample(format string, args ...any) {
	if len(c.Examples) == maxExamples {
		c.omitted++
		return
	}
	c.Examples = append(c.Examples, fmt.Sprintf(format, args...))
}

// Check compares each cell of a table with the one that Write would write. The error is of reading the
// files, or a [MismatchError] if the output does not match the input; [Comparison.Err] returns the error
// of the table.
func Check(ctx context.Context, cfg Config) (Comparison, error) {
	cfg, f, err := cfg.withDefaults()
	if err != nil {
		return Comparison{}, err
	}

	j, err := newJoiner(ctx, cfg, f)
	if err != nil {
		return Comparison{}, err
	}
	defer j.close()

	c := &checker{
		Comparison: Comparison{Rows: cfg.Run.Input.Requests, Examples: []string{}},
		joiner:     j,
	}

	for i, path := range Paths(cfg.Path, cfg.Shards) {
		if err := c.checkFile(ctx, path, partRows(c.Rows, cfg.Shards, i)); err != nil {
			return c.Comparison, err
		}
	}

	if err := j.checkEnd(); err != nil {
		return c.Comparison, err
	}

	c.Complete = c.Found == c.Rows && c.Differing == 0 && len(c.Examples) == 0

	return c.Comparison, nil
}

// checker compares the files of a table.
type checker struct {
	Comparison

	joiner *joiner
	// want and has are cells in the form in which they are compared.
	want, has []byte
}

// checkFile compares a file, which must have some rows.
func (c *checker) checkFile(ctx context.Context, path string, rows int) error {
	local := inputfile.Local{}

	file, err := local.Stat(ctx, path)
	if err != nil {
		return err
	}

	r, err := table.Open(ctx, table.Config{
		Opener: local,
		File:   file,
		Table:  tableOf(c.joiner.format),
	})
	if err != nil {
		return err
	}
	defer r.Close()

	name := filepath.Base(path)
	c.compareColumns(name, r.Columns())

	for i := 0; ; i++ {
		if i%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}

		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return c.skipRows(name, i, rows)
		}

		fault, isRowError := errors.AsType[*table.RowError](err)
		if err != nil && !isRowError {
			return err
		}

		c.Found++
		if i >= rows {
			if i == rows {
				c.addExample("%s, row %d: it is one row too many", name, i+1)
			}
			continue
		}

		columns, values, err := c.joiner.next()
		if err != nil {
			return err
		}

		if isRowError {
			c.Differing++
			c.addExample("%s, row %d: %s", name, i+1, fault.Message)
			continue
		}

		c.compareRow(name, i, columns, values, row)
	}
}

// tableOf returns how the table of a format is read.
func tableOf(f format) proto.Table {
	switch f.ending {
	case ".csv":
		return proto.Table{Format: proto.FormatCSV, Delimiter: ",", Encoding: "utf-8"}
	case ".tsv":
		return proto.Table{Format: proto.FormatTSV, Encoding: "utf-8"}
	case ".parquet":
		return proto.Table{Format: proto.FormatParquet}
	}

	return proto.Table{Format: proto.FormatJSONL}
}

// skipRows passes over the rows that a file lacks, from the i-th on.
func (c *checker) skipRows(name string, i, rows int) error {
	if i < rows {
		c.addExample("%s: it ends after %d of %d rows", name, i, rows)
	}

	for ; i < rows; i++ {
		if _, _, err := c.joiner.next(); err != nil {
			return err
		}
	}

	return nil
}

// compareColumns compares the columns of a file, unless each row has its own.
func (c *checker) compareColumns(name string, columns []table.Column) {
	if c.joiner.format.isSparse {
		return
	}

	for i, want := range c.joiner.columns {
		switch {
		case i >= len(columns):
			c.addExample("%s: it has no column %q", name, want.Name)
		case columns[i].Name != want.Name:
			c.addExample("%s: column %d is %q, must be %q", name, i+1, columns[i].Name, want.Name)
		}
	}

	if len(columns) > len(c.joiner.columns) {
		c.addExample("%s: column %d, %q, is one too many", name, len(c.joiner.columns)+1,
			columns[len(c.joiner.columns)].Name)
	}
}

// compareRow compares a row.
func (c *checker) compareRow(name string, i int, columns []table.Column, values []table.Value, row table.Row) {
	for k, column := range columns {
		if k >= len(row.Values) {
			c.Differing++
			c.addExample("%s, row %d: it has no %q", name, i+1, column.Name)
			return
		}

		c.want = c.appendCell(c.want[:0], values[k])
		c.has = c.appendCell(c.has[:0], row.Values[k])

		if row.Columns[k].Name != column.Name || !bytes.Equal(c.want, c.has) {
			c.Differing++
			c.addExample("%s, row %d: %s is %s, must be %s", name, i+1, column.Name, excerpt(c.has), excerpt(c.want))
			return
		}
	}

	if len(row.Values) > len(columns) {
		c.Differing++
		c.addExample("%s, row %d: it has %q, which it must not have", name, i+1, row.Columns[len(columns)].Name)
	}
}

// appendCell appends the form in which the values of cells are compared: as JSON, except that CSV does not
// have types, nor null.
func (c *checker) appendCell(dst []byte, v table.Value) []byte {
	switch c.joiner.format.ending {
	case ".csv", ".tsv":
		return v.AppendText(dst)
	}
	return v.AppendJSON(dst)
}

// excerpt returns a cell for an error.
func excerpt(cell []byte) string { return proto.Excerpt(string(cell)) }
