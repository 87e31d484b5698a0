package table

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

// TestTablesOfOthers reads the tables of testdata/csv, which pandas, polars, duckdb and Python
// wrote. They have the same rows: text with delimiters, quotes, a line break and characters of
// other scripts, an empty cell of each column but the first, and numbers. CSV has no types, and
// JSON keeps the digits.
func TestTablesOfOthers(t *testing.T) {
	t.Parallel()

	// Of each writer, tiny is the smallest number, and whole one without a fraction.
	csv := func(tiny string) []string {
		return []string{
			`1/2 id="1" text="plain" score="0.5"`,
			`2/3 id="2" text="comma, \"quotes\"; semicolon" score="` + tiny + `"`,
			`3/4 id="3" text="two\nlines" score=null`,
			`4/6 id="4" text=null score="-2.25"`,
			`5/7 id="5" text="Ünïcode 日本 😀" score="3.0"`,
		}
	}

	jsonLines := func(tiny string) []string {
		return []string{
			`1/1 id=1 text="plain" score=0.5`,
			`2/2 id=2 text="comma, \"quotes\"; semicolon" score=` + tiny,
			`3/3 id=3 text="two\nlines" score=null`,
			`4/4 id=4 text=null score=-2.25`,
			`5/5 id=5 text="Ünïcode 日本 😀" score=3.0`,
		}
	}

	jsonArray := func(tiny string) []string {
		rows := jsonLines(tiny)
		for i, row := range rows {
			_, rest, _ := strings.Cut(row, "/")
			rows[i] = row[:1] + "/0" + rest[1:] // an array has no lines
		}
		return rows
	}

	var indexed []string
	for i, row := range csv("1e-07") {
		indexed = append(indexed, strings.Replace(row, " ", fmt.Sprintf(` column_1="%d" `, i), 1))
	}

	tests := map[string]struct {
		format string
		want   []string
	}{
		"pandas.csv":           {proto.FormatCSV, csv("1e-07")},
		"pandas-index.csv":     {proto.FormatCSV, indexed},
		"pandas-quoted.csv.gz": {proto.FormatCSV, csv("1e-07")},
		"pandas.jsonl":         {proto.FormatJSONL, jsonLines("0.0000001")},
		"pandas.json":          {proto.FormatJSON, jsonArray("0.0000001")},
		"polars.csv":           {proto.FormatCSV, csv("1e-7")},
		"polars.tsv":           {proto.FormatTSV, csv("1e-7")},
		"polars.jsonl":         {proto.FormatJSONL, jsonLines("1e-7")},
		"polars.json":          {proto.FormatJSON, jsonArray("1e-7")},
		"duckdb.csv":           {proto.FormatCSV, csv("1e-07")},
		"duckdb-pipe.csv":      {proto.FormatCSV, csv("1e-07")},
		"duckdb.jsonl":         {proto.FormatJSONL, jsonLines("1e-7")},
		"duckdb.json":          {proto.FormatJSON, jsonArray("1e-7")},
		"excel-utf8.csv":       {proto.FormatCSV, csv("1e-07")},
		"excel-semicolon.csv":  {proto.FormatCSV, csv("1e-07")},
		"excel-unicode.txt":    {proto.FormatTSV, csv("1e-07")},
	}

	entries, err := os.ReadDir(filepath.Join("testdata", "csv"))
	if err != nil {
		t.Fatal(err)
	}

	for _, entry := range entries {
		name := entry.Name()
		if name == "write.py" {
			continue
		}

		t.Run(name, func(t *testing.T) {
			t.Parallel()

			tt, ok := tests[name]
			if !ok {
				t.Fatal("the file has no test")
			}

			text, err := os.ReadFile(filepath.Join("testdata", "csv", name))
			if err != nil {
				t.Fatal(err)
			}

			cfg := configOf("x", string(text)) // the name does not help
			r, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()

			if r.Format() != tt.format {
				t.Errorf("the format is %s, want %s", r.Format(), tt.format)
			}

			rows, positions := readAll(t, cfg)
			if diff := cmp.Diff(tt.want, rows); diff != "" {
				t.Errorf("the rows differ (-want +got):\n%s", diff)
			}

			checkResumes(t, cfg, rows, positions)
		})
	}
}
