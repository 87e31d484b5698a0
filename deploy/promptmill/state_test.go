package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/statedir"
)

// A path to the state that is too long for the bus's store is refused before anything is
// made; the longest that is not refused is one that a run ends with.
func TestStateFolderTooDeep(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	in := c.input("in.jsonl", 3)

	deep := c.state
	for statedir.CheckLength(filepath.Join(deep, strings.Repeat("d", 100), "out-12345678")) == nil {
		deep = filepath.Join(deep, strings.Repeat("d", 100))
	}

	run := []string{
		"run", in, "--sim", "--sim-ttft", "1ms", "--sim-tpot", "0s", "--progress", "none", "--run",
		strings.Repeat("r", 64),
	}

	c.expect(exit.CodeUsage, "is too deep",
		append(run, "-o", "refused.jsonl.zst", "--state", filepath.Join(deep, strings.Repeat("d", 200)))...)

	if got := c.left(); len(got) != 1 {
		t.Errorf("files left by a refused run: %v", got)
	}

	for n := 100; ; n-- {
		if state := filepath.Join(deep, strings.Repeat("d", n)); statedir.CheckLength(filepath.Join(state,
			"out-12345678")) == nil {
			deep = state
			break
		}
	}

	c.expect(exit.CodeOK, "done: 3 answered", append(run, "-o", "out.jsonl.zst", "--state", deep)...)
}
