package upload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/proto"
)

// memoryStore is a store in memory.
type memoryStore struct {
	// mu guards the fields below.
	mu       sync.Mutex
	objects  map[string][]byte
	metadata map[string]map[string]string
	// fails, if not nil, is the error of every call that writes.
	fails error
	// cut is the key of an object whose last byte is not sent.
	cut string
	// changed is signalled after each upload.
	changed chan struct{}
}

func newMemoryStore() *memoryStore {
	return &memoryStore{
		objects:  map[string][]byte{},
		metadata: map[string]map[string]string{},
		changed:  make(chan struct{}, 100),
	}
}

func (s *memoryStore) Stat(_ context.Context, key string) (objectstore.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, ok := s.objects[key]
	if !ok {
		return objectstore.Object{}, fs.ErrNotExist
	}
	return objectstore.Object{Key: key, Size: int64(len(text)), Metadata: s.metadata[key]}, nil
}

func (s *memoryStore) List(_ context.Context, prefix string) (list []objectstore.Object, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	for key, text := range s.objects {
		if strings.HasPrefix(key, prefix) {
			list = append(list, objectstore.Object{Key: key, Size: int64(len(text))})
		}
	}

	slices.SortFunc(list, func(a, b objectstore.Object) int { return strings.Compare(a.Key, b.Key) })

	return list, nil
}

func (s *memoryStore) Open(_ context.Context, key string) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.objects[key]
	if key == s.cut {
		text = text[:len(text)-1]
	}

	return io.NopCloser(bytes.NewReader(text)), nil
}

// add adds an object, with its SHA-256 if it is of a run.
func (s *memoryStore) add(key, text, run string) {
	s.objects[key], s.metadata[key] = []byte(text), map[string]string{}
	if run != "" {
		sum := sha256.Sum256([]byte(text))
		s.metadata[key] = map[string]string{runKey: run, sumKey: hex.EncodeToString(sum[:])}
	}
}

func (s *memoryStore) Upload(
	_ context.Context, key string, file io.ReaderAt, size int64, metadata map[string]string,
) error {
	text, err := io.ReadAll(io.NewSectionReader(file, 0, size))
	if err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	if s.fails != nil {
		return s.fails
	}

	s.objects[key], s.metadata[key] = text, metadata
	s.changed <- struct{}{}

	return nil
}

func (s *memoryStore) Create(
	ctx context.Context, key string, file io.ReaderAt, size int64, metadata map[string]string,
) error {
	if _, err := s.Stat(ctx, key); err == nil {
		return fs.ErrExist
	}
	return s.Upload(ctx, key, file, size, metadata)
}

func (s *memoryStore) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		return s.fails
	}
	delete(s.objects, key)
	return nil
}

func (s *memoryStore) AbortUploads(context.Context, string, func(string) bool) error { return nil }

// joined returns the objects with a prefix in the order of their keys, as one text.
func (s *memoryStore) joined(prefix string) (text []byte) {
	list, _ := s.List(context.Background(), prefix)
	for _, o := range list {
		text = append(text, s.objects[o.Key]...)
	}
	return text
}

func newTestTarget(t *testing.T, s Store, dir string) *Target {
	t.Helper()

	return New(Config{
		Store:     s,
		URL:       "s3://bucket/dir/out",
		Key:       "dir/out",
		Local:     output.Prefix(filepath.Join(dir, "out")),
		PieceSize: 1,
		PieceTime: time.Hour,
	})
}

