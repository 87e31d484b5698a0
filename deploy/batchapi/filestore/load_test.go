package filestore

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// Ids of the tests.
const (
	testFile   = "file-0jqm5q1ouwoabcdefghij234"
	testUpload = "upload_0jqm5q1ouwoabcdefghij234"
	testPart   = "part_0jqm5q1ouwoabcdefghij234"
)

// Open removes what a crash has left, names metadata that it cannot read, and leaves everything
// else as it is.
func TestOpenFolder(t *testing.T) {
	t.Parallel()

	const (
		file   = "files/" + testFile
		upload = "uploads/" + testUpload
		parts  = upload + "/" + testPart
		record = `{"id":"` + testFile + `","bytes":3}`
	)

	pending := func(status string) string { return `{"id":"` + testUpload + `","status":"` + status + `"}` }

	for _, tt := range []struct {
		name    string
		files   map[string]string
		removed []string
		renamed map[string]string
		files1  int    // in the list
		log     string // in the log, with the name of the file
	}{
		{
			name:   "a file",
			files:  map[string]string{file: "abc", file + ".json": record},
			files1: 1,
		},
		{
			name:   "metadata of a later version",
			files:  map[string]string{file: "abc", file + ".json": `{"id":"` + testFile + `","bytes":3,"color":"red"}`},
			files1: 1,
		},
		{
			name: "the rest of a crash",
			files: map[string]string{
				"files/" + testFile + ".tmp":      "abc",
				"files/" + testFile + ".json.tmp": "{",
				upload + ".json.tmp":              "{",
				"uploads/" + testPart + ".tmp":    "abc",
			},
			removed: []string{
				"files/" + testFile + ".tmp", "files/" + testFile + ".json.tmp",
				upload + ".json.tmp", "uploads/" + testPart + ".tmp",
			},
		},
		{
			name:    "a file without its name",
			files:   map[string]string{file + ".tmp": "abc", file + ".json": record},
			renamed: map[string]string{file + ".tmp": file},
			files1:  1,
		},
		{
			name:    "a file beside the rest of a crash",
			files:   map[string]string{file: "abc", file + ".tmp": "ab", file + ".json": record},
			removed: []string{file + ".tmp"},
			files1:  1,
		},
		{
			name:  "a file without metadata",
			files: map[string]string{file: "abc"},
			log:   file + `","message":"a file has no metadata`,
		},
		{
			name:  "parts without metadata",
			files: map[string]string{parts: "abc"},
			log:   upload + `","message":"the parts of an upload have no metadata`,
		},
		{
			name:    "parts of an upload that has ended",
			files:   map[string]string{upload + ".json": pending(UploadCancelled), parts: "abc"},
			removed: []string{parts},
		},
		{
			name:  "a pending upload",
			files: map[string]string{upload + ".json": pending(UploadPending), parts: "abc"},
		},
		{
			name: "foreign files",
			files: map[string]string{
				"files/notes.txt": "", "files/notes.tmp": "", "files/file-1.json": "", "files/file-x": "",
				"uploads/notes.txt": "", "uploads/notes/part": "", "notes.txt": "",
			},
		},
		{
			name:  "damaged metadata",
			files: map[string]string{file: "abc", file + ".json": `{"id":`},
			log:   testFile + ".json",
		},
		{
			name:  "metadata of a later format",
			files: map[string]string{file: "abc", file + ".json": `{"version":2,"id":"` + testFile + `","bytes":3}`},
			log:   "it is of a later promptmill (version 2, this one reads 1)",
		},
		{
			name:  "metadata of another file",
			files: map[string]string{file: "abc", file + ".json": `{"id":"file-1","bytes":3}`},
			log:   testFile + ".json",
		},
		{
			name:  "empty metadata",
			files: map[string]string{file: "abc", file + ".json": "null"},
			log:   testFile + ".json",
		},
		{
			name:  "missing data",
			files: map[string]string{file + ".json": record},
			log:   testFile + ".json",
		},
		{
			name:  "data that was cut off",
			files: map[string]string{file: "ab", file + ".json": record},
			log:   testFile + ".json",
		},
		{
			name:  "a damaged upload",
			files: map[string]string{upload + ".json": "{}", parts: "abc"},
			log:   testUpload + ".json",
		},
		{
			name:  "an upload in an unknown state",
			files: map[string]string{upload + ".json": pending("lost"), parts: "abc"},
			log:   testUpload + ".json",
		},
		{
			name:  "a completed upload without its file",
			files: map[string]string{upload + ".json": pending(UploadCompleted), parts: "abc"},
			log:   testUpload + ".json",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			// A whole file is beside the others, and stays so.
			dir := t.TempDir()
			s := openTest(t, dir)
			f, err := s.Create(t.Context(), File{}, strings.NewReader("whole"))
			must(t, err)
			must(t, s.Close())

			want := map[string]bool{"lock": true, "files/" + f.ID: true, "files/" + f.ID + ".json": true}
			for path, text := range tt.files {
				want[path] = true
				path = filepath.Join(dir, path)
				must(t, os.MkdirAll(filepath.Dir(path), 0o700))
				must(t, os.WriteFile(path, []byte(text), 0o600))
			}

			for _, path := range tt.removed {
				delete(want, path)
			}

			for from, to := range tt.renamed {
				delete(want, from)
				want[to] = true
			}

			var log bytes.Buffer
			s, err = Open(dir, zerolog.New(&log))
			must(t, err)
			defer s.Close()

			if n := len(s.List()); n != tt.files1+1 {
				t.Errorf("%d files, want %d", n, tt.files1+1)
			}

			if text := readFile(t, s, f.ID); text != "whole" {
				t.Errorf("the whole file is %q", text)
			}

			got := map[string]bool{}
			for _, path := range listTree(t, dir) {
				got[path] = true
			}

			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("folder (-want +got):\n%s", diff)
			}

			if tt.log == "" && log.Len() > 0 || !strings.Contains(log.String(), tt.log) {
				t.Errorf("log %q, want one with %q", log.String(), tt.log)
			}
		})
	}
}

