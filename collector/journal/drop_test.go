package journal

import (
	"testing"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/promptmill/promptmill/collector/internal/fixture"
)

// Dropping lines changes nothing else in a journal.
func TestDropLines(t *testing.T) {
	t.Parallel()

	j, _, _ := newTestJournal(t, 10, []uint32{0, 1, 2}, []uint32{3, 4, 5}, []uint32{6})
	before := *j.State()

	if err := j.Drop(roaring.BitmapOf(4, 6)); err != nil {
		t.Fatal(err)
	}

	after := *j.State()
	want := State{
		Manifest: before.Manifest,
		Done:     roaring.BitmapOf(0, 1, 2, 3, 5),
		Digest:   fixture.Digest(0, 1, 2, 3, 5),
		Stats:    statsOf(0, 1, 2, 3, 5),
		Position: before.Position,
		Worked:   before.Worked,
		Sessions: before.Sessions,
		Counts:   after.Counts,
		Sizes:    after.Sizes,
	}

	checkState(t, want, &after)
	if after.Counts.Done != 5 || after.Counts.Failed != 2 {
		t.Errorf("%d lines of which %d failed, want 5 and 2", after.Counts.Done, after.Counts.Failed)
	}

	fixture.CheckText(t, j.path, fixture.Lines(fixture.Any, 0, 1, 2, 3, 5))
	checkState(t, want, reopen(t, j).State())
}