// TestFollow copies a journal in pieces, is killed, and continues after the tail of the journal
// was cut off.
func TestFollow(t *testing.T) {
	t.Parallel()

	s, dir := newMemoryStore(), t.TempDir()
	target := newTestTarget(t, s, dir)
	j, err := journal.Create(target.Local.Journal(), proto.Manifest{Run: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()

	follow := func(target *Target) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- target.Follow(ctx, "r1", j.Size()) }()

		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}

	await := func() {
		select {
		case <-s.changed:
		case <-time.After(time.Minute):
			t.Fatal("no piece is copied")
		}
	}

	stop := follow(target)
	await()

	for range 3 {
		if err := j.Append(&journal.Frame{}); err != nil {
			t.Fatal(err)
		}
		target.Synced(j.Size())
		await()
	}

	stop()

	want, err := os.ReadFile(target.Local.Journal())
	if err != nil {
		t.Fatal(err)
	}

	if got := s.joined("dir/out.part/"); !bytes.Equal(got, want) {
		t.Fatalf("the pieces have %d bytes, the journal has %d", len(got), len(want))
	}

	// The store has a piece that the disk has lost, and one that differs.
	s.objects[target.pieceKey(int64(len(want)))] = []byte("lost")
	s.metadata[target.pieceKey(int64(len(want)))] = map[string]string{runKey: "r1", sumKey: "other"}
	stop = follow(newTestTarget(t, s, dir))

	deadline := time.Now().Add(time.Minute)
	for !bytes.Equal(s.lockedJoin(), want) {
		if time.Now().After(deadline) {
			t.Fatal("a piece that is not of the journal stays")
		}
		time.Sleep(time.Millisecond)
	}

	stop()
}

// racingStore has an object that the first List does not see yet.
type racingStore struct {
	*memoryStore

	listed bool
}

func (s *racingStore) List(ctx context.Context, prefix string) ([]objectstore.Object, error) {
	if !s.listed {
		s.listed = true
		return nil, nil
	}
	return s.memoryStore.List(ctx, prefix)
}

// TestFollowForeign ends a run whose output another run has, which began at the same time.
func TestFollowForeign(t *testing.T) {
	t.Parallel()

	for _, race := range []bool{false, true} {
		t.Run(fmt.Sprintf("race=%v", race), func(t *testing.T) {
			t.Parallel()

			s, dir := newMemoryStore(), t.TempDir()
			target := newTestTarget(t, &racingStore{s, !race}, dir)
			j, err := journal.Create(target.Local.Journal(), proto.Manifest{Run: "r1"})
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()

			s.add(target.pieceKey(0), "piece", "r2")

			err = target.Follow(t.Context(), "r1", j.Size())
			if err == nil || !strings.Contains(err.Error(), "0000000000000000.zst belongs to run r2") || exit.Hint(err) == "" {
				t.Errorf("Follow: %v", err)
			}

			if string(s.objects[target.pieceKey(0)]) != "piece" {
				t.Error("the piece of the other run is replaced")
			}
		})
	}
}

