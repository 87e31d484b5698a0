package history

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/metadata"
)

func entry(id, model, sha string) Entry {
	return Entry{
		TestID:       id,
		Model:        model,
		InputSHA256:  sha,
		SuccessCount: 5,
		NumRequests:  5,
		Meta:         "/out/" + id + ".meta.json",
	}
}

func TestRunsAreRemembered(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	if list, err := Load(dir); list != nil || err != nil {
		t.Fatalf("of nothing: %v, %v", list, err)
	}

	run := &metadata.Run{
		TestID:   "r",
		Label:    "nightly",
		Model:    "m",
		Platform: "p",
		Status:   "completed",
		Test:     metadata.Test{NumRequests: 3, InputFile: "in", InputSHA256: "sha"},
		Results: metadata.Results{
			SuccessCount:         2,
			FailureCount:         1,
			InferenceTimeSeconds: 4,
			TotalTimeSeconds:     5,
			OutputTokensPerSec:   new(1.5),
		},
	}

	want := []Entry{Of("/out/r.meta.json", run)}
	if e := want[0]; e.Label != "nightly" || e.InputName() != "in" {
		t.Errorf("the entry has the label %q and the input %q", e.Label, e.InputName())
	}

	if err := Append(dir, want[0]); err != nil {
		t.Fatal(err)
	}

	got, err := Load(dir)
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}

	if got[0].ThroughputTokensPerSec != nil || *got[0].OutputTokensPerSec != 1.5 {
		t.Errorf("%+v: an unknown value is not null", got[0])
	}
}

func TestARunThatIsNotedAgainTakesItsPlace(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	again := entry("a", "m", "x")
	again.SuccessCount = 4

	for _, e := range []Entry{again, entry("b", "m", "x"), entry("a", "m", "x")} {
		if err := Append(dir, e); err != nil {
			t.Fatal(err)
		}
	}

	got, err := Load(dir)
	if d := cmp.Diff([]Entry{entry("b", "m", "x"), entry("a", "m", "x")}, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
}

func TestATornLineCostsNoOther(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	if err := Append(dir, entry("a", "m", "x")); err != nil {
		t.Fatal(err)
	}

	file, err := os.OpenFile(filepath.Join(dir, File), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}

	if _, err := file.WriteString(`{"test_id":"to`); err != nil {
		t.Fatal(err)
	}

	if err := file.Close(); err != nil {
		t.Fatal(err)
	}

	if err := Append(dir, entry("b", "m", "x")); err != nil {
		t.Fatal(err)
	}

	got, err := Load(dir)
	if d := cmp.Diff([]Entry{entry("a", "m", "x"), entry("b", "m", "x")}, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
}

func TestManyAppendAtOnce(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			e := entry(fmt.Sprint(i), strings.Repeat("m", 8000), "x")
			if err := Append(dir, e); err != nil {
				t.Error(err)
			}
		})
	}

	all.Wait()
	if list, err := Load(dir); len(list) != 16 || err != nil {
		t.Errorf("%d entries, %v", len(list), err)
	}
}

func TestBaselinesAreOtherModelsOnTheInput(t *testing.T) {
	t.Parallel()

	failed := entry("failed", "large", "x")
	failed.SuccessCount = 0
	list := []Entry{
		entry("older", "large", "x"), entry("newer", "huge", "x"), entry("same model", "small", "x"),
		entry("other input", "large", "y"), failed,
	}

	run := &metadata.Run{Model: "small", Test: metadata.Test{InputSHA256: "x"}}
	var got []string
	for _, e := range Baselines(list, run) {
		got = append(got, e.TestID)
	}

	if d := cmp.Diff([]string{"newer", "older"}, got); d != "" {
		t.Error(d)
	}

	run.Test.InputSHA256 = ""
	if got := Baselines([]Entry{entry("of an unknown input", "large", "")}, run); got != nil {
		t.Error(got)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"test_id":"a","meta":"b"}` + "\n\n{\n" + `{"test_id":"a","meta":"b"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := readEntries(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > bytes.Count(text, []byte("\n"))+1 {
			t.Fatal("more runs than lines")
		}
	})
}
