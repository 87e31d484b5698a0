package upload

import (
	"bytes"
	"context"
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
	return io.NopCloser(bytes.NewReader(s.objects[key])), nil
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
		done := make(chan struct{})
		go func() { defer close(done); target.Follow(ctx, "r1", j.Size()) }()
		return func() { cancel(); <-done }
	}

	await := func() {
		select {
		case <-s.changed:
		case <-time.After(10 * time.Second):
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

	deadline := time.Now().Add(10 * time.Second)
	for !bytes.Equal(s.lockedJoin(), want) {
		if time.Now().After(deadline) {
			t.Fatal("a piece that is not of the journal stays")
		}
		time.Sleep(time.Millisecond)
	}

	stop()
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
	s.objects[target.pieceKey(0)] = []byte("piece")

	for i, want := range []int{3, 0} {
		if n, err := target.Finish(t.Context(), meta); err != nil || n != want {
			t.Errorf("Finish %d copied %d files, want %d: %v", i, n, want, err)
		}
	}

	if list, _ := s.List(t.Context(), ""); len(list) != 3 {
		t.Errorf("the store has %s", fmt.Sprint(list))
	}
}
