package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/sim"
)

// tableSteps are the steps at the end of a run with a table.
var tableSteps = []deathStep{
	{name: "the table is noted", call: renameCalls, path: "@/table.tmp"},
	{name: "the table is begun", call: "openat", path: "out.csv.tmp"},
	{name: "the table is synced", call: "fsync", path: "out.csv.tmp"},
	{name: "the table gets its name", call: renameCalls, path: "out.csv.tmp"},
	{name: "metadata are begun", call: "openat", path: "out.meta.json.tmp"},
	{name: "metadata get their name", call: renameCalls, path: "out.meta.json.tmp"},
	{name: "the journal is removed", call: unlinkCalls, path: "out.part.zst"},
}

// shardSteps are the steps of a table in three files.
var shardSteps = []deathStep{
	{name: "the first file is synced", call: "fsync", path: "out-00000-of-00003.csv.tmp"},
	{name: "the second file is begun", call: "openat", path: "out-00001-of-00003.csv.tmp"},
	{name: "the second file gets its name", call: renameCalls, path: "out-00001-of-00003.csv.tmp"},
	{name: "the last file gets its name", call: renameCalls, path: "out-00002-of-00003.csv.tmp"},
	{name: "metadata get their name", call: renameCalls, path: "out.meta.json.tmp"},
}

// checkWhole fails the test if a file of a run is left that is not whole.
func (c command) checkWhole() {
	c.t.Helper()

	for _, pattern := range []string{"*.tmp", "*.new", "*.try", "*.lck", "out.part.zst", ".promptmill-sort-*"} {
		if left, err := filepath.Glob(filepath.Join(c.dir, pattern)); err != nil || len(left) > 0 {
			c.t.Errorf("files are left: %q %v", left, err)
		}
	}
}

// A run that is killed at a step of writing its table is finished by the same command, with the
// table that its lines and its input give.
func TestTableKilledAtEachStep(t *testing.T) {
	t.Parallel()

	needStrace(t)

	for _, tt := range []struct {
		name  string
		steps []deathStep
		flags []string
		table string
	}{
		{"one file", tableSteps, nil, "out.csv"},
		{"shards", shardSteps, []string{"--shards", "3"}, "out-00001-of-00003.csv"},
	} {
		for i, step := range tt.steps {
			if testing.Short() && i%4 > 0 {
				continue
			}

			t.Run(tt.name+": "+step.name, func(t *testing.T) {
				t.Parallel()

				c := newCommand(t)
				in := c.input("in.jsonl", 10)
				args := append([]string{"run", in, "--sim", "-o", "out.csv", "--progress", "none"}, tt.flags...)
				if !c.diesAt(step, args...) {
					t.Fatal("the step was not reached")
				}

				c.must(args...)
				c.must("verify", in, tt.table)
				c.checkWhole()
			})
		}
	}
}

// Wherever a run dies that has its failed requests run again, without naming its table, the same command brings
// the new answers into the table.
func TestRetryKilledAtEachStepOfItsTable(t *testing.T) {
	t.Parallel()

	needStrace(t)

	for i, step := range tableSteps {
		if testing.Short() && i%4 > 0 {
			continue
		}

		t.Run(step.name, func(t *testing.T) {
			t.Parallel()

			c := newCommand(t)
			in := c.input("in.jsonl", 20)
			run := []string{"run", in, "--sim", "--sim-ttft", "1ms", "--sim-tpot", "0s", "--progress", "none"}
			if _, code := c.run(append(run, "-o", "out.csv", "--sim-faults", "context=0.5")...); code != exit.CodeFailed {
				t.Fatalf("exit code %d", code)
			}

			before, err := os.ReadFile(filepath.Join(c.dir, "out.csv"))
			must(t, err)

			again := append(run, "-o", "out.jsonl.zst", "--retry")
			if !c.diesAt(step, again...) {
				t.Fatal("the step was not reached")
			}

			c.must(again...)
			c.must("verify", in, "out.csv")
			c.checkWhole()

			after, err := os.ReadFile(filepath.Join(c.dir, "out.csv"))
			must(t, err)
			if !strings.Contains(string(before), "http_400") || strings.Contains(string(after), "http_400") {
				t.Errorf("table before:\n%s\nand after:\n%s", before, after)
			}
		})
	}
}

// Wherever collect dies over the table of a run, the next one makes it whole.
func TestCollectKilledAtEachStepOfItsTable(t *testing.T) {
	t.Parallel()

	needStrace(t)
	m := newModel(t, sim.Config{Tokens: 5})

	for i, step := range tableSteps {
		if testing.Short() && i%4 > 0 {
			continue
		}

		t.Run(step.name, func(t *testing.T) {
			t.Parallel()

			_, url := startNATS(t)
			js := openJetStream(t, url)
			must(t, bus.CreateBuckets(t.Context(), js, bus.Limits{}))

			c := newCommand(t)
			must(t, os.WriteFile(filepath.Join(c.dir, "in.csv"), tickets(40), 0o644))
			if _, code := c.run("submit", "in.csv", "--prompt", "{{.text}}", "--model", "sim", "--run", "out",
				"--nats", url); code != exit.CodeOK {
				t.Fatalf("submit: exit code %d", code)
			}
			c.start("worker", "--url", m.url, "--nats", url)

			args := []string{"collect", "out", "-o", "out.csv", "--nats", url, "--flush", "100ms", "--progress", "none"}
			if !c.diesAt(step, args...) {
				t.Fatal("the step was not reached")
			}

			c.must(args...)
			c.must("verify", "in.csv", "out.csv")
			c.checkWhole()
		})
	}
}

