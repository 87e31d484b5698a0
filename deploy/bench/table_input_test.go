package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

// The rows of a table have the requests that the lines of the same size have.
func TestTableInputs(t *testing.T) {
	t.Parallel()

	b := &bench{options: options{dir: t.TempDir()}, inputs: map[inputKind]string{}}
	kind := inputKind{requests: 20, size: 1024}

	lines, err := b.makeInput(kind)
	if err != nil {
		t.Fatal(err)
	}
	want := readBodies(t, lines, proto.Settings{})

	for _, format := range []string{"csv", "parquet"} {
		kind.format = format
		path, err := b.makeTable(kind)
		if err != nil {
			t.Fatal(err)
		}

		got := readBodies(t, path, proto.Settings{Model: "sim", Rows: &proto.Rows{Prompt: tablePrompt}})
		slices.Sort(got)
		if !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			t.Errorf("%s: the requests are %q, want %q", format, got, want)
		}
	}
}

// readBodies returns the bodies of the requests of an input.
func readBodies(t *testing.T, path string, s proto.Settings) (bodies []string) {
	t.Helper()

	r, err := producer.NewReader(t.Context(), producer.Source{Files: []string{path}, Opener: inputfile.Local{}}, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	for {
		item, err := r.Next()
		if errors.Is(err, io.EOF) {
			return bodies
		}
		if err != nil || item.Err != nil {
			t.Fatal(err, item.Err)
		}

		bodies = append(bodies, string(item.Request.Body))
	}
}

// Each row has its answer once, in order or not, and the table of both is the same.
func TestOutputs(t *testing.T) {
	t.Parallel()

	const rows = 3*shardOfLines + 7

	dir := t.TempDir()
	b := &bench{options: options{dir: dir}, inputs: map[inputKind]string{}}
	in, err := b.makeTable(inputKind{requests: rows, size: 200, format: "csv"})
	if err != nil {
		t.Fatal(err)
	}

	var tables [][]byte
	for _, ordered := range []string{"true", "false"} {
		if err := writeOutput(dir+"/out.jsonl.zst", rows, ordered == "true"); err != nil {
			t.Fatal(err)
		}

		table := dir + "/" + ordered + ".csv"
		if err := runExport(t.Context(), []string{in, dir + "/out", table, "199", ordered}, io.Discard); err != nil {
			t.Fatal(err)
		}

		text, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		tables = append(tables, text)
	}

	if !bytes.Equal(tables[0], tables[1]) || bytes.Count(tables[0], []byte("\n")) != rows+1 {
		t.Errorf("the tables differ: %s and %s", tables[0], tables[1])
	}
}
