package filestore

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// testClock is a clock that a test sets. One goroutine uses it.
type testClock struct{ time time.Time }

func (c *testClock) now() time.Time { return c.time }

var testStart = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// openClock opens a store with a clock of its own.
func openClock(t *testing.T, dir string) (*Store, *testClock) {
	t.Helper()

	clock := &testClock{testStart}
	s, err := openStore(dir, zerolog.New(zerolog.NewTestWriter(t)), clock.now)
	must(t, err)
	t.Cleanup(func() { s.Close() })

	return s, clock
}

func TestRemoveExpired(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	s, _ := openClock(t, dir)
	create := func(name string, expires time.Time) File {
		f, err := s.Create(t.Context(), File{Filename: name, ExpiresAt: expires}, strings.NewReader(name))
		must(t, err)
		return f
	}

	create("never", time.Time{})
	create("later", testStart.Add(time.Hour+1))
	used := create("used", testStart)
	first := create("first", testStart.Add(time.Minute))
	second := create("second", testStart.Add(time.Hour))

	if _, err := s.Get(first.ID); err != nil {
		t.Errorf("an expired file before RemoveExpired: %v", err)
	}

	removed, err := s.RemoveExpired(testStart.Add(time.Hour), func(id string) bool { return id == used.ID })
	must(t, err)
	if diff := cmp.Diff([]File{first, second}, removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}

	check := func(s *Store) {
		t.Helper()

		names := []string{}
		for _, f := range s.List() {
			names = append(names, f.Filename)
		}

		if diff := cmp.Diff([]string{"never", "later", "used"}, names); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}

		if n := len(listTree(t, s.filesDir)); n != 6 {
			t.Errorf("%d files on disk, want 3 with their metadata", n)
		}
	}

	check(s)
	must(t, s.Close())
	check(openTest(t, dir))
}

func TestUploadExpires(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	s, clock := openClock(t, dir)
	up, err := s.CreateUpload(Upload{Owner: "key", Bytes: 3})
	must(t, err)
	if want := testStart.Add(time.Hour); !up.ExpiresAt.Equal(want) {
		t.Errorf("the upload expires at %v, want %v", up.ExpiresAt, want)
	}

	part, err := s.AddPart(t.Context(), up.ID, strings.NewReader("abc"))
	must(t, err)

	if diff := cmp.Diff(map[string]int64{"key": 3}, s.Usage()); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}

	clock.time = up.ExpiresAt
	got, err := s.GetUpload(up.ID)
	must(t, err)
	if got.Status != UploadExpired {
		t.Errorf("status %s, want %s", got.Status, UploadExpired)
	}

	_, partErr := s.AddPart(t.Context(), up.ID, strings.NewReader("abc"))
	_, completeErr := s.CompleteUpload(t.Context(), up.ID, []string{part.ID}, "")
	_, cancelErr := s.CancelUpload(up.ID)
	for _, err := range []error{partErr, completeErr, cancelErr} {
		if !errors.Is(err, ErrUploadEnded) {
			t.Errorf("a call after the expiry: %v, want ErrUploadEnded", err)
		}
	}

	unused := func(string) bool { return false }
	_, err = s.RemoveExpired(clock.time, unused)
	must(t, err)

	if diff := cmp.Diff([]string{up.ID + ".json"}, listTree(t, s.uploadsDir)); diff != "" {
		t.Errorf("uploads on disk (-want +got):\n%s", diff)
	}

	if usage := s.Usage(); usage["key"] != 0 {
		t.Errorf("usage %v", usage)
	}

	clock.time = up.ExpiresAt.Add(endedLifetime)
	_, err = s.RemoveExpired(clock.time, unused)
	must(t, err)
	if _, err := s.GetUpload(up.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("GetUpload a day later: %v, want ErrNotFound", err)
	}

	if left := listTree(t, s.uploadsDir); len(left) > 0 {
		t.Errorf("uploads on disk: %v", left)
	}
}