// tickets returns a table of n rows in CSV, with the columns id and text.
func tickets(n int) []byte {
	text := []byte("id,text\n")
	for i := range n {
		text = fmt.Appendf(text, "%d,\"ticket %d,\nof a customer\"\n", i, i)
	}
	return text
}

// While a table is written it does not have its name. A run that is interrupted then says so, and the same
// command writes the table.
func TestTableInterrupted(t *testing.T) {
	t.Parallel()

	needStrace(t)

	for _, signal := range []string{"INT", "KILL"} {
		t.Run(signal, func(t *testing.T) {
			t.Parallel()

			c := newCommand(t)
			must(t, os.WriteFile(filepath.Join(c.dir, "in.csv"), tickets(10_000), 0o644))
			args := []string{
				"run", "in.csv", "--prompt", "{{.text}}", "--sim", "--sim-ttft", "0s", "--sim-tpot", "0s",
				"--sim-tokens", "400", "-o", "out.csv", "--progress", "none",
			}

			// The table is written as soon as it is noted. A table that is whole before the run has
			// stopped would end it.
			step := tableSteps[0]
			step.slow = "out.csv.tmp"
			status, said := c.signalAt(step, signal, args...)
			path := filepath.Join(c.dir, "out.csv")
			if files.Exists(path) {
				t.Fatalf("the table was whole before the signal:\n%s", said)
			}

			if signal == "INT" {
				if code := status.ExitStatus(); code != exit.CodeInterrupted ||
					!strings.Contains(said, "run the same command again") {
					t.Errorf("exit code %d:\n%s", code, said)
				}

				if files.Exists(path + ".tmp") {
					t.Error("the temporary file is left")
				}
			}

			c.must(args...)
			c.must("verify", "in.csv", "out.csv")
			c.checkWhole()
		})
	}
}

// A disk that is full while the table is written ends the run with a clear word, and leaves no part of a table.
// With room again, the same command writes the table.
func TestTableDiskFull(t *testing.T) {
	t.Parallel()

	disk := smallDisk(t, "4m")
	c := newCommand(t)
	// The table has the long rows of the input, and the answers in a compressed file are small.
	row := strings.Repeat("x", 10_000)
	var in strings.Builder
	in.WriteString("id,text,long\n")
	for i := range 1000 {
		fmt.Fprintf(&in, "%d,text %d,%s\n", i, i, row)
	}
	must(t, os.WriteFile(filepath.Join(c.dir, "in.csv"), []byte(in.String()), 0o644))

	run := []string{
		"run", "in.csv", "--prompt", "{{.text}}", "--sim", "--sim-ttft", "0s", "--sim-tpot", "0s", "--progress", "none",
	}
	for _, name := range []string{"out.csv", "out.jsonl"} {
		path := filepath.Join(disk, name)
		text, code := c.run(append(run, "-o", path)...)
		if code != exit.CodeError || !strings.Contains(text, "no space left on device") ||
			!strings.Contains(text, name) || !strings.Contains(text, "run the same command again") {
			t.Errorf("%s: exit code %d:\n%s", name, code, text)
		}

		if files.Exists(path) || files.Exists(path+".tmp") {
			t.Errorf("%s is left", name)
		}
	}

	// export of an output that is sorted first ends likewise: the lines and the table have no room.
	c.must(append(run, "-o", "unordered.jsonl.zst")...)
	for _, size := range []string{"4m", "8k"} {
		disk := smallDisk(t, size)
		must(t, os.WriteFile(filepath.Join(disk, "filler"), make([]byte, 4096), 0o644))

		text, code := c.run("export", "unordered.jsonl.zst", "in.csv", "-o", filepath.Join(disk, "t.csv"))
		if code != exit.CodeError || !strings.Contains(text, "no space left on device") ||
			!strings.Contains(text, "free space on that disk, then run the same command again") {
			t.Errorf("export on a disk of %s: exit code %d:\n%s", size, code, text)
		}
		if files.Exists(filepath.Join(disk, "t.csv")) || files.Exists(filepath.Join(disk, "t.csv.tmp")) {
			t.Error("the table is left")
		}
	}

	must(t, syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=64m"))
	for _, name := range []string{"out.csv", "out.jsonl"} {
		path := filepath.Join(disk, name)
		c.must(append(run, "-o", path)...)
		c.must("verify", "in.csv", path)
	}
}

// A table in a folder that cannot be written is refused in words, and one that is there is compared.
func TestTableReadOnly(t *testing.T) {
	t.Parallel()

	disk := smallDisk(t, "4m")
	c := newCommand(t)
	c.write("in.csv", string(tickets(30)))
	c.must(simRun("-o", "out.jsonl.zst")...)
	c.must("export", "out.jsonl.zst", "in.csv", "-o", filepath.Join(disk, "t.csv"))
	must(t, syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))

	const want = "cannot be written: read-only file system"
	for _, name := range []string{"t.csv", "new.csv"} {
		c.expect(exit.CodeError, want, "export", "out.jsonl.zst", "in.csv", "-o", filepath.Join(disk, name))
	}
	c.expect(exit.CodeError, want, simRun("-o", filepath.Join(disk, "run.csv"))...)
	c.must("verify", "in.csv", "out.jsonl.zst", filepath.Join(disk, "t.csv"))
}
