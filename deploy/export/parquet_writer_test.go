package export

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/table"
)

// parquetFiles are files of other writers.
const parquetFiles = "../../producer/table/testdata/parquet/"

// openParquet opens a Parquet file.
func openParquet(t *testing.T, path string) *table.ParquetReader {
	t.Helper()

	file, err := inputfile.Local{}.Stat(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}

	r, err := table.OpenParquet(t.Context(), table.Config{
		Opener: inputfile.Local{},
		File:   file,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })

	return r
}

// newColumns are columns of each kind that tables add.
var newColumns = []table.Column{
	{Name: "new answer", Kind: table.KindText},
	{Name: "new tokens", Kind: table.KindInt},
	{Name: "new score", Kind: table.KindFloat},
	{Name: "new flag", Kind: table.KindBool},
	{Name: "new json", Kind: table.KindJSON},
	{Name: "new bytes", Kind: table.KindBytes},
}

// newValues returns the values of newColumns: of odd rows they are null.
func newValues(row int) []table.Value {
	values := make([]table.Value, len(newColumns))
	if row%2 == 0 {
		values[0] = textValue([]byte("the answer"))
		values[1] = intValue(-int64(row))
		values[2] = table.Value{Kind: table.KindFloat, Bits: 0x3ff8000000000000} // 1.5
		values[3] = table.Value{Kind: table.KindBool, Bits: 1}
		values[4] = table.Value{Kind: table.KindJSON, Text: []byte(`{"a":[1]}`)}
		values[5] = table.Value{Kind: table.KindBytes, Text: []byte{0, 0xff}}
	}

	return values
}

// copyParquet writes the rows of a Parquet file with more columns.
func copyParquet(t *testing.T, from, to string) {
	t.Helper()

	r := openParquet(t, from)
	columns := append(append([]table.Column{}, r.Columns()...), newColumns...)

	file, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	w, err := newParquetWriter(file, columns, "run-1")
	if err != nil {
		t.Fatal(err)
	}

	for i := 0; ; i++ {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := w.writeRow(columns, append(append([]table.Value{}, row.Values...), newValues(i)...)); err != nil {
			t.Fatal(err)
		}
	}

	if err := w.close(nil); err != nil {
		t.Fatal(err)
	}
}

// describeParquet returns the columns and the rows of a Parquet file: its values, and the leaves with their
// levels.
func describeParquet(t *testing.T, path string) (columns, rows []string) {
	t.Helper()

	r := openParquet(t, path)
	for _, c := range r.Columns() {
		_, field, _ := strings.Cut(fmt.Sprint(c.Parquet.Field()), ".") // without the name of the root
		columns = append(columns, fmt.Sprintf("%s: kind %d, %s", c.Name, c.Kind, field))
	}

	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return columns, rows
		}
		if err != nil {
			t.Fatal(err)
		}

		text := ""
		for i, v := range row.Values {
			text += fmt.Sprintf("%s: %s", columns[i], v.AppendJSON(nil))
			for _, leaf := range row.Columns[i].Parquet.Leaves() {
				for _, v := range leaf {
					text += fmt.Sprintf(" %d/%d:%q", v.RepetitionLevel(), v.DefinitionLevel(), v.Bytes())
				}
			}
			text += "\n"
		}
		rows = append(rows, text)
	}
}

// TestParquetCopiesExactly writes the rows of each file of others again: each value and each level is the
// same, and the columns have the same types.
func TestParquetCopiesExactly(t *testing.T) {
	t.Parallel()

	paths, err := filepath.Glob(parquetFiles + "*.parquet")
	if err != nil || len(paths) == 0 {
		t.Fatal("no files", err)
	}

	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()

			to := filepath.Join(t.TempDir(), "out.parquet")
			copyParquet(t, path, to)
			wantColumns, wantRows := describeParquet(t, path)
			columns, rows := describeParquet(t, to)

			if diff := cmp.Diff(wantColumns, columns[:len(wantColumns)]); diff != "" {
				t.Errorf("columns (-want +got):\n%s", diff)
			}
			if len(columns) != len(wantColumns)+len(newColumns) {
				t.Errorf("%d columns, want %d and %d", len(columns), len(wantColumns), len(newColumns))
			}

			for i := range wantRows {
				if diff := cmp.Diff(wantRows[i], rows[i][:min(len(rows[i]), len(wantRows[i]))]); diff != "" {
					t.Errorf("row %d (-want +got):\n%s", i+1, diff)
				}
			}
			if len(rows) != len(wantRows) {
				t.Errorf("%d rows, want %d", len(rows), len(wantRows))
			}
		})
	}
}

// TestParquetInPython has pyarrow, duckdb, polars, pandas and datasets compare files of others with the ones
// that have the same rows and more columns.
func TestParquetInPython(t *testing.T) {
	t.Parallel()

	python := os.Getenv("PROMPTMILL_TEST_PYTHON")
	if python == "" {
		t.Skip("PROMPTMILL_TEST_PYTHON does not name a Python")
	}

	paths, err := filepath.Glob(parquetFiles + "*.parquet")
	if err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	for _, path := range paths {
		copyParquet(t, path, filepath.Join(dir, filepath.Base(path)))
	}

	out, err := exec.CommandContext(t.Context(), python, "testdata/compare_parquet.py", parquetFiles, dir).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
