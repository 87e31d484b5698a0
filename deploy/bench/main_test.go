package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/proto/prototest"
)

// TestMain lets the test's program be a child of the bench, as the bench itself is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && children[os.Args[1]] != nil {
		main()
	}
	prototest.Main(m)
}

func TestWrongCommandLines(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ args, says string }{
		{"--only nothing", "--only nothing: must be of latency-0, slots, parts"},
		{"--only parts,", "must be of"},
		{"--repeat -1", "must be at least 1"},
		{"parts", `there is no argument "parts"`},
		{"--fast", "flag provided but not defined"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			if code := runBench(t.Context(), strings.Fields(tt.args), &bytes.Buffer{}, &stderr); code != 2 ||
				!strings.Contains(stderr.String(), tt.says) {
				t.Errorf("code %d: %s", code, &stderr)
			}
		})
	}
}

// TestPrefixes runs the quickest section from one end to the other.
func TestPrefixes(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "figures.json")
	var stdout, stderr bytes.Buffer
	if code := runBench(
		t.Context(), []string{"--quick", "--only", "prefixes", "--json", path}, &stdout, &stderr,
	); code != 0 {
		t.Fatalf("code %d: %s", code, &stderr)
	}

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	var report Report
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}

	if len(report.Tables) != 1 || len(report.Tables[0].Rows) != 3 || report.Machine.Cores == 0 ||
		runtime.GOOS == "linux" && report.Machine.MemoryBytes == 0 {
		t.Fatalf("report %s", text)
	}

	cached := map[string]float64{}
	for _, row := range report.Tables[0].Rows {
		cached[row.Name] = row.Figures["% of prompts cached"].Median
		if s := row.Figures["req/s"]; s.Median <= 0 || len(s.Values) != 1 {
			t.Errorf("%s: %+v", row.Name, s)
		}

		if !strings.Contains(stdout.String(), "\n  "+row.Name+" ") {
			t.Errorf("no row %s in\n%s", row.Name, &stdout)
		}
	}

	mixed, sorted, grouped := cached["mixed"], cached["sorted in the file"], cached["mixed, --group-by-prefix"]
	if mixed <= 0 || sorted < 2*mixed || grouped < 2*mixed {
		t.Errorf("%g%% of the prompts are cached, %g%% of them sorted and %g%% grouped", mixed, sorted, grouped)
	}
}

func TestInputs(t *testing.T) {
	t.Parallel()

	b := &bench{options: options{dir: t.TempDir()}, inputs: map[inputKind]string{}}
	for _, kind := range []inputKind{
		{requests: 20, size: 150},
		{requests: 20, size: 4096, prefixes: 4},
		{requests: 20, size: 4096, prefixes: 4, sorted: true},
	} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			path, err := b.makeInput(kind)
			if err != nil {
				t.Fatal(err)
			}

			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}

			ids, beginnings, changes, last := map[string]bool{}, map[string]bool{}, 0, ""
			var scan jsonscan.Scanner
			for line := range bytes.Lines(text) {
				r, err := proto.ParseRequest(&scan, line)
				if err != nil {
					t.Fatal(err)
				}

				if size := len(line); size < kind.size*9/10 || size > kind.size*11/10+20 {
					t.Errorf("a request of %d bytes", size)
				}

				ids[string(r.CustomID)] = true
				_, content, _ := bytes.Cut(r.Body, []byte(`"content":"`))
				if beginning := string(content[:min(len(content), kind.size/2)]); beginning != last {
					beginnings[beginning], last = true, beginning
					changes++
				}
			}

			if len(ids) != kind.requests {
				t.Errorf("%d ids", len(ids))
			}

			if kind.prefixes == 0 {
				return
			}

			if len(beginnings) != kind.prefixes || (changes == kind.prefixes) != kind.sorted {
				t.Errorf("%d beginnings that change %d times", len(beginnings), changes)
			}
		})
	}

	again, err := b.makeInput(inputKind{requests: 20, size: 150})
	if err != nil || len(b.inputs) != 3 || again != b.inputs[inputKind{requests: 20, size: 150}] {
		t.Errorf("an input is made twice: %v, %v", b.inputs, err)
	}
}
