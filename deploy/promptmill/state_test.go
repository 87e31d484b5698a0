package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
)

// A path to the state that is too long for the bus's store is refused before anything is
// made; the longest that is not refused is one that a run ends with.
func TestStateFolderTooDeep(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	in := c.input("in.jsonl", 3)

	deep := c.state
	for checkStateLength(filepath.Join(deep, strings.Repeat("d", 100), "out-12345678")) == nil {
		deep = filepath.Join(deep, strings.Repeat("d", 100))
	}

	run := []string{
		"run", in, "--sim", "--sim-ttft", "1ms", "--sim-tpot", "0s", "--progress", "none", "--run",
		strings.Repeat("r", 64),
	}

	c.expect(exit.CodeUsage, "is too deep",
		append(run, "-o", "refused.jsonl.zst", "--state", filepath.Join(deep, strings.Repeat("d", 200)))...)

	if got := c.left(); len(got) != 1 {
		t.Errorf("what is left of a refused run: %v", got)
	}

	for n := 100; ; n-- {
		if state := filepath.Join(deep, strings.Repeat("d", n)); checkStateLength(filepath.Join(state,
			"out-12345678")) == nil {
			deep = state
			break
		}
	}

	c.expect(exit.CodeOK, "done: 3 answered", append(run, "-o", "out.jsonl.zst", "--state", deep)...)
}

func TestOnlyState(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		other string // what lies there besides our state
		want  bool
	}{
		{"our state", "", true},
		{"a file of another", "notes.txt", false},
		{"a folder of another", "photos", false},
		{"a name like ours", "serve.bak", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}

			for _, name := range []string{
				"identity.pem", "certificate.pem", "history.jsonl", "servers.json", "serve", "worker-a100",
				"submit-123", "big.results-0a1b2c3d", tt.other,
			} {
				if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
					t.Fatal(err)
				}
			}

			mine := filepath.Join(dir, "out-01234567")
			if err := makeState(dir, mine); err != nil {
				t.Fatal(err)
			}

			for path, closed := range map[string]bool{dir: tt.want, mine: true} {
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}

				if got := info.Mode().Perm()&0o077 == 0; got != closed {
					t.Errorf("%s has mode %v, closed to others: %t", path, info.Mode().Perm(), closed)
				}
			}
		})
	}
}

func TestRunStateDir(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}

	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}

	if a, b := runStateDir("s", dir+"/real/out"), runStateDir("s", dir+"/link/out"); a != b {
		t.Errorf("one output has the folders %s and %s", a, b)
	}

	if a, b := runStateDir("s", dir+"/real/out"), runStateDir("s", dir+"/out"); a == b {
		t.Errorf("two outputs have the folder %s", a)
	}

	if name := filepath.Base(runStateDir("s", dir+"/"+strings.Repeat("é", 100))); name[:64] != strings.Repeat("é",
		32) || len(name) != 64+9 {
		t.Errorf("a long name became %s", name)
	}

	if name := filepath.Base(runStateDir("s", dir+"/n"+strings.Repeat("é", 100))); !strings.HasPrefix(name,
		"n"+strings.Repeat("é", 31)+"-") {
		t.Errorf("a long name was cut in a character: %q", name)
	}
}
