package main

import (
	"os"
	"path/filepath"
	"testing"
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

// A run that is killed at a step of writing its table is finished by the same command, with the
// table that its lines and its input give.
func TestTableKilledAtEachStep(t *testing.T) {
	t.Parallel()

	needStrace(t)

	for i, step := range tableSteps {
		if testing.Short() && i%4 > 0 {
			continue
		}

		t.Run(step.name, func(t *testing.T) {
			t.Parallel()

			c := newCommand(t)
			in := c.input("in.jsonl", 10)
			args := []string{"run", in, "--sim", "-o", "out.csv", "--progress", "none"}
			if !c.diesAt(step, args...) {
				t.Fatal("the step was not reached")
			}

			c.must(args...)
			c.must("verify", in, "out.csv")

			if left, err := filepath.Glob(filepath.Join(c.dir, "*.tmp")); err != nil || len(left) > 0 {
				t.Errorf("files are left: %q %v", left, err)
			}

			if _, err := os.Stat(filepath.Join(c.dir, "out.part.zst")); err == nil {
				t.Error("the journal is left")
			}
		})
	}
}
