package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/worker/sim"
)

// write writes a file into the working directory.
func (c command) write(name, text string) {
	c.t.Helper()
	must(c.t, os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o644))
}

// read reads a file of the working directory.
func (c command) read(name string) string {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, name))
	must(c.t, err)
	return string(text)
}

// simRun is a run of rows with a simulated model server.
func simRun(args ...string) []string {
	return append([]string{
		"run", "in.csv", "--prompt", "{{.text}}", "--sim", "--sim-ttft", "0s", "--sim-tpot", "0s", "--progress", "none",
	}, args...)
}

// export writes the table that the run writes, also of a part of the input, and replaces one.
func TestExport(t *testing.T) {
	t.Parallel()

	for _, selection := range [][]string{nil, {"--limit", "7"}, {"--sample", "7"}} {
		t.Run(strings.Join(selection, " "), func(t *testing.T) {
			t.Parallel()

			c := newCommand(t)
			c.write("in.csv", string(tickets(30)))
			c.must(simRun(append(selection, "-o", "out.csv")...)...)

			for range 2 {
				c.must("export", "out.jsonl.zst", "in.csv", "-o", "again.csv")
				if got, want := c.read("again.csv"), c.read("out.csv"); got != want {
					t.Errorf("exported:\n%s\nwant\n%s", got, want)
				}
			}

			c.must("export", "out.jsonl.zst", "in.csv", "-o", "parts.jsonl.gz", "--shards", "3")
			c.must("verify", "in.csv", "out.jsonl.zst", "parts-00001-of-00003.jsonl.gz")
			c.must("verify", "in.csv", "out.jsonl.zst", "again.csv")
			c.checkWhole()
		})
	}
}

// What cannot be exported is refused, and no file changes.
func TestExportRefuses(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.write("in.csv", string(tickets(30)))
	c.must(simRun("-o", "out.csv")...)
	c.must(simRun("-o", "plain.jsonl.zst", "--plain")...)

	c.write("changed.csv", strings.Replace(c.read("in.csv"), "ticket 17", "ticket 71", 1))
	c.write("foreign.csv", "a,b\n1,2\n")
	c.write("empty.csv", "")
	must(t, os.Mkdir(filepath.Join(c.dir, "folder.csv"), 0o755))
	must(t, os.Symlink("in.csv", filepath.Join(c.dir, "link.csv")))
	for _, name := range []string{"jsonl.zst", "meta.json"} {
		c.write("cut."+name, c.read("out."+name))
		c.write("alone."+name, c.read("out."+name))
	}
	must(t, os.Remove(filepath.Join(c.dir, "alone.meta.json")))
	c.write("cut.jsonl.zst", c.read("out.jsonl.zst")[:100])

	before := c.contents()
	for _, tt := range []struct {
		args, want string
		code       int
	}{
		{"out.jsonl.zst changed.csv -o t.csv", "the input is not the one of run ", exit.CodeError},
		{"out.jsonl.zst in.csv in.csv -o t.csv", "has 1 file, and the command names 2", exit.CodeUsage},
		{"out.jsonl.zst none.csv -o t.csv", "none.csv: no such file or directory", exit.CodeUsage},
		{"out.jsonl.zst in.csv -o foreign.csv", "foreign.csv is there, and is not a table of this run", exit.CodeError},
		{"out.jsonl.zst in.csv -o empty.csv", "empty.csv is there, and is not a table of this run", exit.CodeError},
		{"out.jsonl.zst in.csv -o folder.csv", "-o folder.csv is a folder", exit.CodeUsage},
		{"out.jsonl.zst in.csv -o in.csv", "the input in.csv is the table in.csv", exit.CodeUsage},
		{"out.jsonl.zst in.csv -o link.csv", "the input in.csv is the table link.csv", exit.CodeUsage},
		{"out.jsonl.zst in.csv -o none/t.csv", "the folder of the output, none, is not there", exit.CodeUsage},
		{"out.jsonl.zst in.csv -o t.xlsx", "-o t.xlsx: must end in .csv", exit.CodeUsage},
		{"out.jsonl.zst in.csv -o t.csv --shards 0", "--shards 0: must be from 1", exit.CodeUsage},
		{"plain.jsonl.zst in.csv -o t.csv", "plain.jsonl.zst was written with --plain", exit.CodeUsage},
		{"alone.jsonl.zst in.csv -o t.csv", "alone.meta.json is not there", exit.CodeUsage},
		{"cut.jsonl.zst in.csv -o t.csv", "cut.jsonl.zst is not as it was written", exit.CodeError},
	} {
		text, code := c.run(append([]string{"export"}, strings.Fields(tt.args)...)...)
		if code != tt.code || !strings.Contains(text, tt.want) {
			t.Errorf("export %s: exit code %d, want %d and %q:\n%s", tt.args, code, tt.code, tt.want, text)
		}

		if after := c.contents(); !slices.Equal(after, before) {
			t.Errorf("export %s changed the files:\n%q\nfrom\n%q", tt.args, after, before)
		}
	}
}

