package report

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// TestTheCommandsShowTheFailures runs the commands of a report over failed lines of all kinds: each
// prints those of its cause, and no other.
func TestTheCommandsShowTheFailures(t *testing.T) {
	t.Parallel()

	for _, program := range []string{"sh", "zstd", "jq"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s", program)
		}
	}

	lines := []string{
		`{"custom_id":"refused","response":{"status_code":400,"body":{"error":{"code":400,"message":"too long"}}},"error":null}`,
		`{"custom_id":"gone","response":{"status_code":404,"body":null},"error":null}`,
		`{"custom_id":"late","response":null,"error":{"code":"timeout","message":"no answer"}}`,
		`{"custom_id":"both","response":{"status_code":400,"body":{}},"error":{"code":"context_length","message":"x"}}`,
		`{"custom_id":"number","response":null,"error":{"code":503,"message":"x"}}`,
		`{"custom_id":"quote","response":null,"error":{"code":"it's \"<odd>\" \\(1)","message":"x"}}`,
		`{"custom_id":"coded","response":{"status_code":400,"body":{}},"error":{"message":"x"}}`,
		`{"custom_id":"bare","response":null,"error":{"message":"x"}}`,
	}

	path := filepath.Join(t.TempDir(), "it's.errors.jsonl.zst")
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer encoder.Close()

	if err := os.WriteFile(path, encoder.EncodeAll([]byte(strings.Join(lines, "\n")+"\n"), nil), 0o644); err != nil {
		t.Fatal(err)
	}

	want := map[string][]string{}
	for _, text := range lines {
		line, err := proto.ParseLine(new(jsonscan.Scanner), []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var id string
		if err := json.Unmarshal(line.CustomID, &id); err != nil {
			t.Fatal(err)
		}
		want[line.ErrorCode] = append(want[line.ErrorCode], id)
	}

	for cause, ids := range want {
		run := some(func(r *metadata.Run) {
			r.Results.FailureCount, r.Results.Failures = len(ids), map[string]int64{cause: int64(len(ids))}
			r.Test.ErrorFile = &path
		})

		s := buildFailures(&builder{run: run})
		if len(s.Commands) != 1 {
			t.Fatalf("%s: %d commands", cause, len(s.Commands))
		}

		out, err := exec.CommandContext(t.Context(), "sh", "-c", s.Commands[0].Line).Output()
		if err != nil {
			t.Fatalf("%s: %v", s.Commands[0].Line, err)
		}

		var got []string
		for line := range strings.Lines(string(out)) {
			var l struct {
				CustomID string `json:"custom_id"`
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			got = append(got, l.CustomID)
		}

		if !slices.Equal(got, ids) {
			t.Errorf("%s\n prints %q, want %q", s.Commands[0].Line, got, ids)
		}
	}

	if n := len(want); n != len(lines)-1 || len(want["unknown"]) != 2 {
		t.Errorf("the lines have %d causes: %v", n, want)
	}
}
