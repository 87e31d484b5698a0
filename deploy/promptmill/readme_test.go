package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The program of README.md that runs a batch with OpenAI's SDK does so.
func TestReadmeBatch(t *testing.T) {
	t.Parallel()

	python := findPython(t, "openai")
	if python == "" {
		t.Skip("SKIPPED: needs a Python with openai, in " + pythonVariable)
	}

	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	must(t, err)

	_, rest, found := strings.Cut(string(text), "```python\n")
	program, _, _ := strings.Cut(rest, "```")
	if !found || strings.Count(program, "127.0.0.1:8080") != 1 {
		t.Fatalf("README.md has no program in Python for port 8080:\n%s", program)
	}

	if !strings.Contains(program, "max_retries=10") {
		t.Error("a restart of serve takes longer than the SDK's own two retries")
	}

	a := &batchAPI{command: newCommand(t), address: freeAddress(t)}
	a.args = []string{"serve", "--api", a.address, "--dir", ".", "--listen", freeAddress(t)}
	a.startServing(t)
	a.start("worker", "--sim")
	a.workers(1)

	cmd, out := a.prepareClient(python, "-c", strings.ReplaceAll(program, "127.0.0.1:8080", a.address))
	cmd.Dir, err = filepath.Abs(filepath.Join("..", ".."))
	must(t, err)
	a.runClient(t, cmd, out)

	status, answers, _ := strings.Cut(out.String(), "\n")
	if want := "completed BatchRequestCounts(completed=200, failed=0, total=200)"; status != want {
		t.Errorf("it printed %q, want %q", status, want)
	}

	if n := strings.Count(answers, `"custom_id":"ticket-`); n != 200 {
		t.Errorf("it printed %d answers, want 200", n)
	}
}
