package journal

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// statsOf counts the lines of requests another way.
func statsOf(indexes ...uint32) *FrameStats {
	s := &FrameStats{}
	for _, index := range indexes {
		line := fixture.Line(index, 0)
		info, err := proto.ParseLine(new(jsonscan.Scanner), line)
		if err == nil && info.OK {
			s.addMeasures(info)
		} else {
			s.addExample(info.ErrorCode, func() (id, message string) { return displayID(info), findMessage(line) })
		}

		s.addCosts(info, fixture.Worker(index))

		addCount(&s.Attempts, "2", 1)
		addCount(&s.Retried, "503", 1)
		addCount(&s.Workers, fixture.Worker(index), 1)

		switch {
		case fixture.Failed(index):
			addCount(&s.Failures, "http_400", 1)
		case index%2 == 1:
			addCount(&s.Finish, "length", 1)
		default:
			addCount(&s.Finish, "stop", 1)
		}
	}

	return s
}

// newTestJournal makes a journal with one frame for each list of requests. ends[i] is
// the file's size after i frames of lines, and states[i] its state then.
func newTestJournal(t *testing.T, requests int, frames ...[]uint32) (j *Journal, ends []int64, states []State) {
	t.Helper()

	j, err := Create(filepath.Join(t.TempDir(), "out.part.zst"), fixture.Manifest(requests))
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { j.Close() }) // closing twice does no harm
	note := func() {
		s := j.state
		s.Done, s.Stats = s.Done.Clone(), &FrameStats{}
		s.Stats.Merge(*j.state.Stats)
		ends, states = append(ends, j.size), append(states, s)
	}

	note()
	for i, indexes := range frames {
		appendFrame(t, j, uint64(i+1), indexes...)
		note()
	}

	return j, ends, states
}

func appendFrame(t *testing.T, j *Journal, position uint64, indexes ...uint32) {
	t.Helper()

	f := &Frame{
		Position: Position{
			Created:  fixture.Created,
			Sequence: position,
			Time:     fixture.Created.Add(time.Duration(position)),
		},
		At:     fixture.Created,
		Worked: time.Second,
	}

	var scan jsonscan.Scanner
	for _, index := range indexes {
		line := fixture.Line(index, 0)
		info, err := proto.ParseLine(&scan, line)
		if err != nil {
			t.Fatal(err)
		}
		f.Add(index, line, info)
	}

	fixture.Must(t, j.Append(f))
}

// reopen closes a journal and opens it again.
func reopen(t *testing.T, j *Journal) *Journal {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, j.path)
}

func open(t testing.TB, path string) *Journal {
	t.Helper()
	j, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

var compareBitmaps = cmp.Options{
	cmp.Comparer(func(a, b *roaring.Bitmap) bool { return a.Equals(b) }),
	cmp.Comparer(func(a, b Latencies) bool {
		return a.seconds == b.seconds && a.start.Equal(b.start) &&
			slices.EqualFunc(a.intervals, b.intervals, slices.Equal)
	}),
}

func checkState(t *testing.T, want State, got *State) {
	t.Helper()
	// The times of the test itself are not compared.
	times := cmpopts.IgnoreFields(State{},
		"At", "Began", "AccountedTo", "Idle", "Lost", "Series", "Latencies", "Interruptions")
	if diff := cmp.Diff(want, *got, compareBitmaps, times,
		cmpopts.SortSlices(func(a, b metadata.Outlier) bool { return a.CustomID < b.CustomID })); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}
