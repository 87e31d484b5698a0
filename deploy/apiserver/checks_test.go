package apiserver

import (
	"os"
	"path/filepath"
	"testing"
)

// The check of the disk gives away no path, and clears what a server that died has left.
func TestCheckDisk(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	left := filepath.Join(dir, probeName)
	if err := os.WriteFile(left, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}

	if err := checkDisk(dir)(t.Context()); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}

	const want = "the files of the batch API cannot be written: no such file or directory"
	if err := checkDisk(filepath.Join(dir, "missing"))(t.Context()); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
