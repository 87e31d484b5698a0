package atomicfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/promptmill/promptmill/collector/atomicfile"
)

// A lock excludes a second one, leaves the file readable, and ends with it. A locked file appears under its name.
// This test runs on each system: each has locks of its own.
func TestLocksOfTheSystem(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}

	file, err := atomicfile.Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}

	if _, err := file.WriteString("new"); err != nil {
		t.Fatal(err)
	}

	if _, err := atomicfile.Create(path, 0o600); !errors.Is(err, atomicfile.ErrLocked) {
		t.Errorf("a second writer: error %v, want %v", err, atomicfile.ErrLocked)
	}

	if got, err := os.ReadFile(path + atomicfile.TempSuffix); err != nil || string(got) != "new" {
		t.Errorf("a reader of the locked file: %q, %v", got, err)
	}

	if err := file.Commit(nil); err != nil {
		t.Error(err)
	}

	if got, err := os.ReadFile(path); err != nil || string(got) != "new" {
		t.Errorf("after the commit: %q, %v", got, err)
	}

	again, err := atomicfile.Create(path, 0o600)
	if err != nil {
		t.Fatalf("a writer after the commit: %v", err)
	}
	again.Abort()

	if got, err := os.ReadFile(path); err != nil || string(got) != "new" {
		t.Errorf("after an abort: %q, %v", got, err)
	}

	if _, err := os.Lstat(path + atomicfile.TempSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary file: %v", err)
	}
}
