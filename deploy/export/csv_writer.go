package export

import (
	"io"

	"encoding/csv"

	"github.com/promptmill/promptmill/producer/table"
)

// csvWriter writes CSV with a header, as RFC 4180 has it, but with line feeds. A null and an empty text
// are both an empty field.
type csvWriter struct {
	w      *csv.Writer
	fields []string
	buf    []byte
}

// newCSVWriter returns a function that begins CSV with a delimiter.
func newCSVWriter(delimiter rune) func(io.Writer, []table.Column, string) (rowWriter, error) {
	return func(file io.Writer, columns []table.Column, _ string) (rowWriter, error) {
		w := csv.NewWriter(file)
		w.Comma = delimiter

		return &csvWriter{w: w}, w.Write(table.Header(columns))
	}
}

// writeRow implements rowWriter.
func (c *csvWriter) writeRow(_ []table.Column, values []table.Value) error {
	c.fields = c.fields[:0]
	for _, v := range values {
		c.buf = v.AppendText(c.buf[:0])
		c.fields = append(c.fields, string(c.buf))
	}
	return c.w.Write(c.fields)
}

// close implements rowWriter.
func (c *csvWriter) close(err error) error {
	if err != nil {
		return err
	}

	c.w.Flush()

	return c.w.Error()
}