// A table of another run with the same columns, and one that was changed by hand, is not replaced, in any format and
// in no shard. The same table is written again.
func TestExportKeepsOtherTables(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.write("in.csv", string(tickets(30)))
	c.must(simRun("-o", "a.jsonl.zst")...)
	c.must(simRun("-o", "b.jsonl.zst", "--sim-tokens", "3")...)

	for _, table := range [][]string{{"t.csv"}, {"t.parquet"}, {"t.jsonl"}, {"t.jsonl.gz"}, {"t.tsv", "--shards", "3"}} {
		export := func(run string) []string {
			return append([]string{"export", run + ".jsonl.zst", "in.csv", "-o"}, table...)
		}
		c.must(export("a")...)
		before := c.contents()

		c.expect(exit.CodeError, " is there, and has other contents than this table", export("b")...)
		c.expect(exit.CodeError, "move it away or remove it, or choose another table with -o", export("b")...)
		c.must(export("a")...)
		if after := c.contents(); !slices.Equal(after, before) {
			t.Errorf("%q changed the files:\n%q\nfrom\n%q", table, after, before)
		}
	}

	// One shard of another run is enough.
	c.write("t-00002-of-00003.tsv", c.read("t-00002-of-00003.tsv")+"by hand\n")
	must(t, os.Remove(filepath.Join(c.dir, "t-00000-of-00003.tsv")))
	before := c.contents()
	c.expect(exit.CodeError, "t-00002-of-00003.tsv is there, and has other contents than this table",
		"export", "a.jsonl.zst", "in.csv", "-o", "t.tsv", "--shards", "3")
	if after := c.contents(); !slices.Equal(after, before) {
		t.Errorf("the files are\n%q\nwant\n%q", after, before)
	}
}

// contents returns the names and the contents of the files in the working directory.
func (c command) contents() (all []string) {
	c.t.Helper()

	for _, name := range c.left() {
		if strings.HasPrefix(name, "state") {
			continue
		}
		text, _ := os.ReadFile(filepath.Join(c.dir, name)) // a folder has none
		all = append(all, name+": "+string(text))
	}

	return all
}

// The command at the end of a run gets the path of its table.
func TestOnEndTable(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.write("in.csv", string(tickets(3)))
	for out, want := range map[string]string{
		"out.csv --shards 2": filepath.Join(c.dir, "out-00000-of-00002.csv"),
		"one.parquet":        filepath.Join(c.dir, "one.parquet"),
		"none.jsonl.zst":     "",
	} {
		args := append(strings.Fields("-o "+out), "--on-end", `echo "[$PROMPTMILL_END_TABLE]"`)
		c.expect(exit.CodeOK, "--on-end: ["+want+"]\n", simRun(args...)...)
	}
}

