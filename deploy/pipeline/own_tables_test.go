package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A note that is not there names no file, and one that is there names each file of its tables.
func TestTableNote(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	note := tableNote{state, filepath.Join(state, "out-1")}
	if names, err := note.read(); err != nil || len(names) != 0 {
		t.Errorf("without a note: %q %v", names, err)
	}

	must(t, note.write([]TableOutput{{Path: "dir/out.csv"}, {Path: "dir/out.tsv", Shards: 2}}))
	names, err := note.read()
	if want := []string{"out.csv", "out-00000-of-00002.tsv", "out-00001-of-00002.tsv"}; err != nil ||
		!slices.Equal(names, want) {
		t.Errorf("names %q (%v), want %q", names, err, want)
	}

	must(t, note.remove())
	must(t, note.remove())
	if names, err := note.read(); err != nil || len(names) != 0 {
		t.Errorf("after remove: %q %v", names, err)
	}
}

// A file with other contents than its sum is refused, unless it was being written.
func TestOwnTablesChanged(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	sum := sha256.Sum256([]byte("whole"))
	whole := hex.EncodeToString(sum[:])
	own := ownTables{
		sums:  map[string]string{"same.csv": whole, "edited.csv": whole, "begun.csv": whole, "gone.csv": whole},
		noted: map[string]bool{"begun.csv": true, "new.csv": true},
	}

	for name, text := range map[string]string{
		"same.csv":    "whole",
		"edited.csv":  "by hand",
		"begun.csv":   "half",
		"new.csv":     "half",
		"foreign.csv": "foreign",
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}

	for name, want := range map[string]struct{ isOwn, isRefused bool }{
		"same.csv":    {true, false},
		"edited.csv":  {true, true},
		"begun.csv":   {true, false},
		"new.csv":     {true, false},
		"gone.csv":    {true, false},
		"foreign.csv": {false, false}, // another check refuses it
	} {
		path := filepath.Join(dir, name)
		if got := own.contains(path); got != want.isOwn {
			t.Errorf("%s: own is %t, want %t", name, got, want.isOwn)
		}

		err := own.checkUnchanged(path)
		if (err != nil) != want.isRefused ||
			err != nil && !strings.HasSuffix(err.Error(), name+" was changed after this run had written it") {
			t.Errorf("%s: error %v, refused must be %t", name, err, want.isRefused)
		}
	}
}
