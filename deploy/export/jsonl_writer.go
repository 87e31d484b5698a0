package export

import (
	"io"

	"github.com/klauspost/compress/gzip"

	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// jsonlWriter writes an object a line.
type jsonlWriter struct {
	file io.Writer
	// gzip compresses the lines. Nil: they are not compressed.
	gzip *gzip.Writer
	buf  []byte
	// names are the members' names in JSON of the latest columns.
	columns []table.Column
	names   [][]byte
}

// newJSONLWriter begins JSON lines.
func newJSONLWriter(file io.Writer, _ []table.Column, _ string) (rowWriter, error) {
	return &jsonlWriter{file: file}, nil
}

// newGzipWriter begins compressed JSON lines.
func newGzipWriter(file io.Writer, _ []table.Column, _ string) (rowWriter, error) {
	return &jsonlWriter{file: file, gzip: gzip.NewWriter(file)}, nil
}

// writeRow implements rowWriter.
func (j *jsonlWriter) writeRow(columns []table.Column, values []table.Value) (err error) {
	j.setColumns(columns)

	j.buf = j.buf[:0]
	for i, v := range values {
		j.buf = append(j.buf, ',')
		j.buf = append(j.buf, j.names[i]...)
		j.buf = v.AppendJSON(j.buf)
	}
	j.buf = append(j.buf, "}\n"...)
	j.buf[0] = '{'

	if j.gzip != nil {
		_, err = j.gzip.Write(j.buf)
	} else {
		_, err = j.file.Write(j.buf)
	}

	return err
}

// setColumns notes the names of columns. Most rows have the columns of the row before.
func (j *jsonlWriter) setColumns(columns []table.Column) {
	for i, c := range columns {
		if i < len(j.columns) && j.columns[i].Name == c.Name {
			continue
		}

		name := append(jsonscan.Quote(c.Name), ':')
		j.columns = append(j.columns[:i], c)
		j.names = append(j.names[:i], name)
	}
}

// close implements rowWriter.
func (j *jsonlWriter) close(err error) error {
	if err != nil || j.gzip == nil {
		return err
	}
	return j.gzip.Close()
}
