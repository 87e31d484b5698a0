package inputfile

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto"
)

func TestUnchanged(t *testing.T) {
	t.Parallel()

	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	describe := func(path string) (proto.File, os.FileInfo) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return Describe(path, info), info
	}

	path := filepath.Join(t.TempDir(), "in")
	write(path, "old")

	then, info := describe(path)
	if then.Inode == 0 {
		t.Skip("this system has no inodes")
	}

	if !IsUnchanged(then, Describe(path, info)) {
		t.Error("an untouched file has changed")
	}

	// As cp -p, rsync -t and a restored backup do.
	other := filepath.Join(t.TempDir(), "other")
	write(other, "new")
	if err := os.Chtimes(other, then.ModTime, then.ModTime); err != nil {
		t.Fatal(err)
	}

	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}

	if _, info = describe(path); IsUnchanged(then, Describe(path, info)) {
		t.Error("another file of the same size and time counts as the first")
	}

	// As a program does that writes in place and puts the time back.
	then, _ = describe(path)
	deadline := time.Now().Add(5 * time.Second)
	for { // until the clock of the file system moves on
		write(path, "NEW")
		if err := os.Chtimes(path, then.ModTime, then.ModTime); err != nil {
			t.Fatal(err)
		}

		if _, info = describe(path); !IsUnchanged(then, Describe(path, info)) {
			break
		}

		if time.Now().After(deadline) {
			t.Fatal("a file that was written in place counts as unchanged")
		}
	}

	if IsUnchanged(proto.File{Bytes: info.Size(), ModTime: info.ModTime().UTC()}, Describe(path, info)) {
		t.Error("a file without an inode counts as unchanged")
	}
}
