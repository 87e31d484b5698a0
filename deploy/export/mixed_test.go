package export

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"

	"github.com/promptmill/promptmill/producer/table"
)

// encodeParquet returns a Parquet file with some rows.
func encodeParquet[T any](t *testing.T, rows ...T) string {
	t.Helper()
	var file bytes.Buffer
	must(t, parquet.Write(&file, rows))
	return file.String()
}

// Files of one input whose columns have different types, or which lack columns, give a table of each format. A column
// keeps its exact type if all files have it.
func TestWriteFilesOfDifferentTypes(t *testing.T) {
	t.Parallel()

	type first struct {
		Text  string            `parquet:"text"`
		Same  int32             `parquet:"same"`
		Wide  int32             `parquet:"wide"`
		Kind  int64             `parquet:"kind"`
		List  []int32           `parquet:"list,list"`
		Group struct{ A int32 } `parquet:"group"`
		Time  time.Time         `parquet:"time,timestamp(millisecond)"`
		Only  int32             `parquet:"only"`
	}
	type second struct {
		Text  string             `parquet:"text,optional"`
		Same  int32              `parquet:"same"`
		Wide  int64              `parquet:"wide"`
		Kind  string             `parquet:"kind"`
		List  []int64            `parquet:"list,list"`
		Group struct{ B string } `parquet:"group"`
		Time  time.Time          `parquet:"time,timestamp(microsecond)"`
	}

	at := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	files := map[string]string{
		"a.parquet": encodeParquet(t, first{"a", 1, 2, 3, []int32{4}, struct{ A int32 }{5}, at, 6}),
		"b.parquet": encodeParquet(t, second{"b", 1, 2, "3", []int64{4}, struct{ B string }{"5"}, at}),
		"c.csv":     "text,kind,list\nc,3,4\n",
		"d.jsonl":   `{"text":"d","list":[4],"group":{"A":5},"wide":2}` + "\n",
	}

	for _, names := range [][]string{
		{"a.parquet", "b.parquet"},
		{"b.parquet", "a.parquet"},
		{"a.parquet", "b.parquet", "c.csv"},
		{"c.csv", "a.parquet", "b.parquet"},
		{"a.parquet", "d.jsonl"},
		{"d.jsonl", "b.parquet", "c.csv", "a.parquet"},
	} {
		var lines []string
		for i := range names {
			lines = append(lines, answeredLine(i, fmt.Sprintf("request-%d", i+1), `"content":"x"`))
		}
		r := newTestRun(t, names[0], files[names[0]], lines, nil)
		for _, name := range names[1:] {
			path := filepath.Join(r.dir, name)
			must(t, os.WriteFile(path, []byte(files[name]), 0o644))
			r.cfg.Input.Files = append(r.cfg.Input.Files, path)
		}

		for _, ending := range Formats() {
			r.cfg.Path = string(r.cfg.Output) + ending
			r.write() // and compares it
		}

		if len(names) > 2 || names[0] != "a.parquet" || names[1] != "b.parquet" {
			continue
		}

		rows, kinds := readTable(t, string(r.cfg.Output)+".parquet")
		if diff := cmp.Diff([][]string{
			{"a", "1", "2", "3", "[4]", `{"A":5}`, "2024-01-02T03:04:05Z", "6"},
			{"b", "1", "2", `"3"`, "[4]", `{"B":"5"}`, "2024-01-02T03:04:05Z", ""},
		}, [][]string{rows[0][:8], rows[1][:8]}); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		if kinds["same"] != table.KindInt || kinds["wide"] != table.KindInt || kinds["list"] != table.KindJSON {
			t.Errorf("kinds %v", kinds)
		}
	}
}
