package main

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	shellwords "mvdan.cc/sh/v3/shell"
)

// The command of README.md for a table gives the table that it shows, with an answer in each row.
func TestReadmeTable(t *testing.T) {
	t.Parallel()

	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	must(t, err)

	_, section, _ := strings.Cut(string(text), "## A table and a question\n")
	_, rest, found := strings.Cut(section, "$ go run ./deploy/promptmill ")
	line, rest, _ := strings.Cut(rest, "\n")
	_, rest, shown := strings.Cut(rest, "$ head -1 answers.csv\n")
	header, _, _ := strings.Cut(rest, "\n")
	if !found || !shown {
		t.Fatal("README.md has no command for a table")
	}

	args, err := shellwords.Fields(line, nil)
	must(t, err)
	c := newCommand(t)
	examples, err := filepath.Abs(filepath.Join("..", "examples"))
	must(t, err)
	must(t, os.Mkdir(filepath.Join(c.dir, "deploy"), 0o700))
	must(t, os.Symlink(examples, filepath.Join(c.dir, "deploy", "examples")))
	c.must(args...)

	file, err := os.Open(filepath.Join(c.dir, "answers.csv"))
	must(t, err)
	defer file.Close()

	rows, err := csv.NewReader(file).ReadAll()
	must(t, err)
	if got := strings.Join(rows[0], ","); got != strings.TrimSpace(header) {
		t.Errorf("the header is %s, and README.md has %s", got, header)
	}

	if len(rows) != 41 {
		t.Errorf("%d rows, want a header and 40", len(rows))
	}
	for i, row := range rows[1:] {
		if row[3] == "" || row[4] != "stop" || row[5] != "" {
			t.Errorf("row %d has no answer: %q", i+1, row)
		}
	}
}

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
