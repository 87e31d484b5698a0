package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// A journal that replaced another stays in use at its path, though its folder could not be
// synced: a frame that is appended then is not lost.
func TestJournalReplacedUnsynced(t *testing.T) {
	t.Parallel()

	if os.Geteuid() == 0 {
		t.Skip("root can open any folder")
	}

	j, _, _ := newTestJournal(t, 10, []uint32{5}, []uint32{2})
	dir := filepath.Dir(j.path)
	fixture.Must(t, os.Chmod(dir, 0o300)) // a file can be renamed in it, and the folder not be opened
	err := j.replaceFile(func(next *Journal) error { return next.copyFrame(j.file, frameRef{end: j.size}) })
	fixture.Must(t, os.Chmod(dir, 0o700))
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("replace: %v, want ErrPermission", err)
	}

	appendFrame(t, j, 9, 7)
	fixture.Must(t, j.Close())

	if done := open(t, j.path).State().Done; !done.Equals(roaring.BitmapOf(2, 5, 7)) {
		t.Errorf("%v have their line, want 2, 5 and 7", done)
	}
}

func TestJournalHoldsItsState(t *testing.T) {
	t.Parallel()

	j, _, _ := newTestJournal(t, 10, []uint32{5, 9, 0}, []uint32{2, 3})
	lines := []uint32{0, 5, 9, 2, 3} // those of a frame are sorted
	size := func(want func(uint32) bool, plain bool) (n int64) {
		for _, index := range lines {
			line := fixture.Line(index, 0)
			if plain {
				line = proto.StripExtras(line)
			}
			if want(index) {
				n += int64(len(line))
			}
		}

		return n
	}

	want := State{
		Manifest: fixture.Manifest(10),
		Done:     roaring.BitmapOf(0, 2, 3, 5, 9),
		Sessions: 1,
		Worked:   2 * time.Second,
		// 2 and 5 are refused, with answers that report no usage. The answers to 3 and 9 are truncated.
		Counts: proto.Counts{
			Done: 5, Failed: 2, PromptTokens: 9, CompletionTokens: 15, Attempts: 10, Truncated: 2,
		},
		Digest: fixture.Digest(0, 2, 3, 5, 9),
		Stats:  statsOf(lines...),
		Sizes: Sizes{
			size(fixture.Answered, false), size(fixture.Failed, false), size(fixture.Answered, true),
			size(fixture.Failed, true),
		},
		Position: Position{Created: fixture.Created, Sequence: 2, Time: fixture.Created.Add(2)},
	}

	checkState(t, want, j.State())
	j = reopen(t, j)
	checkState(t, want, j.State())
	fixture.CheckText(t, j.path, fixture.Lines(fixture.Any, lines...))

	// A second session is counted once.
	for range 2 {
		if err := j.BeginSession(); err != nil {
			t.Fatal(err)
		}
	}

	want.Sessions = 2
	checkState(t, want, j.State())
	j = reopen(t, j)
	checkState(t, want, j.State())
}

// A frame that is cut off anywhere is dropped, whole ones before it stay.
func TestJournalTornTail(t *testing.T) {
	t.Parallel()

	j, ends, states := newTestJournal(t, 6, []uint32{0}, []uint32{1, 4}, []uint32{3, 2, 5})
	data, err := os.ReadFile(j.path)
	if err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(t.TempDir(), "torn.part.zst")
	for cut := ends[1]; cut <= ends[3]; cut++ {
		whole := 0
		for whole+1 < len(ends) && ends[whole+1] <= cut {
			whole++
		}

		if err := os.WriteFile(path, data[:cut], 0o644); err != nil {
			t.Fatal(err)
		}

		torn, err := Open(path)
		if err != nil {
			t.Fatalf("cut at byte %d: %v", cut, err)
		}

		want := states[whole]
		want.CutBytes = cut - ends[whole]
		if diff := cmp.Diff(want, torn.state, compareBitmaps); diff != "" {
			t.Fatalf("cut at byte %d: state (-want +got):\n%s", cut, diff)
		}

		for i, indexes := range [][]uint32{{0}, {1, 4}, {3, 2, 5}} {
			if i >= whole {
				appendFrame(t, torn, uint64(i+1), indexes...)
			}
		}

		if err := torn.Close(); err != nil {
			t.Fatal(err)
		}

		if torn, err = Open(path); err != nil {
			t.Fatalf("cut at byte %d and written on: %v", cut, err)
		}

		if diff := cmp.Diff(states[3], torn.state, compareBitmaps); diff != "" {
			t.Fatalf("cut at byte %d and written on: state (-want +got):\n%s", cut, diff)
		}

		torn.Close()
	}

	fixture.CheckText(t, path, fixture.Lines(fixture.Any, 0, 1, 4, 2, 3, 5))
}

