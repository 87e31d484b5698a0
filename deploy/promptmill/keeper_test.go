package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/worker/sim"
)

// The files of a run that was deleted from the bus, complete or not, do not count as the
// results of another run with its name.
func TestRunNamedAsAnother(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		name      string
		completed bool
	}{{"complete", true}, {"not complete", false}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			c := newCommand(t)
			_, said := c.serve()
			c.must("submit", c.input("one.jsonl", 5), "--model", "sim", "--run", "r")

			left := filepath.Join(c.dir, "r.part.zst")
			if test.completed {
				left = filepath.Join(c.dir, "r.jsonl.zst")
				c.start("worker", "--url", newModel(t, sim.Config{Tokens: 5}).url)
				c.ended("r", pollTime)
			}

			poll(t, pollTime, "the output", func() bool { return files.Exists(left) })
			c.must("delete", "r", "--force")
			poll(t, pollTime, "serve to let go of the run", func() bool {
				return test.completed || strings.Contains(said.String(), "run r was deleted")
			})

			before, err := os.ReadFile(left)
			if err != nil {
				t.Fatal(err)
			}

			c.expect(exit.CodeError, "is refused by its collector: "+left, "submit", c.input("two.jsonl", 8),
				"--model", "sim", "--run", "r", "--wait")
			poll(t, pollTime, "a refusal", func() bool {
				return strings.Contains(said.String(), left+" is of an earlier run r, made from another input")
			})

			if after, err := os.ReadFile(left); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the files of the earlier run were changed (%v)", err)
			}

			// The same input under this name is another matter: the bus may have lost the run.
			c.must("delete", "r", "--force")
			c.must("submit", "one.jsonl", "--model", "sim", "--run", "r")

			if !test.completed {
				c.start("worker", "--url", newModel(t, sim.Config{Tokens: 5}).url)
			}

			c.ended("r", pollTime)
			poll(t, pollTime, "the end of the run", func() bool {
				m, ok := c.manifest("r")
				return ok && m.State.Ended()
			})

			c.verified("one.jsonl", "r")
		})
	}
}

// A collector that cannot collect a run leaves it to another that can, and does not end it.
func TestServeLeavesTheRunOfAnother(t *testing.T) {
	t.Parallel()

	_, url := startNATS(t)
	c := newCommand(t)
	one, said := c.start("serve", "--nats", url)
	poll(t, pollTime, "serve", func() bool { return strings.Contains(said.String(), "serving the runs") })
	c.must("submit", c.input("in.jsonl", 50), "--model", "sim", "--run", "r", "--nats", url)
	poll(t, pollTime, "the journal", func() bool { return files.Exists(filepath.Join(c.dir, "r.part.zst")) })

	other := newCommand(t)
	must(t, os.WriteFile(filepath.Join(other.dir, "r.jsonl.zst"), []byte("of another program"), 0o644))
	_, said = other.start("serve", "--nats", url)
	poll(t, pollTime, "the other one", func() bool {
		return strings.Contains(said.String(), "the run is being collected by another process: into ")
	})

	// Nor does it while that one is away.
	must(t, one.Process.Signal(os.Interrupt))
	poll(t, pollTime, "the other one to try", func() bool {
		return strings.Contains(said.String(), "was not written by promptmill")
	})

	state := func() string { return c.must("status", "r", "--nats", url) }
	poll(t, pollTime, "the problem", func() bool { return strings.Contains(state(), "not collected: ") })
	c.start("serve", "--nats", url)
	c.start("worker", "--nats", url, "--url", newModel(t, sim.Config{Tokens: 5}).url)
	c.ended("r", pollTime)
	poll(t, pollTime, "the end of the run", func() bool { return strings.Contains(state(), "completed") })
	if text := state(); strings.Contains(text, "problem") {
		t.Error(text)
	}

	c.verified("in.jsonl", "r")
}

// A run that another process has completed is not collected once more.
func TestServeLeavesWhatAnotherHasCompleted(t *testing.T) {
	t.Parallel()

	_, url := startNATS(t)
	c, other := newCommand(t), newCommand(t)
	_, said := c.start("serve", "--nats", url)
	poll(t, pollTime, "serve", func() bool { return strings.Contains(said.String(), "serving the runs") })
	c.must("submit", c.input("in.jsonl", 50), "--model", "sim", "--run", "r", "--nats", url)
	poll(t, pollTime, "the journal", func() bool { return files.Exists(filepath.Join(c.dir, "r.part.zst")) })
	_, said = other.start("serve", "--nats", url)
	poll(t, pollTime, "the other one", func() bool {
		return strings.Contains(said.String(), "the run is being collected by another process: into ")
	})

	c.start("worker", "--nats", url, "--url", newModel(t, sim.Config{Tokens: 5}).url)
	c.ended("r", pollTime)
	poll(t, pollTime, "the other one to let go of the run", func() bool {
		return strings.Contains(said.String(), "run r is completed, in ")
	})

	for _, name := range other.left() {
		if strings.HasPrefix(name, "r.") {
			t.Errorf("it made %s", name)
		}
	}

	c.verified("in.jsonl", "r")
}

// A journal that is damaged at its beginning is set aside, and the run is collected again.
func TestDamagedJournalIsPutAside(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	serving, _ := c.serve()
	journal := filepath.Join(c.dir, "r.part.zst")
	c.must("submit", c.input("in.jsonl", 200), "--model", "sim", "--run", "r")
	poll(t, pollTime, "the journal", func() bool { return files.Exists(journal) })
	killHard(serving)

	text, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}

	text[9] ^= 1 // in the tag of the first frame, which describes the run
	if err := os.WriteFile(journal, text, 0o644); err != nil {
		t.Fatal(err)
	}

	c.serve()
	c.start("worker", "--url", newModel(t, sim.Config{Tokens: 5}).url)
	c.ended("r", pollTime)
	c.verified("in.jsonl", "r")

	if !files.Exists(journal + ".damaged") {
		t.Error("the damaged journal is gone")
	}
}
