package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// A run that began by one clock and ended by another, which is behind, took no time
// below nothing.
func TestTimesByTwoClocks(t *testing.T) {
	t.Parallel()

	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for ended, want := range map[time.Duration]float64{time.Minute: 60, -time.Hour: 0} {
		end := begin.Add(ended)
		if got := newEntry(proto.Manifest{CreatedAt: begin, EndedAt: &end}).TotalTimeSeconds; got != want {
			t.Errorf("ended %s after it began, it took %v s, want %v s", ended, got, want)
		}
	}

	for ago, want := range map[time.Duration]string{90 * time.Second: "1m", -time.Hour: "0s"} {
		if got := terminal.FormatAge(ago); got != want {
			t.Errorf("%s ago is %s, want %s", ago, got, want)
		}
	}
}

// oldMetadata are of a tool that was there before.
const oldMetadata = `{"test_id":"gemma-5k","timestamp":"2025-10-14T22:40:05","platform":"vllm","model":"gemma-3-4b",
"test":{"num_requests":5000,"input_file":"batch_5k.jsonl"},"status":"success","results":{"success_count":5000,"failure_count":0,
"model_load_time_seconds":26,"inference_time_seconds":2183.026,"prompt_tokens":3942154,"completion_tokens":1540218}}`

// Runs of other tools are noted, and the page of all of them is written, also after their metadata
// are gone.
func TestHistoryPage(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	later := strings.NewReplacer("gemma-5k", "olmo-10", "gemma-3-4b", "olmo-3-7b", "2025-10-14", "2025-11-24", "5000", "10",
		"2183.026", "7.211113", "3942154", "7946", "1540218", "3112", `time_seconds":26`, `time_seconds":678.5`).Replace(oldMetadata)
	for name, text := range map[string]string{"old.meta.json": oldMetadata, "new.meta.json": later} {
		must(t, os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o644))
	}

	history := func(args ...string) string {
		t.Helper()

		out, err := c.prepare(append([]string{"history"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}

		return string(out)
	}

	added := history("--add", "new.meta.json", "--add", "old.meta.json", "--format", "md")
	for _, want := range []string{"39% slower?", "1,533", "678 s", "2 runs of 2 models"} {
		if !strings.Contains(added, want) {
			t.Errorf("the page lacks %q:\n%s", want, added)
		}
	}

	if out := history("-o", "models.md"); out != "" {
		t.Errorf("with -o it prints %q", out)
	}

	page, err := os.ReadFile(filepath.Join(c.dir, "models.md"))
	must(t, err)
	if string(page) != added {
		t.Errorf("the file differs from what was printed:\n%s", page)
	}

	must(t, os.Remove(filepath.Join(c.dir, "old.meta.json")))

	gone := history("--format", "md")
	if !strings.Contains(gone, "39% slower?") || strings.Contains(gone, "26.0 s") || !strings.Contains(gone, "678 s") {
		t.Errorf("without the metadata of a run:\n%s", gone)
	}

	if list := history(); !strings.Contains(list, "gemma-5k") || !strings.Contains(list, "olmo-10") {
		t.Errorf("the list lacks a run:\n%s", list)
	}

	if asked, same := history("--format", "json"), history("--json"); asked != same || !strings.Contains(same, `"olmo-10"`) {
		t.Errorf("--format json prints %s, --json %s", asked, same)
	}
}
