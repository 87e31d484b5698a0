package filestore

import (
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Uploads leave a part of the disk free: a bus that cannot write there ends the server.
func TestReserve(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=100m"); err != nil {
		t.Skipf("SKIPPED: a full disk cannot be made here: mount tmpfs: %v", err)
	}

	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })

	s := openTest(t, dir)
	up, err := s.CreateUpload(Upload{Bytes: 60 << 20})
	must(t, err)
	part, err := s.AddPart(t.Context(), up.ID, newPattern(60<<20))
	must(t, err)

	_, createErr := s.Create(t.Context(), File{}, &freeReader{t: t, dir: dir, Reader: newPattern(100 << 20)})
	_, partErr := s.AddPart(t.Context(), up.ID, &freeReader{t: t, dir: dir, Reader: newPattern(100 << 20)})
	_, completeErr := s.CompleteUpload(t.Context(), up.ID, []string{part.ID}, "")
	for what, err := range map[string]error{"Create": createErr, "AddPart": partErr, "CompleteUpload": completeErr} {
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v, want ENOSPC", what, err)
		}
	}

	if _, err := s.Create(t.Context(), File{}, newPattern(30<<20)); err != nil {
		t.Errorf("a file that leaves the reserve: %v", err)
	}
}

// freeReader checks before each step that a disk has 4 MB free.
type freeReader struct {
	io.Reader

	t   *testing.T
	dir string
}

func (r *freeReader) Read(p []byte) (int, error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(r.dir, &disk); err != nil || disk.Bavail*uint64(disk.Bsize) < 4<<20 {
		r.t.Errorf("%v, %d blocks are free", err, disk.Bavail)
	}
	return r.Reader.Read(p)
}

// On a full disk each call fails with ENOSPC and leaves nothing behind, and a call that makes room
// still works.
func TestFullDisk(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("SKIPPED: a full disk cannot be made here: mount tmpfs: %v", err)
	}

	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })

	s := openTest(t, dir)
	small, err := s.Create(t.Context(), File{}, strings.NewReader("small"))
	must(t, err)
	up, err := s.CreateUpload(Upload{Bytes: 3 << 20})
	must(t, err)
	part, err := s.AddPart(t.Context(), up.ID, newPattern(3<<20))
	must(t, err)
	before := listTree(t, dir)

	full := func(what string, err error) {
		t.Helper()

		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v, want ENOSPC", what, err)
		}

		if diff := cmp.Diff(before, listTree(t, dir)); diff != "" {
			t.Errorf("%s leaves (-before +after):\n%s", what, diff)
		}
	}

	_, err = s.Create(t.Context(), File{}, newPattern(2<<20))
	full("Create", err)
	_, err = s.AddPart(t.Context(), up.ID, newPattern(2<<20))
	full("AddPart", err)
	_, err = s.CompleteUpload(t.Context(), up.ID, []string{part.ID}, "")
	full("CompleteUpload", err)

	// A file whose bytes fit, and whose metadata does not.
	p, err := s.Begin(t.Context(), strings.NewReader("some"))
	must(t, err)
	fill, err := os.Create(dir + "/fill")
	must(t, err)

	_, err = fill.ReadFrom(newPattern(4 << 20))
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}

	_, err = p.Commit(File{})
	must(t, os.Remove(fill.Name()))
	full("Commit", err)

	fill, err = os.Create(dir + "/fill")
	must(t, err)
	fill.ReadFrom(newPattern(4 << 20))
	if _, err := s.CancelUpload(up.ID); err != nil {
		t.Errorf("CancelUpload: %v", err)
	}

	must(t, s.Delete(small.ID))
	must(t, os.Remove(fill.Name()))

	if got := listTree(t, dir); len(got) != 2 { // the lock, and the record of the upload
		t.Errorf("left: %v", got)
	}
}
