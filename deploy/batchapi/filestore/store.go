package filestore

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/atomicfile"
)

var (
	// ErrLocked is returned when another process has the store open.
	ErrLocked = errors.New("another promptmill has the files of the batch API open")
	// ErrClosed is returned after [Store.Close] for calls that would change the store.
	ErrClosed = errors.New("the files of the batch API are closed")
)

// Store is an open store. It is safe for concurrent use.
type Store struct {
	filesDir   string
	uploadsDir string
	// others are folders whose disks keep their reserve too.
	others []string
	log    zerolog.Logger
	lock   *os.File
	ids    *idSource

	// ctx ends with Close, by stop.
	ctx  context.Context
	stop context.CancelCauseFunc

	// changing is held for reading by each call that changes the store, and for writing by Close.
	// It guards closed.
	changing sync.RWMutex
	closed   bool

	// mu guards the fields below.
	mu      sync.RWMutex
	files   map[string]*File
	order   []*File // by compareFiles; the files are never changed
	uploads map[string]*activeUpload
}

// recordSuffix ends the name of the file of metadata beside the data.
const recordSuffix = ".json"

// recordVersion is the version of the format of metadata.
const recordVersion = 1

// fileRecord is the metadata of a file on disk.
type fileRecord struct {
	File

	// Version is [recordVersion]. 0 means 1.
	Version int `json:"version,omitempty"`
	// Upload is the id of the upload that the file comes from; empty if none. The record
	// completes the upload, see [Store.CompleteUpload].
	Upload string `json:"upload,omitempty"`
	// Completion identifies the parts of the upload, see identifyCompletion.
	Completion string `json:"completion,omitempty"`
}

// Open opens the store in a folder, and makes the folder for this user alone. It removes the rest
// of operations that a crash has ended. Metadata that it cannot read is logged and left as it is,
// with its file, and so is data without metadata.
//
// The error wraps [ErrLocked] if another process has the store open.
//
// The others are folders of the server: the store takes no bytes while the disk of one has less than its
// reserve, see [files.CheckRoom].
func Open(dir string, log zerolog.Logger, others ...string) (*Store, error) {
	s, err := openStore(dir, log, time.Now)
	if err != nil {
		return nil, err
	}
	s.others = others

	return s, nil
}

// openStore is Open with a clock.
func openStore(dir string, log zerolog.Logger, now func() time.Time) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open the files of the batch API: %w", err)
	}

	s := &Store{
		filesDir:   filepath.Join(dir, "files"),
		uploadsDir: filepath.Join(dir, "uploads"),
		log:        log,
		ids:        &idSource{now: now},
		files:      map[string]*File{},
		uploads:    map[string]*activeUpload{},
	}

	s.ctx, s.stop = context.WithCancelCause(context.Background())

	for _, folder := range []string{s.filesDir, s.uploadsDir} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("open the files of the batch API: %w", err)
		}
	}

	s.lock, err = lockStore(dir)
	if err != nil {
		return nil, err
	}

	if err := errors.Join(atomicfile.SyncDir(s.filesDir), s.load()); err != nil {
		atomicfile.Unlock(s.lock)
		return nil, fmt.Errorf("open the files of the batch API: %w", err)
	}

	return s, nil
}

// lockStore takes the lock of a store.
func lockStore(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")

	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the files of the batch API: %w", err)
	}

	err = atomicfile.Lock(path, file)
	if errors.Is(err, atomicfile.ErrLocked) {
		return nil, fmt.Errorf("%w (%s)", ErrLocked, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the files of the batch API: %w", err)
	}

	return file, nil
}

// Close releases the folder. It waits for calls that change the store, and stops those that
// complete uploads.
func (s *Store) Close() error {
	s.stop(ErrClosed)

	s.changing.Lock()
	defer s.changing.Unlock()

	if s.closed {
		return nil
	}

	s.closed = true

	return atomicfile.Unlock(s.lock)
}

// beginChange begins a change of the store, which must end with endChange. The error is
// [ErrClosed].
func (s *Store) beginChange() error {
	s.changing.RLock()
	if s.closed {
		s.changing.RUnlock()
		return ErrClosed
	}

	return nil
}

// endChange ends a change of the store.
func (s *Store) endChange() { s.changing.RUnlock() }

// filePath returns the path of a file's data.
func (s *Store) filePath(id string) string { return filepath.Join(s.filesDir, id) }

// writeRecord writes metadata to a path, whole and durable.
func writeRecord(path string, record any) error {
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}

	file, err := atomicfile.Create(path, 0o600)
	if err != nil {
		return err
	}

	_, err = file.Write(append(data, '\n'))

	return file.Commit(err)
}

// compareFiles orders files by the time of their creation.
func compareFiles(a, b *File) int {
	return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
}

// insertFile puts a file into the index.
func (s *Store) insertFile(f File) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.files[f.ID] = &f
	i, _ := slices.BinarySearchFunc(s.order, &f, compareFiles)
	s.order = slices.Insert(s.order, i, &f)
}

// Get returns a file. The error is [ErrNotFound] if it is not there. A file that has expired is
// there until [Store.RemoveExpired] removes it.
func (s *Store) Get(id string) (File, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()

	f := s.files[id]
	if f == nil {
		return File{}, ErrNotFound
	}

	return *f, nil
}

