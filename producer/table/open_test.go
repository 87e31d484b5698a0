package table

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// memoryOpener opens one file, in memory.
type memoryOpener []byte

func (o memoryOpener) Stat(_ context.Context, path string) (proto.File, error) {
	return proto.File{Path: path, Bytes: int64(len(o))}, nil
}

func (o memoryOpener) Open(context.Context, proto.File) (inputfile.File, error) {
	return memoryFile{bytes.NewReader(o)}, nil
}

// memoryFile is a file in memory.
type memoryFile struct{ *bytes.Reader }

func (memoryFile) Close() error { return nil }

// configOf returns the configuration that reads a text as a file.
func configOf(name, text string) Config {
	return Config{Opener: memoryOpener(text), File: proto.File{Path: name}}
}

// formatRow returns a row as one line: its number, its line, and its columns with their values
// as JSON.
func formatRow(row Row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d/%d", row.Number, row.Line)
	for i, v := range row.Values {
		fmt.Fprintf(&b, " %s=%s", row.Columns[i].Name, v.AppendJSON(nil))
	}

	return b.String()
}

// readAll returns the descriptions of all rows and errors of a file, and the positions behind them.
func readAll(t testing.TB, cfg Config) (rows []string, positions []Position) {
	t.Helper()

	r, err := Open(context.Background(), cfg)
	if err != nil {
		return []string{"open: " + err.Error()}, nil
	}
	defer r.Close()

	for {
		row, err := r.Next()
		wrong, isRow := errors.AsType[*RowError](err)
		switch {
		case err == nil:
			rows = append(rows, formatRow(row))
		case isRow:
			rows = append(rows, fmt.Sprintf("%d/%d: %s", wrong.Number, wrong.Line, wrong.Message))
		case errors.Is(err, io.EOF):
			return rows, positions
		default:
			return append(rows, "end: "+err.Error()), positions
		}

		positions = append(positions, r.Position())
	}
}

// checkResumes checks that a reader that starts at each of the positions returns the same rest.
func checkResumes(t testing.TB, cfg Config, rows []string, positions []Position) {
	t.Helper()

	for i, position := range positions {
		cfg.From = position
		rest, _ := readAll(t, cfg)
		if diff := cmp.Diff(rows[i+1:], rest, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("the rows behind %+v differ (-want +got):\n%s", position, diff)
		}
	}
}

// rowTest is a text and the rows in it.
type rowTest struct {
	name string
	// file is the name of the file.
	file  string
	text  string
	table proto.Table
	only  []string
	want  []string
}

// testRows checks the rows of texts, and that reading continues at each of their positions,
// plain and compressed.
func testRows(t *testing.T, tests []rowTest) {
	t.Helper()

	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			for _, text := range []string{tt.text, prototest.Gzip(t, tt.text)} {
				cfg := configOf(tt.file, text)
				cfg.Table, cfg.Only = tt.table, tt.only

				rows, positions := readAll(t, cfg)
				if diff := cmp.Diff(tt.want, rows, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("the rows differ (-want +got):\n%s", diff)
				}

				checkResumes(t, cfg, rows, positions)
			}
		})
	}
}

// FuzzOpen opens files of which nothing is known. Whatever they are, reading continues at each
// position with the same rows.
func FuzzOpen(f *testing.F) {
	for _, text := range []string{
		"id,text\n1,a\n", "{\"a\":1}\n{\"a\":2}\n", "[{\"a\":1},{\"a\":2}]", "One line.\nAnother line.\n", "a;b\n1;2\n3;4\n",
		"a\tb\n1\t2\n", "\xff\xfea\x00,\x00b\x00\n\x001\x00,\x002\x00", "a,b\n\x00,1\n", "sep=;\na;b\n1;2\n", "a\rb\r", "PAR1\x15", "\x1f\x8b",
	} {
		f.Add("x", text, "")
		f.Add("lang=de/x.csv", text, "utf-8")
		f.Add("x.tsv", text, "shift_jis")
	}

	f.Fuzz(func(t *testing.T, name, text, encoding string) {
		cfg := configOf(name, text)
		cfg.Table.Encoding = encoding

		if rows, positions := readAll(t, cfg); len(positions) < 50 {
			checkResumes(t, cfg, rows, positions)
		}
	})
}
