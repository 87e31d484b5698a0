package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/sashabaranov/go-openai"

	"github.com/promptmill/promptmill/deploy/exit"
)

// refusals are the refusals of servers and proxies, by the prompt.
var refusals = map[string]struct {
	status int
	body   string
}{
	"a page":   {400, "<html>\r\n<head><title>413 Request Entity Too Large</title></head></html>\r\n"},
	"a text":   {422, "Not Found"},
	"nothing":  {400, ""},
	"an array": {422, `[{"loc":["body","messages"],"msg":"too long"}]`},
	"a string": {400, `"no"`},
	"null":     {400, "null"},
	"detail":   {422, `{"detail":[{"loc": ["body"],"msg":"no"}]}`},
	"openai":   {400, `{"error":{"message":"too long","type":"invalid_request_error","param":null,"code":400}}`},
}

// refusing is a model server that answers a request, or refuses it with the error that its
// prompt names.
func refusing(t *testing.T) string {
	t.Helper()

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for prompt, refusal := range refusals {
			if bytes.Contains(body, []byte(`"content":"`+prompt+`"`)) {
				w.WriteHeader(refusal.status)
				io.WriteString(w, refusal.body)
				return
			}
		}

		if strings.HasSuffix(r.URL.Path, "/models") {
			io.WriteString(w, `{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"me"}]}`)
			return
		}

		io.WriteString(w,
			`{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop","logprobs":null,`+
				`"message":{"role":"assistant","content":"yes","refusal":null}}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`)
	}))

	t.Cleanup(server.Close)

	return server.URL
}

// The types of OpenAI's SDKs decode each line of the output, whatever servers refuse with.
func TestOthersReadTheOutput(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	var input strings.Builder
	for prompt := range refusals {
		input.WriteString(`{"custom_id":"` + prompt + `","model":"m","messages":[{"role":"user","content":"` +
			prompt + `"}]}` + "\n")
	}

	input.WriteString(`{"custom_id":"good","model":"m","messages":[{"role":"user","content":"hello"}]}` + "\n")
	must(t, os.WriteFile(filepath.Join(c.dir, "in.jsonl"), []byte(input.String()), 0o644))

	if text, code := c.run("run", "in.jsonl", "-o", "out.jsonl.zst", "--url", refusing(t)); code != exit.CodeFailed {
		t.Fatalf("exit code %d:\n%s", code, text)
	}

	read := 0
	for _, name := range []string{"out.jsonl.zst", "out.errors.jsonl.zst"} {
		for custom, text := range c.lines(name) {
			var line struct {
				Response *struct {
					StatusCode int             `json:"status_code"`
					Body       json.RawMessage `json:"body"`
				} `json:"response"`
			}

			must(t, json.Unmarshal(text, &line))
			if line.Response == nil {
				t.Errorf("%s has no response: %s", custom, text)
				continue
			}

			read++
			body := line.Response.Body
			if custom == "good" {
				var answer openai.ChatCompletionResponse
				if err := json.Unmarshal(body, &answer); err != nil || answer.Choices[0].Message.Content != "yes" {
					t.Errorf("%s: %v in %s", custom, err, body)
				}
				continue
			}

			var refusal openai.ErrorResponse
			if err := json.Unmarshal(body, &refusal); err != nil {
				t.Errorf("%s: %v in %s", custom, err, body)
			}

			if want := refusals[custom]; custom == "detail" || custom == "openai" {
				if string(body) != want.body {
					t.Errorf("%s: %s, want it as it came", custom, body)
				}
			} else if refusal.Error == nil || refusal.Error.Message == "" || refusal.Error.Type != "invalid_response" {
				t.Errorf("%s: %s", custom, body)
			}
		}
	}

	if want := len(refusals) + 1; read != want {
		t.Errorf("%d lines were read, want %d", read, want)
	}

	python(t, "openai", `
import json, subprocess, sys
from openai.types.chat import ChatCompletion
from openai.types.shared import ErrorObject
for name in sys.argv[1:]:
    for line in subprocess.run(["zstd", "-dc", name], check=True, capture_output=True).stdout.splitlines():
        response = json.loads(line)["response"]
        if response["status_code"] == 200:
            ChatCompletion.model_validate(response["body"])
        elif response["body"].get("error", {}).get("type") == "invalid_response":
            ErrorObject.model_validate(response["body"]["error"])
`, filepath.Join(c.dir, "out.jsonl.zst"), filepath.Join(c.dir, "out.errors.jsonl.zst"))
}

// python runs a program that needs a module, which the machine may lack.
func python(t *testing.T, module, program string, args ...string) {
	t.Helper()

	interpreter := findPython(t, module)
	if interpreter == "" {
		t.Logf("left out the checks that need Python's module %s", module)
		return
	}

	if out, err := exec.Command(interpreter, append([]string{"-c", program}, args...)...).CombinedOutput(); err != nil {
		t.Errorf("Python's %s: %v\n%s", module, err, out)
	}
}

// Readers of streams get all lines of a journal and of a seekable file. Python's zstandard, which
// in one call reads one frame, gives an error then, and not the first part as if it were all.
func TestOneShotReaders(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	var input strings.Builder
	for range 3000 {
		input.WriteString(`{"model":"m","prompt":"` + strings.Repeat("x", 100) + `"}` + "\n")
	}

	must(t, os.WriteFile(filepath.Join(c.dir, "in.jsonl"), []byte(input.String()), 0o644))
	journal := filepath.Join(c.dir, "cut.part.zst")
	cmd, _ := c.start("run", "in.jsonl", "-o", "cut.jsonl.zst", "--sim", "--sim-ttft", "5ms", "--sim-tpot", "0s",
		"--flush", "50ms")
	poll(t, pollTime, "some lines", func() bool { return countLines(t, journal) > 20 })
	must(t, cmd.Process.Kill())
	cmd.Wait()
	must(t, exec.Command("cp", journal, filepath.Join(c.dir, "journal.zst")).Run())
	c.must("run", "in.jsonl", "-o", "seekable.jsonl.zst", "--seekable", "--sim", "--sim-ttft", "1ms",
		"--sim-tpot", "0s", "--sim-tokens", "400")

	for _, name := range []string{"journal.zst", "seekable.jsonl.zst"} {
		if n := countLines(t, filepath.Join(c.dir, name)); n == 0 {
			t.Errorf("%s has no lines", name)
		}

		python(t, "zstandard", `
import sys, zstandard
data, lines = open(sys.argv[1], "rb").read(), int(sys.argv[2])
try:
    text = zstandard.ZstdDecompressor().decompress(data)
except zstandard.ZstdError:
    pass
else:
    assert text.count(b"\n") == lines, "lines are left out without an error"
with open(sys.argv[1], "rb") as file:
    text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
assert text.count(b"\n") == lines, "lines are left out of a stream"
`, filepath.Join(c.dir, name), strconv.Itoa(countLines(t, filepath.Join(c.dir, name))))
	}
}

// countLines returns how many lines a compressed file has, 0 if it is not there. The last frame
// of one that is being written may be torn.
func countLines(t *testing.T, path string) int {
	t.Helper()

	file, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer file.Close()

	dec, err := zstd.NewReader(file)
	must(t, err)
	defer dec.Close()

	text, _ := io.ReadAll(dec)

	return bytes.Count(text, []byte("\n"))
}
