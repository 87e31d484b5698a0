package trial

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/metadata"
)

// What was written is read again: the same variants, with their metadata and quality, without those put beside.
func TestAWrittenTrialIsRead(t *testing.T) {
	t.Parallel()

	trial := newTrial(newVariant("Gemma", gemma), newVariant("Qwen", qwen), Variant{Name: "Phi", State: Failed, Reason: "no memory"})
	trial.Beside = []Variant{newVariant("Other", qwen)}
	name := filepath.Join(t.TempDir(), "monday")
	if err := Evaluate(trial, Options{}).WriteFiles(name); err != nil {
		t.Fatal(err)
	}

	got, err := ReadVariants(name + JSONSuffix)
	if err != nil {
		t.Fatal(err)
	}

	want := trial.Variants
	for i := range want {
		want[i].Name += " (monday)"
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestReadingRefuses(t *testing.T) {
	t.Parallel()

	row := func(fields string) string {
		return `{"schema_version":1,"variants":[{"name":"A","state":"measured"` + fields + `}]}`
	}
	for text, want := range map[string]string{
		``:                                   "it is not one JSON object",
		`[1]`:                                "it is not a JSON object",
		`{}`:                                 "it has no results",
		`{"variants":3}`:                     "a JSON number cannot be its variants",
		`{"schema_version":2,"variants":[]}`: "schema_version 2, it knows 1",
		`{"schema_version":1,"variants":[]}`: "it has no variants of its own",
		`{"schema_version":1,"variants":[{"name":"","state":"failed"}]}`:                     "variant 1: its name has 0 bytes",
		`{"schema_version":1,"variants":[{"name":"A","state":"flying"}]}`:                    `"flying" is no state`,
		row(`,"price_per_hour":-1`):                                                          "its price_per_hour -1 is not between",
		row(`,"quality":{"expected":{"count":2,"of":1,"low":0,"share":0.5,"high":1}}`) + `}`: "it is not one JSON object",
		row(`,"quality":{"expected":{"count":2,"of":1,"low":0,"share":0.5,"high":1}}`):       `the share "expected" of its quality is not one`,
		row(`,"quality":{"score":{"mean":2,"low":0,"high":3,"of":1}}`):                       "the score of its quality is not one",
		row(`,"quality":{"requests":-1}`):                                                    "a count of its quality is below zero",
		row(`,"metadata":{"results":{}}`):                                                    "success_count or inference_time_seconds",
		row(`,"rounds":[{"number":2},{"number":1}]`):                                         "its rounds are not in order",
	} {
		path := filepath.Join(t.TempDir(), "x.trial.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}

		_, err := ReadVariants(path)
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}

	if _, err := ReadVariants(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// Whatever a file has, it is refused, or all forms of a trial with it beside can be written.
func FuzzReadVariants(f *testing.F) {
	var whole bytes.Buffer
	short := with(gemma, func(s *spec) { s.seconds = 20 })
	if err := Evaluate(newTrial(newVariant("A", short)), Options{}).WriteJSON(&whole); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes())
	for _, name := range []string{"seed", "baseline"} {
		text, err := os.ReadFile("../metadata/testdata/" + name + ".meta.json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"schema_version":1,"variants":[{"name":"A","state":"measured","price_per_hour":1e9,"quality":{"score":{"of":1}},` +
		`"metadata":{"results":{"success_count":1,"prompt_tokens":1000000000,"inference_time_seconds":1e-300}}}]}`))

	own := newVariant("Own", short)
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseVariants(text, "x.trial.json")
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, metadata.ErrFormat) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}

		trial := newTrial(own)
		trial.Beside = list
		for _, goal := range []Goal{Throughput, Cost, Best} {
			r := Evaluate(trial, Options{Goal: goal, Estimates: []int{1000}})
			for _, row := range r.Variants {
				if row.Speed != nil && (math.IsNaN(row.Speed.rate()) || math.IsInf(row.Speed.rate(), 0)) {
					t.Fatalf("a rate of %v", row.Speed.rate())
				}
			}

			var page, md, js bytes.Buffer
			if err := errors.Join(r.WriteHTML(&page), r.WriteMarkdown(&md), r.WriteJSON(&js)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