// A table that cannot be written is refused before a request is sent, and no file changes.
func TestRunRefusesTable(t *testing.T) {
	t.Parallel()

	m := newModel(t, sim.Config{Tokens: 5})
	c := newCommand(t)
	c.write("in.csv", string(tickets(30)))
	c.write("other.csv", "id,text\n1,other\n")
	c.write("foreign.csv", "a,b\n1,2\n")
	must(t, os.Mkdir(filepath.Join(c.dir, "folder.csv"), 0o755))
	must(t, os.Symlink("in.csv", filepath.Join(c.dir, "link.csv")))
	must(t, os.Symlink("none/t.csv", filepath.Join(c.dir, "lost.csv")))
	must(t, os.Symlink("loop.csv", filepath.Join(c.dir, "loop.csv")))

	run := func(input, out string, more ...string) []string {
		return append([]string{"run", input, "--prompt", "{{.text}}", "--url", m.url, "--progress", "none", "-o", out},
			more...)
	}
	c.must(run("other.csv", "done.csv")...)
	c.must(run("other.csv", "shards.csv", "--shards", "2")...)

	sent, before := m.sim.Succeeded(), c.contents()
	for _, tt := range []struct {
		args []string
		want string
		code int
	}{
		{run("in.csv", "in.csv"), "the input in.csv is the table in.csv", exit.CodeUsage},
		{run("in.csv", "link.csv"), "the input in.csv is the table link.csv", exit.CodeUsage},
		{run("in.csv", "foreign.csv"), "foreign.csv is there, and was not written by this run", exit.CodeError},
		{run("in.csv", "folder.csv"), "-o folder.csv names no file", exit.CodeUsage},
		{run("in.csv", "lost.csv"), "the table lost.csv cannot be written: no such file or directory", exit.CodeError},
		{run("in.csv", "loop.csv"), "the table loop.csv cannot be written: too many levels of symbolic links", exit.CodeError},
		{run("in.csv", "none/t.csv"), "/none, is not there", exit.CodeUsage},
		{run("in.csv", "done.csv"), "done.jsonl.zst", exit.CodeError},
		{run("in.csv", "shards.csv", "--shards", "3"), "a part of a table of 2 files, not 3", exit.CodeError},
		{run("in.csv", strings.Repeat("n", 248)+".csv"), "file name too long", exit.CodeError},
	} {
		text, code := c.run(tt.args...)
		if code != tt.code || !strings.Contains(text, tt.want) {
			t.Errorf("%q: exit code %d, want %d and %q:\n%s", tt.args, code, tt.code, tt.want, text)
		}

		if after := c.contents(); !slices.Equal(after, before) {
			t.Errorf("%q changed the files", tt.args)
		}
	}

	if now := m.sim.Succeeded(); now != sent {
		t.Errorf("%d requests were sent", now-sent)
	}

	// A link is written through. The same command is done then.
	must(t, os.Symlink("target.txt", filepath.Join(c.dir, "through.csv")))
	c.must(run("in.csv", "through.csv")...)
	c.expect(exit.CodeOK, "complete already", run("in.csv", "through.csv")...)
	c.must("verify", "in.csv", "through.csv")
	if text := c.read("target.txt"); !strings.HasPrefix(text, "id,text,answer,") {
		t.Errorf("the target of the link has %q", text)
	}
}

// Requests that are run again without naming the run's tables change these, but not one that was changed by hand.
func TestRetryRewritesTables(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.write("in.csv", string(tickets(30)))
	for _, table := range [][]string{{"-o", "out.csv"}, {"-o", "out.parquet"}, {"-o", "out.jsonl", "--shards", "2"}} {
		c.expect(exit.CodeFailed, "failed", simRun(append(table, "--sim-faults", "context=0.5")...)...)
	}
	c.expect(exit.CodeFailed, "failed", simRun("-o", "out.tsv", "--sim-faults", "context=0.5")...)
	c.write("out.tsv", c.read("out.tsv")+"by hand\n")
	edited := c.read("out.tsv")

	if text := c.read("out.csv"); !strings.Contains(text, "http_400") {
		t.Fatalf("nothing failed:\n%s", text)
	}

	again := simRun("-o", "out.jsonl.zst", "--retry")
	c.expect(exit.CodeUsage, "is a table of this run, and would keep the old answers", append(again, "--plain")...)
	c.expect(exit.CodeOK, "the table out.tsv was changed after the run had written it", again...)

	for _, table := range []string{"out.csv", "out.parquet", "out-00000-of-00002.jsonl"} {
		c.must("verify", "in.csv", table)
	}
	if text := c.read("out.csv"); strings.Contains(text, "http_400") {
		t.Errorf("the table has the old answers:\n%s", text)
	}
	if text := c.read("out.tsv"); text != edited {
		t.Errorf("the table that was changed by hand is overwritten:\n%s", text)
	}

	var names []string
	for _, table := range c.meta("out").Test.Tables {
		names = append(names, table.File)
	}
	slices.Sort(names)
	if want := "out-00000-of-00002.jsonl out-00001-of-00002.jsonl out.csv out.parquet"; strings.Join(names, " ") != want {
		t.Errorf("tables %q, want %s", names, want)
	}
	c.checkWhole()
}

// A table that was changed by hand is not replaced: the same command, and one that runs requests again, is refused
// before a request is sent.
func TestEditedTableStays(t *testing.T) {
	t.Parallel()

	m := newModel(t, sim.Config{Tokens: 5})
	c := newCommand(t)
	c.write("in.csv", string(tickets(30))+"no text,\n")
	run := func(more ...string) []string {
		return append([]string{"run", "in.csv", "--prompt", "{{.text}}", "--skip-invalid", "--url", m.url,
			"--progress", "none"}, more...)
	}
	shards := []string{"-o", "out.jsonl", "--shards", "2"}
	c.expect(exit.CodeFailed, "failed", run("-o", "out.csv")...)
	c.expect(exit.CodeFailed, "failed", run(shards...)...)

	whole := c.read("out.csv")
	for _, name := range []string{"out.csv", "out-00001-of-00002.jsonl"} {
		c.write(name, c.read(name)+"by hand\n")
	}

	sent, before := m.sim.Succeeded(), c.contents()
	for _, args := range [][]string{run("-o", "out.csv"), run("-o", "out.csv", "--retry"), run(shards...)} {
		name := "out.csv"
		if slices.Contains(args, "--shards") {
			name = "out-00001-of-00002.jsonl"
		}
		c.expect(exit.CodeError, name+" was changed after this run had written it", args...)
		c.expect(exit.CodeError, "move it away or remove it, then give the same command again", args...)
		if after := c.contents(); !slices.Equal(after, before) {
			t.Errorf("%q changed the files:\n%q\nfrom\n%q", args, after, before)
		}
	}
	if now := m.sim.Succeeded(); now != sent {
		t.Errorf("%d requests were sent", now-sent)
	}

	must(t, os.Rename(filepath.Join(c.dir, "out.csv"), filepath.Join(c.dir, "mine.csv")))
	c.expect(exit.CodeFailed, "writing out.csv, which is missing", run("-o", "out.csv")...)
	if text := c.read("out.csv"); text != whole {
		t.Errorf("the table is\n%s\nwant\n%s", text, whole)
	}
}

