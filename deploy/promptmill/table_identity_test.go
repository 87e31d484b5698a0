package main

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker/sim"
)

// pathTable is a table that is only known by the paths of its files: by their endings or their folders.
type pathTable struct {
	// files are the files, and moved are other paths for the same contents, in the same order.
	files, moved []string
	texts        []string
	// prompt is the template.
	prompt string
	// rows are the header and the rows of the table.
	rows [][]string
}

// pathTables returns the tables by what their paths give.
func pathTables() map[string]pathTable {
	const rows = 30

	ending := pathTable{
		files:  []string{"in/sp.csv"},
		moved:  []string{"moved/sp.dat"},
		texts:  []string{"a b\n"},
		prompt: `X: {{index . "a b"}}`,
		rows:   [][]string{{"a b"}},
	}
	folders := pathTable{
		files:  []string{"in/lang=de/a.csv", "in/lang=fr/a.csv"},
		moved:  []string{"moved/1.csv", "moved/lang=en/2.csv"},
		texts:  []string{"text\n", "text\n"},
		prompt: "{{.lang}}: {{.text}}",
		rows:   [][]string{{"text", "lang"}},
	}

	for i := range rows {
		ending.texts[0] += fmt.Sprintf("hello %d\n", i)
		ending.rows = append(ending.rows, []string{fmt.Sprintf("hello %d", i)})
	}

	for file, lang := range []string{"de", "fr"} {
		for i := range rows {
			folders.texts[file] += fmt.Sprintf("%d\n", i+file)
			folders.rows = append(folders.rows, []string{fmt.Sprint(i + file), lang})
		}
	}

	return map[string]pathTable{"ending": ending, "folders": folders}
}

// write writes the files of the table.
func (p pathTable) write(c command) {
	c.t.Helper()

	for i, name := range p.files {
		must(c.t, os.MkdirAll(filepath.Dir(filepath.Join(c.dir, name)), 0o755))
		c.write(name, p.texts[i])
	}
}

// move moves the files of the table.
func (p pathTable) move(c command) {
	c.t.Helper()

	for i, name := range p.moved {
		to := filepath.Join(c.dir, name)
		must(c.t, os.MkdirAll(filepath.Dir(to), 0o755))
		must(c.t, os.Rename(filepath.Join(c.dir, p.files[i]), to))
	}
}

// check compares the columns of the input in a table of the answers with those of the input, and returns
// the number of rows with an error.
func (p pathTable) check(c command, name string) (failed int) {
	c.t.Helper()

	rows, err := csv.NewReader(strings.NewReader(c.read(name))).ReadAll()
	must(c.t, err)

	inputs := len(p.rows[0])
	var found [][]string
	for i, row := range rows {
		found = append(found, row[:inputs])
		if i > 0 && row[inputs+2] != "" {
			failed++
		}
	}

	if diff := cmp.Diff(p.rows, found); diff != "" {
		c.t.Errorf("%s has other rows than the input (-input +table):\n%s", name, diff)
	}

	return failed
}

// A table that is only known by its path stays this table wherever its copies and files are: when a submitted run
// is collected and retried, and when its table is exported and verified.
func TestTableOfPath(t *testing.T) {
	t.Parallel()

	for name, table := range pathTables() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, url := startNATS(t)
			faulty := newModel(t, sim.Config{Tokens: 5, Faults: sim.Faults{"context": 0.5}})
			good := newModel(t, sim.Config{Tokens: 5})

			c := newCommand(t)
			table.write(c)
			c.must("submit", "in", "--prompt", table.prompt, "--model", "sim", "--run", "r", "--nats", url)

			worker, _ := c.start("worker", "--url", faulty.url, "--nats", url)
			collect := []string{"collect", "r", "--nats", url, "--progress", "none", "-o", "out.csv"}
			c.expect(exit.CodeFailed, "out.csv", collect...)
			if failed := table.check(c, "out.csv"); failed == 0 {
				t.Fatal("nothing failed")
			}
			c.must("verify", "in", "out.csv")
			c.must("verify", "in", "out.jsonl.zst", "--answers")

			worker.Process.Kill()
			worker.Wait()
			c.must("retry", "r", "--nats", url)
			c.start("worker", "--url", good.url, "--nats", url)
			c.must(collect...)
			if failed := table.check(c, "out.csv"); failed > 0 {
				t.Errorf("%d rows failed again", failed)
			}
			c.must("verify", "in", "out.csv")

			table.move(c)
			c.must(append(append([]string{"export", "out.jsonl.zst"}, table.moved...), "-o", "again.csv")...)
			if got, want := c.read("again.csv"), c.read("out.csv"); got != want {
				t.Errorf("of the moved input:\n%s\nwant\n%s", got, want)
			}
			c.must(append(append([]string{"verify"}, table.moved...), "out.csv")...)
			c.must(append(append([]string{"verify"}, table.moved...), "out.jsonl.zst")...)
			c.checkWhole()
		})
	}
}

