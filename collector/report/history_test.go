package report

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/history"
	"github.com/promptmill/promptmill/collector/metadata"
)

// newPast returns a run of a minute of 2026 on an input, with output tokens a second; 0: unknown.
func newPast(minute int, model, sha string, rate float64) Past {
	p := Past{Entry: history.Entry{
		TestID:       "run-" + model,
		Timestamp:    time.Date(2026, 1, 2, 3, minute, 0, 0, time.UTC),
		Model:        model,
		InputSHA256:  sha,
		NumRequests:  10,
		SuccessCount: 10,
		Status:       "completed",
		Meta:         "/out/" + model + ".meta.json",
	}}
	if rate > 0 {
		p.OutputTokensPerSec = &rate
	}

	return p
}

// formatHistory returns the page of runs.
func formatHistory(t *testing.T, runs []Past) string {
	t.Helper()

	var b bytes.Buffer
	if err := History(runs).Markdown(&b); err != nil {
		t.Fatal(err)
	}

	return b.String()
}

// cellsOf returns the cells of the first row of a page that has a text.
func cellsOf(t *testing.T, page, text string) []string {
	t.Helper()

	for line := range strings.SplitSeq(page, "\n") {
		if !strings.Contains(line, "| "+text) {
			continue
		}

		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}

		return cells
	}

	t.Fatalf("no row has %q:\n%s", text, page)

	return nil
}

// The figures of the page that this one replaces: ten requests with 39 % less than five thousand.
func TestHistoryOfOldMetadata(t *testing.T) {
	t.Parallel()

	var runs []Past
	for _, name := range []string{"seed", "baseline"} {
		run := golden(t, name)
		runs = append(runs, Past{Entry: history.Of(name+".meta.json", run), Run: run})
	}

	page := formatHistory(t, runs)
	for _, want := range [][]string{
		{"2025-10-14 22:40", "gemma-3-4b", "vllm", "5,000", "100%", "2,511", "706", "2.29", "–", "the best?"},
		{"2025-11-24 10:02", "olmo-3-7b", "vllm", "10", "100%", "1,533", "432", "1.39", "39% slower?", "39% slower?"},
		{"2025-11-24 10:02", "olmo-3-7b-10", "batch_10.jsonl", "context 4,096, GPU memory 90%", "1,102", "678 s", "completed"},
	} {
		if !slices.ContainsFunc(strings.Split(page, "\n"), func(line string) bool {
			cells := strings.FieldsFunc(line, func(r rune) bool { return r == '|' })
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			return slices.Equal(cells, want)
		}) {
			t.Errorf("no row is %q:\n%s", want, page)
		}
	}

	if !strings.Contains(page, "\n2 runs of 2 models, from 2025-10-14 22:40 to 2025-11-24 10:02.\n") {
		t.Errorf("it does not begin with what it has:\n%s", page)
	}
}

// Runs are compared on one input alone, with the best and with the one before.
func TestHistoryCompares(t *testing.T) {
	t.Parallel()

	runs := []Past{
		newPast(1, "a", "x", 100),
		newPast(2, "b", "x", 125),
		newPast(3, "c", "y", 500),
		newPast(4, "d", "x", 0),
		newPast(5, "e", "x", 99.96),
		newPast(6, "f", "x", 99.96),
	}
	failed := newPast(7, "g", "x", 1000)
	failed.SuccessCount, failed.FailureCount = 0, 10
	runs = append(runs, failed)

	page := formatHistory(t, runs)
	for model, want := range map[string][2]string{
		"a": {"–", "20% slower"},
		"b": {"25% faster", "the best"},
		"c": {"another input", "the best"},
		"d": {"–", "–"},
		"e": {"–", "20% slower"},
		"f": {"the same", "20% slower"},
		"g": {"–", "–"},
	} {
		cells := cellsOf(t, page, model+" ")
		if got := [2]string(cells[len(cells)-2:]); got != want {
			t.Errorf("%s against the run before and the best: %q, want %q", model, got, want)
		}
	}

	slices.Reverse(runs)
	if again := formatHistory(t, runs); again != page {
		t.Errorf("the order of the entries changes the page:\n%s\n%s", page, again)
	}
}

// Names from outside are text, and a run without its metadata is listed with what its entry has.
func TestHistoryOfForeignNames(t *testing.T) {
	t.Parallel()

	page := formatHistory(t, []Past{
		newPast(1, "a|b\n# <b>*c*</b>", "x", 100),
		{Entry: history.Entry{TestID: "only-an-id", NumRequests: 3}},
	})

	if strings.Contains(page, "\n# <b>") || !strings.Contains(page, `a\|b # \<b\>\*c\*\</b\>`) {
		t.Errorf("a name is Markdown:\n%s", page)
	}

	if !strings.Contains(page, "\n## Unknown model\n") || !strings.Contains(page, "| only-an-id") {
		t.Errorf("a run without a model is not listed:\n%s", page)
	}

	if got, want := formatHistory(t, nil), "# Runs in the order of time\n\nNo runs have ended.\n"; got != want {
		t.Errorf("of no runs: %q", got)
	}
}

// The settings, the cards and the phases of loading are those of the metadata.
func TestHistoryOfFullMetadata(t *testing.T) {
	t.Parallel()

	run := fixture(t, "full")
	page := formatHistory(t, []Past{{Entry: history.Of("full.meta.json", run), Run: run}})
	for _, want := range []string{
		"NVIDIA H100 80GB HBM3", "weights 21.5 s, compile 12.2 s", "GPU memory 90%", "| 48.2 s |", "tickets 2026",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

func FuzzHistory(f *testing.F) {
	seed, err := os.ReadFile("../metadata/testdata/seed.meta.json")
	if err != nil {
		f.Fatal(err)
	}

	f.Add(seed)
	f.Fuzz(func(t *testing.T, text []byte) {
		run, err := metadata.Parse(text)
		if err != nil {
			return
		}

		page := formatHistory(t, []Past{{Entry: history.Of("m", run), Run: run}, newPast(1, "a", "x", 100)})
		for line := range strings.SplitSeq(page, "\n") {
			if strings.HasPrefix(line, "|") && !strings.HasSuffix(line, "|") {
				t.Errorf("a row is cut: %q", line)
			}
		}
	})
}
