package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each way changes the input, and one that says so leaves its size and time.
func TestWaysToChange(t *testing.T) {
	t.Parallel()

	for _, way := range inputChanges {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), "in.jsonl")
			lines := (&changedRun{}).inputLines()
			first := bytes.Join(lines, nil)
			if err := os.WriteFile(path, first, 0o644); err != nil {
				t.Fatal(err)
			}

			before, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}

			if err := way.change(path, lines); err != nil {
				t.Fatal(err)
			}

			now, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}

			after, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}

			if bytes.Equal(first, now) {
				t.Error("the input is as before")
			}

			if !bytes.HasPrefix(now, lines[0]) && !way.dead {
				t.Error("the beginning has changed, which the run has read already")
			}

			if strings.Contains(way.name, "same size and time") &&
				(after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime())) {
				t.Errorf("size and time were %d, %s, and are %d, %s",
					before.Size(), before.ModTime(), after.Size(), after.ModTime())
			}
		})
	}
}