// TestFollowLatePiece continues when the piece of a process of the same run arrives after its death.
func TestFollowLatePiece(t *testing.T) {
	t.Parallel()

	s, dir := newMemoryStore(), t.TempDir()
	target := newTestTarget(t, &racingStore{memoryStore: s}, dir)
	j, err := journal.Create(target.Local.Journal(), proto.Manifest{Run: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()

	s.add(target.pieceKey(0), "late", "r1")

	f := &follower{target: target, run: "r1", size: j.Size()}
	for range 2 {
		if err := f.copyPiece(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	want, err := os.ReadFile(target.Local.Journal())
	if err != nil {
		t.Fatal(err)
	}

	if got := s.lockedJoin(); !bytes.Equal(got, want) {
		t.Errorf("the pieces have %d bytes, the journal has %d", len(got), len(want))
	}
}

func (s *memoryStore) lockedJoin() []byte {
	list, _ := s.List(context.Background(), "dir/out.part/")
	s.mu.Lock()
	defer s.mu.Unlock()

	var text []byte
	for _, o := range list {
		text = append(text, s.objects[o.Key]...)
	}

	return text
}

// TestPrepareRefuses refuses objects of others before anything is written.
func TestPrepareRefuses(t *testing.T) {
	t.Parallel()

	for key, owner := range map[string]string{
		"dir/out.jsonl.zst":                 "",
		"dir/out.errors.jsonl.zst":          "other",
		"dir/out.meta.json":                 "",
		"dir/out.part/0000000000000000.zst": "other",
		"dir/out.csv":                       "",
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()

			s, dir := newMemoryStore(), t.TempDir()
			s.objects[key], s.metadata[key] = []byte("x"), map[string]string{}
			if owner != "" {
				s.metadata[key][runKey] = owner
			}

			target := newTestTarget(t, s, dir)
			target.Tables = []string{filepath.Join(dir, "out.csv")}

			err := target.Prepare(t.Context())
			if err == nil || !strings.Contains(err.Error(), "s3://bucket/"+key) || exit.Hint(err) == "" {
				t.Errorf("Prepare: %v", err)
			}

			if len(s.objects) != 1 || string(s.objects[key]) != "x" {
				t.Errorf("the store has changed: %d objects", len(s.objects))
			}
		})
	}
}

// TestFinish fails at a store that fails, and copies what is missing the second time, the
// metadata last.
func TestFinish(t *testing.T) {
	t.Parallel()

	s, dir := newMemoryStore(), t.TempDir()
	target := newTestTarget(t, s, dir)
	for _, path := range []string{target.Local.Results(), target.Local.Meta(), target.Local.ReportHTML()} {
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	meta := &metadata.Run{}
	meta.TestID = "r1"

	s.fails = errors.New("503")
	if _, err := target.Finish(t.Context(), meta); exit.Code(err) != exit.CodeUnreachable ||
		!strings.Contains(exit.Hint(err), "uploads what is missing") {
		t.Errorf("a store that fails: %v", err)
	}

	s.fails = nil
	s.add(target.pieceKey(0), "piece", "r1")
	s.add(target.tryKey(), "try", "")
	s.add("dir/out.part/notes.txt", "of a person", "")

	for i, want := range []int{3, 0} {
		if n, err := target.Finish(t.Context(), meta); err != nil || n != want {
			t.Errorf("Finish %d copied %d files, want %d: %v", i, n, want, err)
		}
	}

	list, _ := s.List(t.Context(), "")
	if len(list) != 4 || s.objects["dir/out.part/notes.txt"] == nil {
		t.Errorf("the store has %s", fmt.Sprint(list))
	}
}

// TestForeignPieces keeps the pieces of another run, wherever they stand.
func TestForeignPieces(t *testing.T) {
	t.Parallel()

	s, dir := newMemoryStore(), t.TempDir()
	target := newTestTarget(t, s, dir)
	if err := os.WriteFile(target.Local.Journal(), []byte("journal"), 0o600); err != nil {
		t.Fatal(err)
	}

	s.add(target.pieceKey(0), "another", "r1")
	s.add(target.pieceKey(7), "text", "r2")

	journal, err := os.Open(target.Local.Journal())
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()

	meta := &metadata.Run{}
	meta.TestID = "r1"

	_, errMatch := target.matchPieces(t.Context(), journal, 7, "r1")
	errFinish := target.removeLeftovers(t.Context(), meta)
	for _, err := range []error{errMatch, errFinish} {
		if err == nil || !strings.Contains(err.Error(), "0000000000000007.zst belongs to run r2") {
			t.Errorf("the error is %v", err)
		}
	}

	if len(s.objects) != 2 {
		t.Errorf("%d objects are left of 2", len(s.objects))
	}
}

// TestDownloadDamaged refuses objects that are not as they were uploaded, and leaves no file.
func TestDownloadDamaged(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		key    string
		change func(s *memoryStore, key string)
		want   string
	}{
		"other bytes": {
			"dir/out.jsonl.zst",
			func(s *memoryStore, key string) { s.objects[key] = []byte("resulte") },
			"s3://bucket/dir/out.jsonl.zst is damaged",
		},
		"cut": {
			"dir/out.jsonl.zst",
			func(s *memoryStore, key string) { s.cut = key },
			"s3://bucket/dir/out.jsonl.zst has 7 bytes, and the store sends 6",
		},
		"a piece with other bytes": {
			"dir/out.part/0000000000000000.zst",
			func(s *memoryStore, key string) { s.objects[key] = []byte("resulte") },
			"s3://bucket/dir/out.part/0000000000000000.zst is damaged",
		},
		"a cut piece": {
			"dir/out.part/0000000000000000.zst",
			func(s *memoryStore, key string) { s.cut = key },
			"has 7 bytes, and the store sends 6",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s, dir := newMemoryStore(), t.TempDir()
			cfg := newTestTarget(t, s, dir).Config
			s.add(test.key, "results", "r1")

			if err := Download(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{cfg.Local.Results(), cfg.Local.Journal()} {
				_ = os.Remove(path) // one of them is there
			}

			test.change(s, test.key)
			err := Download(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) || exit.Hint(err) == "" {
				t.Errorf("Download: %v, want %q", err, test.want)
			}

			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("the files %v are left", left)
			}
		})
	}
}

// TestTablesOfMetadata takes only tables of the output from metadata, which may come from a store.
func TestTablesOfMetadata(t *testing.T) {
	t.Parallel()

	target := newTestTarget(t, newMemoryStore(), "/state/outputs/0")
	meta := &metadata.Run{}
	for _, name := range []string{
		"out.csv", "out-00000-of-00002.parquet", "out.jsonl.gz", // these are tables
		"", ".", "..", "table", "out.meta.json", "out.jsonl.zst", "out.errors.jsonl.zst", "other.csv", ".csv", "../out.csv",
		"x/out.csv", "/state/outputs/0/out.csv", "other-00000-of-00002.csv",
	} {
		meta.Test.Tables = append(meta.Test.Tables, metadata.TableFile{File: name})
	}

	want := []string{
		"/state/outputs/0/out.csv", "/state/outputs/0/out-00000-of-00002.parquet", "/state/outputs/0/out.jsonl.gz",
	}
	if got := target.tablesOf(meta); !slices.Equal(got, want) {
		t.Errorf("the tables are %q, want %q", got, want)
	}
}

// writeMeta writes the local metadata of a run with some answers, retries and an end.
func writeMeta(t *testing.T, path string, answers, retries int, end time.Time) *metadata.Run {
	t.Helper()

	meta := &metadata.Run{TestID: "r1", Manifest: &proto.Manifest{Schema: proto.ManifestSchema, Run: "r1"}}
	meta.Manifest.Retries, meta.Manifest.EndedAt = retries, &end
	meta.Results.SuccessCount = answers
	text, err := json.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}

	return meta
}

