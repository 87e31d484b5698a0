package table

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/producer/inputfile"
)

// TestPartitions reads files in folders of Hive's layout.
func TestPartitions(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	for _, f := range []struct {
		path, text string
		want       string
	}{
		{"lang=de/year=2024/in.csv", "id,text\n1,a\n",
			"id:text \"1\" text:text \"a\" lang:text \"de\" year:text \"2024\""},
		{"lang=de/has.csv", "id,lang\n1,fr\n", "id:text \"1\" lang:text \"fr\""},
		{"a=x%2Fy%20z/in.jsonl", "{\"id\":1}\n", "id:number 1 a:text \"x/y z\""},
		{"a=__HIVE_DEFAULT_PARTITION__/in.jsonl", "{\"id\":1}\n", "id:number 1 a:null"},
		{"no/a=b.csv", "id,text\n1,a\n", "id:text \"1\" text:text \"a\""},
	} {
		path := filepath.Join(dir, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}

		if err := os.WriteFile(path, []byte(f.text), 0o644); err != nil {
			t.Fatal(err)
		}

		file, err := inputfile.Local{}.Stat(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}

		r, err := Open(t.Context(), Config{
			Opener: inputfile.Local{},
			File:   file,
		})
		if err != nil {
			t.Fatal(err)
		}

		row, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}

		got := ""
		for i, v := range row.Values {
			if i > 0 {
				got += " "
			}
			got += row.Columns[i].Name + ":" + describeValue(v)
		}

		if diff := cmp.Diff(f.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", f.path, diff)
		}

		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", f.path, err)
		}

		r.Close()
	}
}

// A path with two values of one column is refused.
func TestPartitionTwice(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "x=1", "y=1", "x=2", "in.csv")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("id\n1\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	file, err := inputfile.Local{}.Stat(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}

	_, err = Open(t.Context(), Config{
		Opener: inputfile.Local{},
		File:   file,
	})
	want := path + ": its path has two folders x=...; a column has one value"
	if fileErr, ok := errors.AsType[*FileError](err); !ok || fileErr.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// A value in a path that is not UTF-8 makes the rows wrong that have no column of the name.
func TestPartitionNotUTF8(t *testing.T) {
	t.Parallel()

	for text, isWrong := range map[string]bool{"{\"id\":1}\n": true, "{\"id\":1,\"a\":\"b\"}\n": false} {
		r, err := Open(t.Context(), configOf("a=caf%E9/in.jsonl", text))
		if err != nil {
			t.Fatal(err)
		}

		_, err = r.Next()
		wrong, ok := errors.AsType[*RowError](err)
		if ok != isWrong || ok && wrong.Message != `the value of the column "a" in its path is not UTF-8` {
			t.Errorf("%s: %v", text, err)
		}

		r.Close()
	}
}
