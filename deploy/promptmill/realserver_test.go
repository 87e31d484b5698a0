package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
)

// A llama.cpp server that the environment names answers a run with any of its options, or the
// run reports the option that the server lacks.
func TestRunOverALlamaServer(t *testing.T) {
	binary, model := os.Getenv("PROMPTMILL_TEST_LLAMA_SERVER"), os.Getenv("PROMPTMILL_TEST_LLAMA_MODEL")
	if binary == "" || model == "" {
		t.Skip(
			"PROMPTMILL_TEST_LLAMA_SERVER and PROMPTMILL_TEST_LLAMA_MODEL do not name a llama-server and a small GGUF file",
		)
	}

	const embeddings = `{"custom_id":"e%d","input":"item %d"}`
	one := []string{"-m", model, "--alias", "tiny"}
	for _, tt := range []struct {
		name  string
		start []string
		line  string // of the input, with its number twice
		key   string
		code  int
		said  string
	}{
		{name: "defaults", start: one, said: "200 answered, 0 failed"},
		{name: "metrics", start: append(one, "-np", "8", "--metrics"), said: "200 answered, 0 failed"},
		{name: "no slots", start: append(one, "--no-slots"), said: "200 answered, 0 failed"},
		{
			name:  "embeddings",
			start: append(one, "--embeddings", "--pooling", "mean"),
			line:  embeddings,
			said:  "200 answered, 0 failed",
		},
		{
			name:  "not for embeddings",
			start: one,
			line:  embeddings,
			code:  exit.CodeUnreachable,
			said:  "Start it with `--embeddings`",
		},
		{name: "the key", start: append(one, "--api-key", "k"), key: "k", said: "200 answered, 0 failed"},
		{
			name:  "no key",
			start: append(one, "--api-key", "k"),
			code:  exit.CodeUnreachable,
			said:  "401 Unauthorized: it wants a key",
		},
		{
			name:  "a router",
			start: []string{"--models-dir", filepath.Dir(model)},
			line: `{"custom_id":"r%d","model":"` + strings.TrimSuffix(filepath.Base(model), ".gguf") +
				`","prompt":"item %d","max_tokens":8}`,
			said: "200 answered, 0 failed",
		},
		{
			name:  "slots that share too small a cache",
			start: append(one, "-c", "1024"),
			line:  `{"custom_id":"c%d","prompt":"%d ` + strings.Repeat("w1 ", 400) + `","max_tokens":8}`,
			said:  "200 answered, 0 failed",
		},
		{
			name:  "long prompts",
			start: append(one, "-c", "512"),
			line:  `{"custom_id":"l%d","prompt":"%d ` + strings.Repeat("w1 ", 600) + `"}`,
			code:  exit.CodeFailed,
			said:  "exceeds the available context size",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := startServer(t, binary, append(tt.start, "-t", "1"))
			t.Setenv("PROMPTMILL_API_KEY", tt.key)
			c := newCommand(t)

			line := tt.line
			if line == "" {
				line = `{"custom_id":"q%d","messages":[{"role":"user","content":"question %d"}],"max_tokens":8}`
			}

			c.requests("in.jsonl", 200, line)
			c.expect(tt.code, tt.said, "run", "in.jsonl", "-o", "out.jsonl.zst", "--url", url)

			if tt.code == exit.CodeOK {
				c.expect(exit.CodeOK, "proved", "verify", "in.jsonl", "out.jsonl.zst")
			}
		})
	}
}

// A vLLM that the environment names answers a run, and its refusals are reported.
func TestRunOverAVLLM(t *testing.T) {
	url := os.Getenv("PROMPTMILL_TEST_VLLM")
	if url == "" {
		t.Skip("PROMPTMILL_TEST_VLLM does not name the URL of a vLLM that serves a model as \"tiny\", with --max-model-len 1024")
	}

	c := newCommand(t)
	c.requests("in.jsonl", 100,
		`{"custom_id":"q%d","messages":[{"role":"user","content":"question %d"}],"max_tokens":4}`)
	c.expect(exit.CodeOK, "100 answered, 0 failed", "run", "in.jsonl", "-o", "out.jsonl.zst", "--url", url)
	c.expect(exit.CodeOK, "proved", "verify", "in.jsonl", "out.jsonl.zst")
	c.requests("embed.jsonl", 100, `{"custom_id":"e%d","input":"item %d"}`)
	c.expect(exit.CodeUnreachable, "refuses all requests: POST /v1/embeddings: status 404",
		"run", "embed.jsonl", "--url", url)
	c.requests("long.jsonl", 2, `{"custom_id":"l%d","prompt":"%d `+strings.Repeat("w1 ", 1500)+`"}`)
	c.expect(exit.CodeFailed, "maximum context length is 1024 tokens", "run", "long.jsonl", "--url", url)
	c.expect(exit.CodeUsage, "the server has tiny", "run", "in.jsonl", "-o", "other.jsonl.zst",
		"--model", "nobody", "--url", url)
}

// requests writes a file of n lines, each with its number twice.
func (c command) requests(name string, n int, format string) {
	c.t.Helper()
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, format+"\n", i, i)
	}
	must(c.t, os.WriteFile(filepath.Join(c.dir, name), []byte(text.String()), 0o600))
}

// startServer starts a llama.cpp server on a port of its own, and returns its URL when it has
// loaded its model.
func startServer(t *testing.T, binary string, args []string) string {
	t.Helper()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	must(t, listener.Close())
	cmd, out := exec.Command(binary,
		append(args, "--host", "127.0.0.1", "--port", strconv.Itoa(port))...), &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = endWithTest()
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt) // so that a router ends its servers
		waitExit(t, cmd, out, patience)
	})

	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	poll(t, patience, "the model loaded", func() bool {
		res, err := http.Get(url + "/health")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})

	return url
}
