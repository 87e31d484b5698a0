package main

import (
	"bytes"
	"flag"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// example is a report of two tables, with rows that lack something.
func example() Report {
	columns := []column{{name: "req/s"}, {name: "x base", against: "base", of: "req/s"}, {name: "peak MB"}}
	compared := newTable(section{name: "compared", about: "two at one server", columns: columns})
	compared.addSamples(columns, []sample{{"other", []float64{50, 9.5}}, {"base", []float64{100, 20}}})
	compared.addSamples(columns, []sample{{"base", []float64{400, 21}}, {"other", []float64{100, 8.5}}})
	compared.addSamples(columns, []sample{{"other", []float64{90, math.NaN()}}, {"base", []float64{120, 22}}})
	compared.sortRows([]string{"base", "other"})
	columns = []column{{name: "share", against: "nobody", of: "share"}}
	alone := newTable(section{name: "alone", about: "against a row that is not there", columns: columns})
	alone.addSamples(columns, []sample{{row: "é"}})

	return Report{
		Schema:     ReportSchema,
		Machine:    Machine{CPU: "A CPU", Cores: 2, MemoryBytes: 25<<30 - 1, Go: "go1.26", OS: "linux/amd64"},
		Promptmill: "promptmill v1",
		Rounds:     3,
		Tables:     []Table{compared, alone},
	}
}

func TestReport(t *testing.T) {
	t.Parallel()

	report := example()
	var text bytes.Buffer
	if err := report.printHead(&text); err != nil {
		t.Fatal(err)
	}

	for _, table := range report.Tables {
		if err := table.printText(&text); err != nil {
			t.Fatal(err)
		}
	}

	path := filepath.Join(t.TempDir(), "report.json")
	if err := report.writeFile(path); err != nil {
		t.Fatal(err)
	}

	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	golden(t, "report.txt", text.Bytes())
	golden(t, "report.json", written)
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()

	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}
