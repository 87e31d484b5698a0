package journal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// A follower has the state of the journal after each frame, and after another process has opened it again.
func TestFollower(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "r.part.zst")
	f := Follow(path)
	t.Cleanup(func() { f.Close() })
	if _, err := f.Refresh(); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("without a journal: %v", err)
	}

	j, err := Create(path, fixture.Manifest(100))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })

	checkFollower(t, f, j, true)
	for i := range uint32(5) {
		appendFrame(t, j, uint64(i+1), 3*i, 3*i+1, 3*i+2)
		checkFollower(t, f, j, true)
		checkFollower(t, f, j, false)
	}

	// A process that dies leaves a part of a frame, and the next one cuts it off.
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("W*M\x18"); err != nil {
		t.Fatal(err)
	}
	fixture.Must(t, file.Close())

	// It is not read again and again meanwhile.
	for range 3 * mostStalls {
		checkFollower(t, f, j, false)
	}
	j = reopen(t, j)
	appendFrame(t, j, 6, 15, 16, 17)
	checkFollower(t, f, j, true)
}

// checkFollower compares a follower with its journal.
func checkFollower(t *testing.T, f *Follower, j *Journal, changed bool) {
	t.Helper()

	got, err := f.Refresh()
	if err != nil || got != changed {
		t.Fatalf("changed %t, %v; want %t", got, err, changed)
	}

	want := *j.State()
	want.CutBytes = 0 // a follower drops nothing
	checkState(t, want, f.State())
}

// The latest failures come first.
func TestFailedLinesOfAFollower(t *testing.T) {
	t.Parallel()

	j, _, _ := newTestJournal(t, 100, []uint32{0, 1, 2}, []uint32{3, 4, 5}, []uint32{6, 7}, []uint32{8, 11, 12})
	f := Follow(j.path)
	t.Cleanup(func() { f.Close() })
	if _, err := f.Refresh(); err != nil {
		t.Fatal(err)
	}

	lines, err := f.FailedLines(3)
	if err != nil {
		t.Fatal(err)
	}

	var ids []string
	for _, line := range lines {
		info, err := proto.ParseLine(new(jsonscan.Scanner), line)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, string(info.CustomID))
	}
	if len(ids) != 3 || ids[0] != `"c-11"` || ids[1] != `"c-8"` || ids[2] != `"c-5"` {
		t.Errorf("the latest failures are %v", ids)
	}
}