// A process that died while it created the journal leaves nothing to resume.
func TestJournalCutInFirstFrame(t *testing.T) {
	t.Parallel()

	j, ends, _ := newTestJournal(t, 1)
	data, err := os.ReadFile(j.path)
	if err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(t.TempDir(), "cut.part.zst")
	for cut := range ends[0] {
		if err := os.WriteFile(path, data[:cut], 0o644); err != nil {
			t.Fatal(err)
		}

		if _, err := Open(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("cut at byte %d: %v, want os.ErrNotExist", cut, err)
		}

		fixture.CheckAbsent(t, path)
	}
}

// A run that was never begun is created over the partial first frame.
func TestCreateJournalOverCutFirstFrame(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "cut.part.zst")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}

	j, err := Create(path, fixture.Manifest(1))
	if err != nil {
		t.Fatalf("an empty file is no journal, but: %v", err)
	}

	j.Close()
}

func TestJournalFlippedBit(t *testing.T) {
	t.Parallel()

	frames := [][]uint32{{0, 1}, {4, 2}, {3}, {5, 6}}
	for _, tt := range []struct {
		name    string
		frame   int   // the one that is lost
		offset  int64 // in the frame; from its end if negative
		rescans bool  // the results stream is read from its beginning again
	}{
		{"magic number of a middle frame", 1, 0, true},
		{"length of a middle frame's header", 1, 4, true},
		{"highest bits of that length", 1, 7, true},
		{"tag of a middle frame", 2, 8, true},
		{"checksum of a middle frame's header", 1, 12, true},
		{"header of a middle frame", 1, fixedSize + 9, true},
		{"header of the last frame", 3, fixedSize + 9, false},
		{"contents of the last frame", 3, -3, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			j, ends, states := newTestJournal(t, 7, frames...)
			j.Close()

			at := ends[tt.frame] + tt.offset
			if tt.offset < 0 {
				at = ends[tt.frame+1] + tt.offset
			}

			fixture.FlipBit(t, j.path, at)
			j = open(t, j.path)
			checkSurvivors(t, j, frames, tt.frame)

			want := Position{}
			if !tt.rescans {
				want = states[tt.frame].Position
			}

			if got := j.State().Position; got != want {
				t.Errorf("position %v, want %v", got, want)
			}

			if want := ends[tt.frame+1] - ends[tt.frame]; j.State().CutBytes != want {
				t.Errorf("cut %d bytes, want %d", j.State().CutBytes, want)
			}

			// The lost frame comes again, and the lock is still there.
			appendFrame(t, j, 9, frames[tt.frame]...)
			if _, err := Open(j.path); !errors.Is(err, atomicfile.ErrLocked) {
				t.Errorf("second OpenJournal: %v, want atomicfile.ErrLocked", err)
			}

			j = reopen(t, j)
			if got := j.State().Done.GetCardinality(); got != 7 {
				t.Errorf("%d requests done, want 7", got)
			}
		})
	}
}

// checkSurvivors checks that all frames but one are there, on the disk too.
func checkSurvivors(t *testing.T, j *Journal, frames [][]uint32, lost int) {
	t.Helper()

	done, text := roaring.New(), ""
	for i, indexes := range frames {
		if i == lost {
			continue
		}

		done.AddMany(indexes)
		for it := roaring.BitmapOf(indexes...).Iterator(); it.HasNext(); {
			text += string(fixture.Line(it.Next(), 0))
		}
	}

	if !j.State().Done.Equals(done) || j.State().Counts.Done != int(done.GetCardinality()) {
		t.Errorf("done: %v, want %v; counted %d", j.State().Done, done, j.State().Counts.Done)
	}

	fixture.CheckText(t, j.path, text)
	fixture.CheckAbsent(t, j.path+".tmp")
}

func TestJournalLocked(t *testing.T) {
	t.Parallel()

	j, _, _ := newTestJournal(t, 1)
	if _, err := Open(j.path); !errors.Is(err, atomicfile.ErrLocked) {
		t.Errorf("OpenJournal: %v, want atomicfile.ErrLocked", err)
	}

	if _, err := Create(j.path, fixture.Manifest(1)); !errors.Is(err, atomicfile.ErrLocked) {
		t.Errorf("CreateJournal: %v, want atomicfile.ErrLocked", err)
	}

	j.Close()
	if _, err := Create(j.path, fixture.Manifest(1)); !errors.Is(err, os.ErrExist) {
		t.Errorf("CreateJournal over a journal that no process has open: %v, want os.ErrExist", err)
	}

	open(t, j.path)
}

