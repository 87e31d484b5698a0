package report

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/metadata"
)

var update = flag.Bool("update", false, "write the golden files")

// golden reads metadata that the tests of package metadata check.
func golden(t testing.TB, name string) *metadata.Run {
	t.Helper()
	run, err := metadata.Read(filepath.Join("../metadata/testdata", name+".meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// fixture reads metadata of the tests of this package.
func fixture(t testing.TB, name string) *metadata.Run {
	t.Helper()
	run, err := metadata.Read(filepath.Join("testdata", name+".meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	return run
}

var policyOfPage = regexp.MustCompile(`(http-equiv="Content-Security-Policy" content=")[^"]*(">)`)

func TestReportsAreAsTheyWere(t *testing.T) {
	t.Parallel()

	reports := map[string]*Report{
		"seed": Build(golden(t, "seed"), Options{
			Baseline:     golden(t, "baseline"),
			Path:         "seed.meta.json",
			BaselinePath: "baseline.meta.json",
		}),
		"rich": Build(golden(t, "rich"), Options{
			Baseline: golden(t, "baseline"), Path: "tickets.results.meta.json",
			Prices: Prices{In: new(0.15), Out: new(0.6), KWh: new(0.3)}, Workers: 4,
		}),
		// A run of the current version, with all that it knows, and two models on one input.
		"full": Build(fixture(t, "full"), Options{
			Path: "tickets.results.meta.json", Prices: Prices{In: new(0.15), Out: new(0.6), KWh: new(0.3), Currency: "EUR"},
		}),
		"cancelled": Build(some(cancelledRun), Options{Path: "small.meta.json", Estimates: []int{1000}}),
		"models": Compare([]Named{
			{"gemma.meta.json", fixture(t, "other")},
			{"tickets.meta.json", fixture(t, "full")},
		}, Options{Prices: Prices{In: new(0.15), Out: new(0.6), KWh: new(0.3), Currency: "EUR"}}),
		"compare": Compare([]Named{
			{"seed.meta.json", golden(t, "seed")},
			{"baseline.meta.json", golden(t, "baseline")},
			{"rich.meta.json", golden(t, "rich")},
		}, Options{}),
	}
	for name, r := range reports {
		for suffix, write := range map[string]func(*bytes.Buffer) error{
			".md":   func(b *bytes.Buffer) error { return r.Markdown(b) },
			".html": func(b *bytes.Buffer) error { return r.HTML(b) },
			".json": func(b *bytes.Buffer) error { return r.JSON(b) },
		} {
			var got bytes.Buffer
			if err := write(&got); err != nil {
				t.Fatal(err)
			}

			text := got.String()
			if suffix == ".html" { // what all pages share has tests of its own
				text = strings.NewReplacer(style, "STYLE", script, "SCRIPT", pageStyle, "STYLE", pageScript, "SCRIPT").Replace(text)
				text = policyOfPage.ReplaceAllString(text, "${1}POLICY${2}")
			}

			path := filepath.Join("testdata", name+".report"+suffix)
			if *update {
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}

			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}

			if d := cmp.Diff(string(want), text); d != "" {
				t.Errorf("%s; -update rewrites it:\n%s", path, d)
			}
		}
	}
}
