package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// pythonVariable names a Python that has the packages of the tests, which .ci/run installs.
const pythonVariable = "PROMPTMILL_TEST_PYTHON"

// findPython returns a Python that has all modules, or "".
func findPython(t *testing.T, modules ...string) string {
	t.Helper()

	python := os.Getenv(pythonVariable)
	if python == "" {
		python = "python3"
	}

	if out, err := exec.Command(python, "-c", "import "+strings.Join(modules, ", ")).CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Logf("%s does not have the modules %s: %v: %s", python, strings.Join(modules, ", "), err, lines[len(lines)-1])
		return ""
	}

	return python
}

// startExample starts a program of proto/examples/python, which runs as a role.
func (c command) startExample(python, program, role string, args ...string) (*exec.Cmd, *lockedBuffer) {
	c.t.Helper()

	bus := filepath.Join(c.dir, role+".json")
	must(c.t, os.WriteFile(bus, []byte(c.must("join", role, "--json")), 0o600))

	path, err := filepath.Abs(filepath.Join("..", "..", "proto", "examples", "python", program))
	must(c.t, err)

	cmd, out := exec.Command(python, append([]string{path, bus}, args...)...), &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = endWithTest()
	must(c.t, cmd.Start())
	c.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})

	return cmd, out
}

// bodyRecorder is a model server that is busy at first and then answers, except for some prompts,
// and records the bodies of its requests.
type bodyRecorder struct {
	// mu guards the field below.
	mu     sync.Mutex
	bodies []string
}

// ServeHTTP implements [http.Handler].
func (r *bodyRecorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)

	r.mu.Lock()
	r.bodies = append(r.bodies, string(body))
	first := len(r.bodies) == 1
	r.mu.Unlock()

	text := `yes\n\"é\"`
	switch {
	case first:
		w.WriteHeader(http.StatusServiceUnavailable)
	case strings.Contains(string(body), "refuse"):
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"error":{"message":"too long"}}`)
	case strings.Contains(string(body), "page"):
		io.WriteString(w, "<html>sign in</html>")
	case strings.Contains(string(body), `"long"`):
		text = strings.Repeat("long ", 4<<20)
		fallthrough
	default:
		fmt.Fprintf(w, `{"object":"text_completion","model":"m/1","choices":[{"index":0,"text":"%s",
			"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`, text)
	}
}

// The worker and the reader that proto/README.md shows take part in runs, with each encoding that
// Python reads.
func TestPythonTakesPart(t *testing.T) {
	t.Parallel()

	python := findPython(t, "nats", "xxhash", "zstandard")
	if python == "" {
		t.Skip("needs a Python with nats-py, xxhash and zstandard, in " + pythonVariable)
	}

	bodies := []string{
		`{"prompt":"plain","model":"m/1"}`,
		`{"prompt":"refuse","model":"m/1"}`,
		`{"prompt":"page","model":"m/1"}`,
		`{"prompt":"é \ud83d \u0000 ,\"body\":","model":"m/1"}`,
		"{\"prompt\" :\r\"spaces\", \"seed\":12345678901234567890123,\"model\":\"m/1\", \"a\":1,\"a\":1.0e0}",
	}
	ids := []string{`plain`, `a\u0062\"`, `,\"body\":`, `é`, `{\"}`}

	var input strings.Builder
	for i, body := range bodies {
		fmt.Fprintf(&input, "{\"custom_id\":\"%s\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":%s}\n", ids[i], body)
	}

	large := strings.Repeat("large ", 3<<20) // more than a message of the bus has
	fmt.Fprintf(&input, "{\"custom_id\":\"large\",\"prompt\":\"%s\",\"model\":\"m/1\"}\n", large)
	input.WriteString(`{"custom_id":"long","prompt":"long","model":"m/1"}` + "\n")
	input.WriteString(`{"custom_id":"refused,\"promptmill_refused\":","method":"POST","url":"/v1/nosuch","body":{}}` + "\n")
	for i := range 40 {
		fmt.Fprintf(&input, "{\"custom_id\":\"more-%d\",\"prompt\":\"more\",\"model\":\"m/1\"}\n", i)
	}

	for _, encoding := range []string{"none", "zstd"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()

			c := newCommand(t)
			c.serve()
			server := &bodyRecorder{}
			h := httptest.NewServer(server)
			t.Cleanup(h.Close)

			must(t, os.WriteFile(filepath.Join(c.dir, "in.jsonl"), []byte(input.String()), 0o644))
			c.must("submit", "in.jsonl", "--run", "r", "--skip-invalid", "--shard-encoding", encoding)

			reading, lines := c.startExample(python, "reader.py", "reader", "r")
			working, said := c.startExample(python, "worker.py", "worker", "r", "m/1", h.URL)
			poll(t, pollTime, "the announcement of the worker", func() bool {
				return strings.Contains(c.must("workers"), "-python-")
			})
			if table := c.must("workers"); !strings.Contains(table, " ready ") || strings.Contains(table, "106751d") {
				t.Errorf("the worker does not say when it began, and workers shows:\n%s", table)
			}

			if code := waitExit(t, working, said, patience); code != 0 {
				t.Errorf("worker.py: exit code %d:\n%s", code, said)
			}

			if code := waitExit(t, reading, lines, patience); code != 0 {
				t.Errorf("reader.py: exit code %d:\n%s", code, lines)
			}

			meta := c.ended("r", pollTime)
			c.must("verify", "--answers", "in.jsonl", "r.jsonl.zst")
			if got := meta.Results.SuccessCount; got != 44 {
				t.Errorf("%d requests are answered, want 44 of 48", got)
			}

			if meta.Results.Dropped != 0 {
				t.Errorf("%d lines of the worker are dropped", meta.Results.Dropped)
			}

			for _, body := range bodies {
				if !slices.Contains(server.bodies, body) {
					t.Errorf("the server did not get %q", body)
				}
			}

			read := map[string]int{}
			for line := range strings.Lines(lines.String()) {
				if id, _, ok := strings.Cut(line, ` {"`); ok {
					read[id]++
				}
			}

			if len(read) != 48 || read["more-39"] != 1 || read["é"] != 1 || read[`ab"`] != 1 {
				t.Errorf("the reader prints %d requests:\n%.4000s", len(read), lines)
			}
		})
	}
}