func TestOpenJournalErrors(t *testing.T) {
	t.Parallel()

	frameOf := func(h header) string {
		data, err := appendHeader(nil, h)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}

	m, future := fixture.Manifest(1), fixture.Manifest(1)
	future.Schema += 100

	for _, tt := range []struct {
		name, text string
	}{
		{"a text", `{"custom_id":"a"}` + "\n"},
		{"one letter", "x"},
		{"an ordinary zstd frame", "\x28\xb5\x2f\xfd\x04\x00\x01\x00\x00\x99\xe9\xd8\x51"},
		{"a skippable frame of another program", "W*M\x18\x04\x00\x00\x00test"},
		{"frames without a manifest", frameOf(header{Run: "r"})},
		{"a manifest of another version", frameOf(header{Run: "r", Manifest: &future})},
		{"frames of two runs", frameOf(header{Run: "r", Manifest: &m}) + frameOf(header{Run: "s"})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), "other")
			if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}

			for i := range 2 { // the first must not have kept the lock
				if _, err := Open(path); !errors.Is(err, proto.ErrFormat) {
					t.Errorf("OpenJournal %d: %v, want ErrFormat", i+1, err)
				}
			}

			got, err := os.ReadFile(path)
			if diff := cmp.Diff(tt.text, string(got)); diff != "" || err != nil {
				t.Errorf("another program's file was changed (%v):\n%s", err, diff)
			}
		})
	}

	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v, want os.ErrNotExist", err)
	}
}

// A journal whose name is a link lies where the link leads, at each of its ways.
func TestJournalBehindLink(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	fixture.Must(t, os.Mkdir(dir+"/disk", 0o755))
	link, target := dir+"/out.part.zst", dir+"/disk/real"
	fixture.Must(t, os.Symlink("disk/real", link))
	j, err := Create(link, fixture.Manifest(3))
	fixture.Must(t, err)
	if _, err := Create(link, fixture.Manifest(3)); !errors.Is(err, atomicfile.ErrLocked) {
		t.Errorf("CreateJournal over it: %v, want atomicfile.ErrLocked", err)
	}

	appendFrame(t, j, 1, 0)
	appendFrame(t, j, 2, 1)
	fixture.Must(t, j.Close())
	fixture.FlipBit(t, target, j.size-1-int64(len(fixture.Lines(fixture.Any, 1)))/4) // so that it is cut

	j = open(t, link)
	if j.State().Counts.Done != 1 {
		t.Errorf("%d lines, want 1", j.State().Counts.Done)
	}

	appendFrame(t, j, 2, 1)
	fixture.CheckText(t, link, fixture.Lines(fixture.Any, 0, 1))
	fixture.Must(t, j.Remove())
	fixture.CheckAbsent(t, target)

	if _, err := os.Lstat(link); err != nil {
		t.Errorf("the link: %v", err)
	}
}

// The lines of failed requests come from the latest frames first, as many as are wanted, and from
// a damaged journal as far as they can be read.
func TestFailedLines(t *testing.T) {
	t.Parallel()

	j, ends, _ := newTestJournal(t, 30, []uint32{0, 1, 2, 5}, []uint32{6, 7}, []uint32{8, 9, 11}, []uint32{3, 14})
	check := func(most int, want ...uint32) {
		t.Helper()

		lines, err := j.FailedLines(most)
		fixture.Must(t, err)

		if got := string(bytes.Join(lines, nil)); got != fixture.AllLines(want...) {
			t.Errorf("%d at most: %v, want %v", most, fixture.ParseIndexes(t, got), want)
		}
	}

	check(10, 14, 8, 11, 2, 5)
	check(2, 14, 8)
	check(0)

	fixture.FlipBit(t, j.path, ends[len(ends)-2]-1) // the lines of the third frame
	check(10, 14, 2, 5)
}

// An interrupted run lists the times without a collector, the latest if there are many, over all
// sessions. A run that is retried was not interrupted.
func TestInterruptions(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "out.part.zst")
	j, err := Create(path, fixture.Manifest(3))
	fixture.Must(t, err)

	began := j.State().At
	if got := j.State().Interruptions; got != nil {
		t.Errorf("a new run was interrupted: %v", got)
	}

	var want []metadata.Interruption
	for range maxInterruptions + 2 {
		stopped := j.State().At
		fixture.Must(t, j.Close())
		j, err = Open(path)
		fixture.Must(t, err)
		fixture.Must(t, j.BeginSession())
		want = append(want, metadata.Interruption{From: stopped, To: j.State().At})
	}
	defer j.Close()

	got := j.State().Interruptions
	if diff := cmp.Diff(want[2:], got); diff != "" || got[0].From.Before(began) {
		t.Errorf("interruptions (-want +got):\n%s", diff)
	}

	out, meta := written(t, 6, 0, false)
	meta.Results.InterruptedAt = want[:3]

	again, err := CreateFromOutput(out, meta, retried(6), Position{})
	fixture.Must(t, err)
	defer again.Close()

	fixture.Must(t, again.BeginSession())
	if diff := cmp.Diff(want[:3], again.State().Interruptions); diff != "" {
		t.Errorf("interruptions of a run that is retried (-want +got):\n%s", diff)
	}
}