// TestNewerInStore does not replace the answers that another machine has added to a run.
func TestNewerInStore(t *testing.T) {
	t.Parallel()

	end := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, tt := range map[string]struct {
		answers int
		end     time.Time
		want    string
	}{
		"more answers":     {10, end.Add(time.Hour), "with 10 answered requests, and the files on this machine have 8"},
		"a later end":      {8, end.Add(time.Hour), "with 8 answered requests, and the files on this machine are older"},
		"the same":         {8, end, ""},
		"an earlier state": {7, end.Add(-time.Hour), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s, dir := newMemoryStore(), t.TempDir()
			other := newTestTarget(t, s, t.TempDir())
			theirs := writeMeta(t, other.Local.Meta(), tt.answers, 1, tt.end)
			if _, err := other.Finish(t.Context(), theirs); err != nil {
				t.Fatal(err)
			}
			before := string(s.objects["dir/out.meta.json"])

			target := newTestTarget(t, s, dir)
			meta := writeMeta(t, target.Local.Meta(), 8, 0, end)
			list, _ := s.List(t.Context(), "")
			errBegin := target.checkNewer(t.Context(), list, localRun{id: "r1", complete: true})
			_, errEnd := target.Finish(t.Context(), meta)

			if tt.want == "" {
				if errBegin != nil || errEnd != nil {
					t.Errorf("the errors are %v and %v", errBegin, errEnd)
				}
				return
			}

			for _, err := range []error{errBegin, errEnd} {
				if err == nil || !strings.Contains(err.Error(), tt.want) || exit.Code(err) != exit.CodeError ||
					!strings.Contains(exit.Hint(err), "remove the local copy, "+dir) ||
					strings.Contains(exit.Hint(err), "the same command") {
					t.Errorf("error %v, exit code %d, hint %q", err, exit.Code(err), exit.Hint(err))
				}
			}

			if string(s.objects["dir/out.meta.json"]) != before {
				t.Error("the metadata in the store was replaced")
			}
		})
	}
}
