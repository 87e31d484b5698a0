package sweep

import (
	"os"
	"path/filepath"
	"testing"
)

// What a process has left that was killed while it drew the sample is no obstacle. Any other file is: it may be the
// user's.
func TestFolderOfNewTrial(t *testing.T) {
	t.Parallel()

	for name, isOwn := range map[string]bool{
		"sample.jsonl":              true,
		"sample.jsonl.tmp":          true,
		"expected.jsonl":            true,
		"trial.json.tmp":            true,
		"input-123456":              true,
		".promptmill-sample-123456": true,
		"input-of-mine.jsonl":       false,
		"input":                     false,
		"sample.jsonl.old":          false,
		"01-a.meta.json":            false,
	} {
		f := folder(t.TempDir())
		if err := os.WriteFile(filepath.Join(string(f), name), []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}

		if r, err := readRecord(f); r != nil || (err == nil) != isOwn {
			t.Errorf("%s: %v, %v; want no trial, and an error: %t", name, r, err, !isOwn)
		}
	}
}