// A store that another user has made read-only, or a file in place of a folder, is refused.
func TestOpenRefused(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "files"), nil, 0o600))

	_, err := Open(dir, zerolog.Nop())
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "files")) {
		t.Errorf("Open: %v, want an error with the path", err)
	}
}

// Whatever a record on the disk says, the store opens, stays in its folder, and keeps other files.
func FuzzRecord(f *testing.F) {
	for _, status := range []string{UploadPending, UploadCompleted, UploadCancelled, UploadExpired, "?"} {
		data, err := json.Marshal(uploadRecord{Upload: Upload{
			ID:     testUpload,
			Status: status,
			File:   &File{ID: "../../secret"},
		}})

		must(f, err)
		f.Add(data)
	}

	f.Add([]byte(`{"id":"` + testFile + `","bytes":3,"created_at":"2026-01-01T00:00:00Z","upload":"` +
		testUpload + `"}`))
	f.Add([]byte(`{"id":"../../secret"}`))

	f.Fuzz(func(t *testing.T, record []byte) {
		dir, secret := newSecret(t)
		for _, folder := range []string{"files", "uploads", "uploads/" + testUpload} {
			must(t, os.MkdirAll(filepath.Join(dir, folder), 0o700))
		}

		must(t, os.WriteFile(filepath.Join(dir, "files", testFile), []byte("abc"), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "uploads", testUpload, testPart), []byte("abc"), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "files", testFile+".json"), record, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "uploads", testUpload+".json"), record, 0o600))

		s, err := Open(dir, zerolog.Nop())
		must(t, err)
		defer s.Close()

		for _, file := range s.List() {
			if file.ID != testFile || readFile(t, s, file.ID) != "abc" {
				t.Errorf("file %+v", file)
			}
			must(t, s.Delete(file.ID))
		}

		for id := range s.uploads {
			s.CompleteUpload(t.Context(), id, []string{testPart}, "")
			s.CancelUpload(id)
		}

		secret(t)
	})
}

// Whatever a client sends as an id, nothing outside of the store is touched.
func FuzzIDs(f *testing.F) {
	for _, id := range []string{
		testFile, testUpload, testPart, "", ".", "..", "../secret", "../../secret", "/etc/passwd", "file-", "files",
		testFile + ".json", "file-../../../../../../secr", "file-0JQM5Q1OUWOABCDEFGHIJ234", "file-\x00", "lock",
	} {
		f.Add(id)
	}

	f.Fuzz(func(t *testing.T, id string) {
		dir, secret := newSecret(t)
		s := openTest(t, dir)
		file, err := s.Create(t.Context(), File{}, strings.NewReader("abc"))
		must(t, err)
		up, err := s.CreateUpload(Upload{})
		must(t, err)
		before := listTree(t, dir)

		_, getErr := s.Get(id)
		_, pathErr := s.Path(id)
		_, _, openErr := s.Open(id)
		_, uploadErr := s.GetUpload(id)
		_, partErr := s.AddPart(t.Context(), id, strings.NewReader("abc"))
		_, completeErr := s.CompleteUpload(t.Context(), id, nil, "")
		_, otherErr := s.CancelUpload(id)
		for _, err := range []error{getErr, pathErr, openErr, s.Delete(id), uploadErr, partErr, completeErr, otherErr} {
			if err != ErrNotFound { //nolint:errorlint // it has nothing to add
				t.Errorf("%q: %v, want ErrNotFound", id, err)
			}
		}

		if _, err := s.CompleteUpload(t.Context(), up.ID, []string{id}, ""); err == nil {
			t.Errorf("part %q: no error", id)
		}

		if isID(filePrefix, id) && (id == ".." || filepath.Base(id) != id) {
			t.Errorf("%q counts as an id, and is a path", id)
		}

		if diff := cmp.Diff(before, listTree(t, dir)); diff != "" {
			t.Errorf("folder (-before +after):\n%s", diff)
		}

		if text := readFile(t, s, file.ID); text != "abc" {
			t.Errorf("the file is %q", text)
		}

		secret(t)
	})
}

// newSecret returns a new folder for a store in a folder with a file, and a check that the file is
// as it was.
func newSecret(t testing.TB) (dir string, check func(testing.TB)) {
	t.Helper()

	parent := t.TempDir()
	path := filepath.Join(parent, "secret")
	must(t, os.WriteFile(path, []byte("secret"), 0o600))
	dir = filepath.Join(parent, "api")

	return dir, func(t testing.TB) {
		t.Helper()

		text, err := os.ReadFile(path)
		must(t, err)
		entries, err := os.ReadDir(parent)
		must(t, err)
		if string(text) != "secret" || len(entries) != 2 {
			t.Errorf("outside of the store: %q in %v", text, entries)
		}
	}
}