// The worker names the flag for a run whose shards it cannot read, and takes none of them.
func TestPythonLeavesSnappyAlone(t *testing.T) {
	t.Parallel()

	python := findPython(t, "nats", "xxhash", "zstandard")
	if python == "" {
		t.Skip("needs a Python with nats-py, xxhash and zstandard, in " + pythonVariable)
	}

	c := newCommand(t)
	c.serve()
	c.must("submit", c.input("in.jsonl", 3), "--model", "m", "--run", "r")
	working, said := c.startExample(python, "worker.py", "worker", "r", "m", "http://127.0.0.1:9")
	code := waitExit(t, working, said, patience)
	if code != 1 || said.String() != "the shards of run r are snappy: submit it with --shard-encoding zstd or none\n" {
		t.Errorf("exit code %d:\n%s", code, said)
	}
}

// The reader also prints answers that do not fit into a message.
func TestPythonReadsLargeAnswers(t *testing.T) {
	t.Parallel()

	python := findPython(t, "nats")
	if python == "" {
		t.Skip("needs a Python with nats-py, in " + pythonVariable)
	}

	c := newCommand(t)
	c.serve()
	h := httptest.NewServer(&bodyRecorder{})
	t.Cleanup(h.Close)

	must(t, os.WriteFile(filepath.Join(c.dir, "in.jsonl"), []byte(
		`{"custom_id":"short","prompt":"short","model":"m/1"}`+"\n"+
			`{"custom_id":"large","prompt":"long","model":"m/1"}`+"\n"), 0o644))
	c.must("submit", "in.jsonl", "--run", "r")
	c.start("worker", "--url", h.URL, "--join", strings.TrimSpace(c.must("join")))

	reading, lines := c.startExample(python, "reader.py", "reader", "r")
	if code := waitExit(t, reading, lines, patience); code != 0 {
		t.Fatalf("reader.py: exit code %d:\n%.4000s", code, lines)
	}

	sizes := map[string]int{}
	for line := range strings.Lines(lines.String()) {
		if id, answer, ok := strings.Cut(line, ` {"status_code": 200`); ok {
			sizes[id] = len(answer)
		}
	}

	if len(sizes) != 2 || sizes["large"] < 20<<20 || sizes["short"] > 1000 {
		t.Errorf("the reader prints %v", sizes)
	}
}

// A program in Python sees from its JSON all that it needs to connect.
func TestJoinForOtherClients(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.serve()
	var client map[string]string
	must(t, json.Unmarshal([]byte(c.must("join", "reader", "--json")), &client))

	certificate, err := os.ReadFile(filepath.Join(c.state, "certificate.pem"))
	must(t, err)
	if client["certificate"] != string(certificate) || client["ca"] != filepath.Join(c.state, "certificate.pem") {
		t.Errorf("the certificate of %v is not that of the bus", client)
	}

	details := c.must("join", "reader", "--details")
	for _, name := range []string{"url", "user", "password", "inbox_prefix", "ca"} {
		if client[name] == "" || !strings.Contains(details, " "+client[name]+"\n") {
			t.Errorf("%s is %q, and not as in\n%s", name, client[name], details)
		}
	}
}