// An output in the folder of its input is none of the input: the same command is done, also when its table is gone.
func TestTableInInputFolder(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	must(t, os.Mkdir(filepath.Join(c.dir, "in"), 0o755))
	c.write("in/a.csv", string(tickets(10)))
	c.write("in/b.csv", string(tickets(10)))
	run := []string{
		"run", "in", "--prompt", "{{.text}}", "--sim", "--sim-ttft", "0s", "--sim-tpot", "0s", "--progress", "none",
		"-o", "in/out.csv", "--shards", "2",
	}

	c.must(run...)
	before := c.contents()
	c.expect(exit.CodeOK, "complete already", run...)

	must(t, os.Remove(filepath.Join(c.dir, "in/out-00001-of-00002.csv")))
	c.expect(exit.CodeOK, "which is missing", run...)
	if rows := strings.Count(c.read("in/out-00001-of-00002.csv"), "of a customer"); rows != 10 {
		t.Errorf("%d rows in the second file, want 10", rows)
	}
	if after := c.contents(); len(after) != len(before) {
		t.Errorf("%d files, want %d", len(after), len(before))
	}
}

// A run that was submitted is collected into a table, and a retry of its failed requests changes it.
func TestCollectTable(t *testing.T) {
	t.Parallel()

	_, url := startNATS(t)
	m := newModel(t, sim.Config{Tokens: 5})
	c := newCommand(t)
	c.write("in.csv", string(tickets(200))+"no text,\n")
	c.expect(exit.CodeOK, "", "submit", "in.csv", "--prompt", "{{.text}}", "--model", "sim", "--run", "r",
		"--skip-invalid", "--nats", url)
	c.start("worker", "--url", m.url, "--nats", url)

	collect := []string{"collect", "r", "--nats", url, "--progress", "none", "-o"}
	c.expect(exit.CodeFailed, "out.csv", append(collect, "out.csv")...)
	c.must("verify", "in.csv", "out.csv")
	if text := c.read("out.csv"); !strings.Contains(text, "no text,,,,invalid_request: ") {
		t.Errorf("table:\n%.2000s", text)
	}

	// The refused request is refused again. All others stay.
	c.expect(exit.CodeOK, "", "retry", "r", "--nats", url)
	before := c.meta("out").Manifest.Retries
	c.expect(exit.CodeFailed, "out.csv", append(collect, "out.jsonl.zst")...)
	if after := c.meta("out").Manifest.Retries; after != before+1 {
		t.Errorf("%d retries after %d", after, before)
	}
	c.must("verify", "in.csv", "out.csv")
	c.checkWhole()
}

// The table of an unfinished run is refused with the way to finish it, and nothing changes.
func TestExportUnfinished(t *testing.T) {
	t.Parallel()

	m := newModel(t, sim.Config{Slots: 1, TTFT: 200 * time.Millisecond, Tokens: 5})
	c := newCommand(t)
	c.write("in.csv", string(tickets(500)))
	cmd, _ := c.start("run", "in.csv", "--prompt", "{{.text}}", "--url", m.url, "-o", "out.csv", "--flush", "100ms",
		"--progress", "none")
	poll(t, patience, "answers", func() bool { return m.sim.Succeeded() > 3 })

	c.expect(exit.CodeError, "is not finished", "export", "out.jsonl.zst", "in.csv", "-o", "t.csv")
	c.expect(exit.CodeError, "is not finished", "verify", "in.csv", "out.csv")
	cmd.Process.Kill()
	cmd.Wait()
	c.expect(exit.CodeError, "is not finished", "export", "out.jsonl.zst", "in.csv", "-o", "t.csv")
	if files.Exists(filepath.Join(c.dir, "t.csv")) {
		t.Error("the table is there")
	}
}