// Ids sort in the order of their creation: in one microsecond, and if the clock is set back a
// bit. A clock that is set back far is followed.
func TestIDs(t *testing.T) {
	t.Parallel()

	clock := &testClock{testStart}
	ids := &idSource{now: clock.now}

	last, lastTime := ids.next(filePrefix)
	for i := range 1000 {
		if i == 500 {
			clock.time = clock.time.Add(-maxSlip / 2)
		}

		id, at := ids.next(filePrefix)
		if id <= last || !at.After(lastTime) {
			t.Fatalf("%s at %v comes after %s at %v", id, at, last, lastTime)
		}

		if !isID(filePrefix, id) || !timeOfID(filePrefix, id).Equal(at) {
			t.Fatalf("%s of %v: time %v", id, at, timeOfID(filePrefix, id))
		}

		last, lastTime = id, at
	}

	clock.time = testStart.Add(-time.Hour)
	if _, at := ids.next(filePrefix); !at.Equal(clock.time) {
		t.Errorf("time %v, want that of the clock, %v", at, clock.time)
	}
}

// Files keep the order of their creation over a restart, with equal times too.
func TestListOrder(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	s, _ := openClock(t, dir)
	var want []File
	for range 50 {
		f, err := s.Create(t.Context(), File{}, strings.NewReader(""))
		must(t, err)
		want = append(want, f)
	}

	if diff := cmp.Diff(want, s.List()); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}

	must(t, s.Close())
	if diff := cmp.Diff(want, openTest(t, dir).List()); diff != "" {
		t.Errorf("list after a restart (-want +got):\n%s", diff)
	}
}

func TestFindTwin(t *testing.T) {
	t.Parallel()

	s, clock := openClock(t, t.TempDir())
	create := func(f File, text string) File {
		clock.time = clock.time.Add(time.Minute)
		f, err := s.Create(t.Context(), f, strings.NewReader(text))
		must(t, err)
		return f
	}

	wanted := File{Owner: "key", Filename: "in.jsonl", Purpose: PurposeBatch}
	create(wanted, "abc")
	twin := create(wanted, "abc")
	create(wanted, "abd")
	create(File{Owner: "other", Filename: "in.jsonl", Purpose: PurposeBatch}, "abc")
	create(File{Owner: "key", Filename: "in2.jsonl", Purpose: PurposeBatch}, "abc")
	create(File{Owner: "key", Filename: "in.jsonl", Purpose: "evals"}, "abc")

	wanted.SHA256 = twin.SHA256
	for _, tt := range []struct {
		since time.Time
		found bool
	}{
		{time.Time{}, true},
		{twin.CreatedAt, true},
		{twin.CreatedAt.Add(1), false},
	} {
		got, ok := s.FindTwin(wanted, tt.since)
		if ok != tt.found || ok && got != twin {
			t.Errorf("since %v: %v %v, want %v %v", tt.since, got, ok, twin, tt.found)
		}
	}
}

// A file that is deleted while a client reads it is read to its end.
func TestDeleteWhileRead(t *testing.T) {
	t.Parallel()

	s := openTest(t, t.TempDir())
	f, err := s.Create(t.Context(), File{}, strings.NewReader("abc"))
	must(t, err)
	data, _, err := s.Open(f.ID)
	must(t, err)
	defer data.Close()

	must(t, s.Delete(f.ID))

	text := make([]byte, 3)
	if _, err := data.Read(text); err != nil || string(text) != "abc" {
		t.Errorf("read %q, %v", text, err)
	}

	if _, _, err := s.Open(f.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("open: %v, want ErrNotFound", err)
	}
}

// Data that another program has removed cannot be opened, like a file that is deleted.
func TestDataLost(t *testing.T) {
	t.Parallel()

	s := openTest(t, t.TempDir())
	f, err := s.Create(t.Context(), File{}, strings.NewReader("abc"))
	must(t, err)
	path, err := s.Path(f.ID)
	must(t, err)
	must(t, os.Remove(path))
	if _, _, err := s.Open(f.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("open: %v, want ErrNotFound", err)
	}
}
