package filestore

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// openTest opens a store that is closed with the test.
func openTest(t testing.TB, dir string) *Store {
	t.Helper()

	s, err := Open(dir, zerolog.New(zerolog.NewTestWriter(t)))
	must(t, err)
	t.Cleanup(func() { s.Close() })

	return s
}

// readFile returns the bytes of a file.
func readFile(t testing.TB, s *Store, id string) string {
	t.Helper()

	data, _, err := s.Open(id)
	must(t, err)
	defer data.Close()

	text, err := io.ReadAll(data)
	must(t, err)

	return string(text)
}

func must(t testing.TB, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

func TestFileSurvivesReopen(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	s := openTest(t, dir)

	expires := time.Now().Add(time.Hour)
	f, err := s.Create(t.Context(), File{
		Owner:     "key",
		Filename:  "../in\xff.jsonl",
		Purpose:   PurposeBatch,
		ExpiresAt: expires,
	}, strings.NewReader("{}\n"))

	must(t, err)

	want := File{
		ID:        f.ID,
		Owner:     "key",
		Filename:  "../in\uFFFD.jsonl",
		Purpose:   PurposeBatch,
		Bytes:     3,
		SHA256:    "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356",
		CreatedAt: f.CreatedAt,
		ExpiresAt: expires.UTC().Round(0),
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Errorf("created file (-want +got):\n%s", diff)
	}

	if _, err := Open(dir, zerolog.Nop()); !errors.Is(err, ErrLocked) {
		t.Errorf("a second store opens: %v, want ErrLocked", err)
	}

	must(t, s.Close())
	s = openTest(t, dir)
	got, err := s.Get(f.ID)
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("file after reopening (-want +got):\n%s", diff)
	}

	if text := readFile(t, s, f.ID); text != "{}\n" {
		t.Errorf("data %q", text)
	}

	must(t, s.Delete(f.ID))
	if err := s.Delete(f.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("second Delete: %v, want ErrNotFound", err)
	}

	entries, err := os.ReadDir(dir + "/files")
	must(t, err)
	if len(entries) > 0 {
		t.Errorf("left after Delete: %v", entries)
	}
}

func TestUpload(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	s := openTest(t, dir)

	up, err := s.CreateUpload(Upload{
		Owner:            "key",
		Filename:         "in.jsonl",
		Purpose:          PurposeBatch,
		MimeType:         "text/jsonl",
		Bytes:            6,
		FileExpiresAfter: time.Hour,
	})

	must(t, err)

	second, err := s.AddPart(t.Context(), up.ID, strings.NewReader("def"))
	must(t, err)
	first, err := s.AddPart(t.Context(), up.ID, strings.NewReader("abc"))
	must(t, err)
	dropped, err := s.AddPart(t.Context(), up.ID, bytes.NewReader(nil))
	must(t, err)

	must(t, s.Close())
	s = openTest(t, dir)

	for _, tt := range []struct {
		parts []string
		md5   string
		want  PartsError
	}{
		{[]string{first.ID}, "", PartsError{
			"part_ids", "the parts have 3 bytes together, but the upload was created with 6 bytes: " +
				"send the missing bytes as further parts, or create an upload with that size",
		}},
		{[]string{first.ID, first.ID}, "", PartsError{"part_ids", "the part " + first.ID + " is named twice"}},
		{[]string{"../x"}, "", PartsError{"part_ids", "the upload " + up.ID + ` has no part "../x"`}},
		{
			[]string{first.ID, second.ID}, "00",
			PartsError{"md5", "the parts have the MD5 e80b5017098950fc58aad83c8c14978e together, not 00"},
		},
	} {
		_, err := s.CompleteUpload(t.Context(), up.ID, tt.parts, tt.md5)
		var got *PartsError
		if !errors.As(err, &got) || *got != tt.want {
			t.Errorf("complete with %v: %v, want %v", tt.parts, err, tt.want)
		}
	}

	order := []string{first.ID, dropped.ID, second.ID}
	done, err := s.CompleteUpload(t.Context(), up.ID, order, "E80B5017098950FC58AAD83C8C14978E")
	must(t, err)
	if done.Status != UploadCompleted || done.File == nil {
		t.Fatalf("completed upload: %+v", done)
	}

	if text := readFile(t, s, done.File.ID); text != "abcdef" {
		t.Errorf("file %q", text)
	}

	if want := done.File.CreatedAt.Add(time.Hour); !done.File.ExpiresAt.Equal(want) {
		t.Errorf("the file expires at %v, want %v", done.File.ExpiresAt, want)
	}

	must(t, s.Close())
	s = openTest(t, dir)

	again, err := s.CompleteUpload(t.Context(), up.ID, order, "e80b5017098950fc58aad83c8c14978e")
	must(t, err)
	if diff := cmp.Diff(done, again); diff != "" {
		t.Errorf("completed again (-first +second):\n%s", diff)
	}

	if _, err := s.AddPart(t.Context(), up.ID, strings.NewReader("g")); !errors.Is(err, ErrUploadEnded) {
		t.Errorf("AddPart after the end: %v", err)
	}

	if _, err := s.CancelUpload(up.ID); !errors.Is(err, ErrUploadEnded) {
		t.Errorf("CancelUpload after the end: %v", err)
	}

	if n := len(s.List()); n != 1 {
		t.Errorf("%d files, want 1", n)
	}
}

// A file whose data was removed by hand has no content.
func TestDataRemovedByHand(t *testing.T) {
	t.Parallel()

	s := openTest(t, t.TempDir())
	f, err := s.Create(t.Context(), File{}, strings.NewReader("abc"))
	must(t, err)
	path, err := s.Path(f.ID)
	must(t, err)
	must(t, os.Remove(path))

	if _, _, err := s.Open(f.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("Open: %v", err)
	}
	if _, err := s.Path(f.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("Path: %v", err)
	}

	must(t, s.Delete(f.ID))
}
