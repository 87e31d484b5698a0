package export

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/table"
)

// FuzzCSVWriter checks that tables read back as they were written, whatever is in their cells.
func FuzzCSVWriter(f *testing.F) {
	for _, cells := range [][3]string{
		{"", "plain", "two\nlines"},
		{"a\x00b", "\x00", "c\x00d\x00e\x00f\x00"},
		{"\r", "\r\n", "a\rb"},
		{`"`, `""`, "a,\tb"},
		{" ", "\ufeff", `\.`},
		{"{\"a\":1}", "[1]", "#"},
		{"PK\x03\x04", "%PDF-1.7", "<html>"},
	} {
		f.Add(cells[0], cells[1], cells[2])
	}

	f.Fuzz(func(t *testing.T, first, second, third string) {
		if !utf8.ValidString(first) || !utf8.ValidString(second) || !utf8.ValidString(third) {
			return // no text has it: the bytes of Parquet are base64 in CSV
		}

		columns := []table.Column{
			{Name: "column_1", Unnamed: true, Kind: table.KindText},
			{Name: "text", Kind: table.KindText},
			{Name: "answer", Kind: table.KindText},
		}
		rows := [][]string{{first, second, third}, {third, "1", first}}
		for _, format := range formats[:2] {
			checkReadsBack(t, format, columns, rows)
		}
	})
}

// checkReadsBack checks that a table of CSV reads as the columns and the rows that were written.
func checkReadsBack(t *testing.T, f format, columns []table.Column, rows [][]string) {
	t.Helper()

	var text bytes.Buffer
	w, err := f.newWriter(&text, columns, "run")
	if err != nil {
		t.Fatal(err)
	}

	for _, row := range rows {
		var values []table.Value
		for _, cell := range row {
			values = append(values, table.Value{Kind: table.KindText, Text: []byte(cell)})
		}
		if err := w.writeRow(columns, values); err != nil {
			t.Fatal(err)
		}
	}

	if err := w.close(nil); err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(t.TempDir(), "table"+f.ending)
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}

	file, err := inputfile.Local{}.Stat(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}

	r, err := table.Open(t.Context(), table.Config{
		Opener: inputfile.Local{},
		File:   file,
		Table:  tableOf(f),
	})
	if err != nil {
		t.Fatalf("%q cannot be read: %v", text.Bytes(), err)
	}
	defer r.Close()

	for i, c := range r.Columns() {
		if c.Name != columns[i].Name || c.Unnamed != columns[i].Unnamed {
			t.Fatalf("column %d of %q is %q", i+1, text.Bytes(), c.Name)
		}
	}

	for i, want := range rows {
		row, err := r.Next()
		if err != nil {
			t.Fatalf("row %d of %q: %v", i+1, text.Bytes(), err)
		}

		for k, v := range row.Values {
			if string(v.Text) != want[k] {
				t.Errorf("row %d of %q has the cell %q, want %q", i+1, text.Bytes(), v.Text, want[k])
			}
		}
	}

	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("%q has more than %d rows, or ends with the error %v", text.Bytes(), len(rows), err)
	}
}