// List returns all files, oldest first.
func (s *Store) List() []File {
	s.mu.RLock()
	defer s.mu.RUnlock()

	list := make([]File, len(s.order))
	for i, f := range s.order {
		list[i] = *f
	}

	return list
}

// Path returns the absolute path of a file's data. The error is [ErrNotFound] if the file is
// not there, or its data was removed by hand.
func (s *Store) Path(id string) (string, error) {
	if _, err := s.Get(id); err != nil {
		return "", err
	}

	path := s.filePath(id)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return "", ErrNotFound
	}

	return path, nil
}

// Open opens the data of a file for reading. The error is [ErrNotFound] if the file is not there, or
// its data was removed by hand, which is logged. The data can be read to its end even if the file is
// deleted meanwhile.
func (s *Store) Open(id string) (*os.File, File, error) {
	f, err := s.Get(id)
	if err != nil {
		return nil, File{}, err
	}

	data, err := os.Open(s.filePath(id))
	if errors.Is(err, os.ErrNotExist) { // deleted since
		if _, err := s.Get(id); err == nil {
			s.log.Error().Str("file", s.filePath(id)).Msg("the data of a file is not on the disk any more")
		}
		return nil, File{}, ErrNotFound
	}
	if err != nil {
		return nil, File{}, fmt.Errorf("open the file: %w", err)
	}

	return data, f, nil
}

// Delete removes a file. The error is [ErrNotFound] if the file is not there.
func (s *Store) Delete(id string) error {
	if err := s.beginChange(); err != nil {
		return err
	}

	defer s.endChange()

	if err := s.forgetFile(id); err != nil {
		return err
	}

	return s.removeData([]string{id})
}

// forgetFile removes the metadata of a file, and the file from the index. The data stays under a
// temporary name: data under its own name that has no metadata was not deleted, see load.
func (s *Store) forgetFile(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()

	f := s.files[id]
	if f == nil {
		return ErrNotFound
	}

	path := s.filePath(id)
	err := os.Rename(path, path+atomicfile.TempSuffix)
	if errors.Is(err, os.ErrNotExist) {
		err = nil // removed by hand
	}
	if err != nil {
		return fmt.Errorf("delete the file: %w", err)
	}

	if err := atomicfile.Unlink(path + recordSuffix); err != nil {
		return fmt.Errorf("delete the file: %w", errors.Join(err, os.Rename(path+atomicfile.TempSuffix, path)))
	}

	delete(s.files, id)
	if i, ok := slices.BinarySearchFunc(s.order, f, compareFiles); ok {
		s.order = slices.Delete(s.order, i, i+1)
	}

	return nil
}

// removeData makes the removal of metadata durable and removes the data. If it fails, [Open]
// removes the data.
func (s *Store) removeData(ids []string) error {
	if len(ids) == 0 {
		return nil
	}

	if err := atomicfile.SyncDir(s.filePath(ids[0])); err != nil {
		return fmt.Errorf("delete the file: %w", err)
	}

	var errs []error
	for _, id := range ids {
		errs = append(errs, atomicfile.Unlink(s.filePath(id)+atomicfile.TempSuffix))
	}

	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete the data of the file: %w", err)
	}

	return nil
}

// RemoveExpired removes the files that expire at now or earlier, except files that are in use, and
// the parts of uploads that have expired. It returns the removed files even if it returns an
// error.
func (s *Store) RemoveExpired(now time.Time, inUse func(id string) bool) ([]File, error) {
	if err := s.beginChange(); err != nil {
		return nil, err
	}

	defer s.endChange()

	var (
		removed []File
		ids     []string
		errs    []error
	)
	for _, f := range s.List() {
		if f.ExpiresAt.IsZero() || f.ExpiresAt.After(now) || inUse(f.ID) {
			continue
		}

		switch err := s.forgetFile(f.ID); {
		case err == nil:
			removed = append(removed, f)
			ids = append(ids, f.ID)
		case !errors.Is(err, ErrNotFound):
			errs = append(errs, err)
		}
	}

	errs = append(errs, s.removeData(ids), s.removeExpiredUploads(now))

	return removed, errors.Join(errs...)
}

// Usage returns the bytes on disk of each owner, in files and in parts of pending uploads.
func (s *Store) Usage() map[string]int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()

	usage := map[string]int64{}
	for _, f := range s.order {
		usage[f.Owner] += f.Bytes
	}

	for _, u := range s.uploads {
		for _, size := range u.parts {
			usage[u.record.Owner] += size
		}
	}

	return usage
}

// FindKeyed returns the latest file of an owner that a request with an idempotency key has made.
func (s *Store) FindKeyed(owner, key string) (File, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()

	for _, f := range slices.Backward(s.order) {
		if f.Owner == owner && f.IdempotencyKey == key {
			return *f, true
		}
	}

	return File{}, false
}

// FindTwin returns the latest twin of f without an idempotency key that was created at since or later.
// Clients repeat an upload if the answer does not come.
func (s *Store) FindTwin(f File, since time.Time) (File, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()

	for _, twin := range slices.Backward(s.order) {
		if twin.CreatedAt.Before(since) {
			break
		}

		if twin.IdempotencyKey == "" && twin.IsTwin(f) {
			return *twin, true
		}
	}

	return File{}, false
}
