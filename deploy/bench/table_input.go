package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/parquet-go/parquet-go"
)

// tablePrompt makes of the rows of a table the requests that makeInput writes.
const tablePrompt = "{{.text}}"

// tableRow is a row of a table.
type tableRow struct {
	Ticket int64  `parquet:"ticket"`
	Text   string `parquet:"text"`
}

// makeTable writes a table, if the section has none of its kind yet, and returns its path.
func (b *bench) makeTable(kind inputKind) (path string, err error) {
	if path, ok := b.inputs[kind]; ok {
		return path, nil
	}

	path = filepath.Join(b.dir, fmt.Sprintf("input-%d.%s", len(b.inputs), kind.format))
	b.inputs[kind] = path

	file, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("write an input: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()

	w := bufio.NewWriter(file)
	start := startCSV
	if kind.format == "parquet" {
		start = startParquet
	}

	write, end := start(w)

	var text []byte
	for i := range kind.requests {
		text = fmt.Appendf(text[:0], "%d ", i)
		text = appendText(text, max(0, kind.size-frame), uint64(i))
		if err := write(tableRow{int64(i), string(text)}); err != nil {
			return "", fmt.Errorf("write an input: %w", err)
		}
	}

	return path, errors.Join(end(), w.Flush())
}

// startCSV returns functions that write the rows and the end of a CSV file.
func startCSV(w io.Writer) (write func(tableRow) error, end func() error) {
	rows := csv.NewWriter(w)
	rows.Write([]string{"ticket", "text"}) // end returns its error

	write = func(r tableRow) error { return rows.Write([]string{strconv.FormatInt(r.Ticket, 10), r.Text}) }
	end = func() error {
		rows.Flush()
		return rows.Error()
	}

	return write, end
}

// startParquet returns functions that write the rows and the end of a Parquet file.
func startParquet(w io.Writer) (write func(tableRow) error, end func() error) {
	const groupRows = 100_000

	rows := parquet.NewGenericWriter[tableRow](w, parquet.Compression(&parquet.Snappy),
		parquet.MaxRowsPerRowGroup(groupRows))

	write = func(r tableRow) error {
		_, err := rows.Write([]tableRow{r})
		return err
	}

	return write, rows.Close
}
