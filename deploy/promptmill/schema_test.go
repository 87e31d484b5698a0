package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Answers that match --schema are answers. A request whose answer does not match runs once
// more; the second answer is kept, with an error if it does not match either.
func TestSchema(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	var mu sync.Mutex
	asked := map[string]int{}
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			if r.URL.Path != "/v1/models" {
				http.NotFound(w, r)
				return
			}
			io.WriteString(w, `{"object":"list","data":[{"id":"m","object":"model"}]}`)
			return
		}

		var request struct{ Messages []struct{ Content string } }
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			t.Error(err)
		}

		prompt := request.Messages[0].Content
		mu.Lock()
		asked[prompt]++
		n := asked[prompt]
		mu.Unlock()
		good := prompt == "always" || prompt == "at last" && n == 2
		text := fmt.Sprintf(`{"try":"%d"}`, n)
		if good {
			text = fmt.Sprintf(`{"try":%d}`, n)
		}

		fmt.Fprintf(w,
			`{"choices":[{"message":{"role":"assistant","content":%s},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`,
			jsonscan.Quote(text))
	}))

	t.Cleanup(model.Close)
	for name, text := range map[string]string{
		"schema.json": `{"type": "object", "properties": {"try": {"type": "integer"}}, "required": ["try"]}`,
		"in.jsonl": `{"custom_id":"always","messages":[{"role":"user","content":"always"}]}
{"custom_id":"at last","messages":[{"role":"user","content":"at last"}]}
{"custom_id":"never","messages":[{"role":"user","content":"never"}]}
`,
	} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	args := []string{"run", "in.jsonl", "--url", model.URL, "-o", "out.jsonl.zst", "--schema", "schema.json"}
	text, code := c.run(args...)
	if code != exit.CodeFailed || !strings.Contains(text, "1 of 3 requests failed") {
		t.Fatalf("exit code %d:\n%s", code, text)
	}

	c.verified("in.jsonl", "out")

	answered, failed := c.lines("out.jsonl.zst"), c.lines("out.errors.jsonl.zst")
	for _, tt := range []struct {
		id, code, message, answer string
		line                      []byte
	}{
		{"always", "", "", `{\"try\":1}`, answered["always"]},
		{"at last", "", "", `{\"try\":2}`, answered["at last"]},
		{"never", proto.CodeSchemaMismatch, "/try: got string, want integer", `{\"try\":\"2\"}`, failed["never"]},
	} {
		var line struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal(tt.line, &line); err != nil {
			t.Fatalf("%s: %v: %q", tt.id, err, tt.line)
		}

		if line.Error.Code != tt.code || line.Error.Message != tt.message ||
			!strings.Contains(string(tt.line), tt.answer) {
			t.Errorf("the line of %q: want answer %s, error %q %q, have\n%s",
				tt.id, tt.answer, tt.code, tt.message, tt.line)
		}
	}

	if again := c.meta("out").Results.AttemptFailures[proto.CodeSchemaMismatch]; again != 2 {
		t.Errorf("%d answers were asked for again, want 2", again)
	}

	if text, code := c.run(args...); code != exit.CodeFailed || !strings.Contains(text, "complete already") {
		t.Errorf("the same command again: exit code %d:\n%s", code, text)
	}
}