// An input of the same length is no proof for an output of rows, whose custom_ids are their numbers.
func TestVerifyOtherRows(t *testing.T) {
	t.Parallel()

	table := pathTables()["folders"]
	c := newCommand(t)
	table.write(c)
	c.must("run", "in", "--prompt", table.prompt, "--sim", "--sim-ttft", "0s", "--sim-tpot", "0s", "-o", "out.csv",
		"--progress", "none")
	if failed := table.check(c, "out.csv"); failed > 0 {
		t.Errorf("%d rows failed", failed)
	}
	c.must("verify", "in", "out.jsonl.zst")

	swapped := []string{table.files[1], table.files[0]}
	const other = "the input is not the one of run"
	c.expect(exit.CodeError, other, append(append([]string{"verify"}, swapped...), "out.jsonl.zst")...)
	c.expect(exit.CodeError, other, append(append([]string{"verify"}, swapped...), "out.csv")...)
	c.expect(exit.CodeError, other, append(append([]string{"export", "out.jsonl.zst"}, swapped...), "-o", "again.csv")...)

	// The same text with another boundary of files has a header as a row.
	c.write("all.csv", table.texts[0]+table.texts[1])
	c.expect(exit.CodeUsage, "has 2 files, and the command names 1", "export", "out.jsonl.zst", "all.csv", "-o", "again.csv")
	cut := len(table.texts[0]) + len("text\n1\n")
	c.write("1.csv", (table.texts[0] + table.texts[1])[:cut])
	c.write("2.csv", (table.texts[0] + table.texts[1])[cut:])
	c.expect(exit.CodeError, "its text is divided into files at other places", "export", "out.jsonl.zst", "1.csv", "2.csv",
		"-o", "again.csv")
	if _, err := os.Stat(filepath.Join(c.dir, "again.csv")); err == nil {
		t.Error("a table of another input is there")
	}
}

// Other machines read the rows of a submitted run, and cannot read files beside the table.
func TestSubmitImages(t *testing.T) {
	t.Parallel()

	_, url := startNATS(t)
	c := newCommand(t)
	c.write("a.png", "\x89PNG\r\n\x1a\n")
	c.write("in.csv", "id,photo\n1,https://host/a.png\n2,a.png\n3,"+filepath.Join(c.dir, "a.png")+"\n")

	submit := []string{"submit", "in.csv", "--prompt", "What is it?", "--image", "photo", "--model", "sim", "--nats", url}
	c.expect(exit.CodeUsage, "row 2 (request-2): a.png is a file, which other machines cannot read; row 3", submit...)
	c.expect(exit.CodeUsage, "promptmill run also sends files, by their paths", submit...)
	c.expect(exit.CodeUsage, "2 of 3 rows cannot be sent; nothing was sent", append(slices.Clone(submit), "--dry-run")...)
	c.expect(exit.CodeUsage, "2 of 3 rows cannot be sent; nothing was sent", submit...)

	c.must(append(submit, "--limit", "1")...)
	c.must("run", "in.csv", "--prompt", "What is it?", "--image", "photo", "--sim", "--sim-ttft", "0s", "--sim-tpot", "0s",
		"-o", "out.csv", "--progress", "none")
}
