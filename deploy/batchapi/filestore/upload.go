package filestore

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/collector/atomicfile"
)

const (
	// UploadLifetime is the time after which a pending upload expires.
	UploadLifetime = time.Hour

	// endedLifetime is the time for which an upload is known after its expiry, so that a
	// repeated call gets the same answer.
	endedLifetime = 24 * time.Hour
)

// PartsError is returned by [Store.CompleteUpload] for parts that do not make up the file.
type PartsError struct {
	// Param is the parameter that is wrong: part_ids or md5.
	Param string
	// Reason is one sentence.
	Reason string
}

// Error returns the reason.
func (e *PartsError) Error() string { return e.Reason }

// uploadRecord is the metadata of an upload on disk.
type uploadRecord struct {
	Upload

	// Version is [recordVersion]. 0 means 1.
	Version int `json:"version,omitempty"`
	// Completion identifies the parts of a completed upload, see identifyCompletion.
	Completion string `json:"completion,omitempty"`
}

// check returns an error for a record that the store has not written.
func (r *uploadRecord) check(id string) error {
	switch {
	case r.ID != id:
		return fmt.Errorf("it has the id %q", r.ID)
	case r.Status == UploadCompleted && r.File == nil:
		return errors.New("it is completed and has no file")
	case !slices.Contains([]string{UploadPending, UploadCompleted, UploadCancelled, UploadExpired}, r.Status):
		return fmt.Errorf("it has the status %q", r.Status)
	}

	return nil
}

// activeUpload is an upload in the index.
type activeUpload struct {
	// turn has room for one: who holds it may change the fields below, while Store.mu is locked.
	turn chan struct{}

	record uploadRecord
	// parts are the sizes of the parts, by their ids.
	parts map[string]int64
}

func newActiveUpload() *activeUpload {
	return &activeUpload{turn: make(chan struct{}, 1), parts: map[string]int64{}}
}

// at returns the upload as it is at a time.
func (u *activeUpload) at(now time.Time) Upload {
	upload := u.record.Upload
	if upload.Status == UploadPending && !now.Before(upload.ExpiresAt) {
		upload.Status = UploadExpired
	}
	return upload
}

// uploadPath returns the path of the folder of an upload's parts.
func (s *Store) uploadPath(id string) string { return filepath.Join(s.uploadsDir, id) }

// CreateUpload begins an upload with the owner, name, purpose, type, size and expiry of up.
// ExpiresAt defaults to [UploadLifetime] after the creation.
func (s *Store) CreateUpload(up Upload) (Upload, error) {
	if err := s.beginChange(); err != nil {
		return Upload{}, err
	}

	defer s.endChange()

	up.ID, up.CreatedAt = s.ids.next(uploadPrefix)
	up.Status, up.File = UploadPending, nil
	up.Filename = strings.ToValidUTF8(up.Filename, "\uFFFD")
	up.MimeType = strings.ToValidUTF8(up.MimeType, "\uFFFD")

	if up.ExpiresAt.IsZero() {
		up.ExpiresAt = up.CreatedAt.Add(UploadLifetime)
	}

	up.ExpiresAt = up.ExpiresAt.UTC().Round(0)

	u := newActiveUpload()
	u.record.Upload, u.record.Version = up, recordVersion

	path := s.uploadPath(up.ID) + recordSuffix
	if err := writeRecord(path, u.record); err != nil {
		atomicfile.Unlink(path) // it may be in its place, and only its folder was not synced

		return Upload{}, fmt.Errorf("create the upload: %w", err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	s.uploads[up.ID] = u

	return up, nil
}

// GetUpload returns an upload. The error is [ErrNotFound] if it is not there.
func (s *Store) GetUpload(id string) (Upload, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()

	u := s.uploads[id]
	if u == nil {
		return Upload{}, ErrNotFound
	}

	return u.at(s.ids.now()), nil
}

// takeUpload waits for the turn to change an upload, and begins a change of the store. The
// caller must call release.
func (s *Store) takeUpload(ctx context.Context, id string) (u *activeUpload, release func(), err error) {
	s.mu.RLock()
	u = s.uploads[id]
	s.mu.RUnlock()

	if u == nil {
		return nil, nil, ErrNotFound
	}

	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	case <-s.ctx.Done():
		return nil, nil, context.Cause(s.ctx)
	}

	if err := s.beginChange(); err != nil {
		<-u.turn
		return nil, nil, err
	}

	return u, func() {
		s.endChange()
		<-u.turn
	}, nil
}

// AddPart stores the bytes of r as a part of a pending upload, durably. It leaves nothing behind if
// r fails or ctx ends. Parts may come in any order and at the same time.
//
// The error is [ErrNotFound] or [ErrUploadEnded], or wraps the error of r, or syscall.ENOSPC if
// the disk is full.
func (s *Store) AddPart(ctx context.Context, uploadID string, r io.Reader) (Part, error) {
	up, err := s.GetUpload(uploadID)
	if err != nil {
		return Part{}, err
	}

	if up.Status != UploadPending {
		return Part{}, ErrUploadEnded
	}

	// Not in the folder of the upload, which is removed when the upload ends.
	temp, err := s.createTemp(s.uploadsDir, partPrefix)
	if err != nil {
		return Part{}, fmt.Errorf("store the part: %w", err)
	}

	size, err := copyStream(ctx, newRoomWriter(temp, s), r, io.Discard)
	if err == nil {
		err = syncTemp(temp)
	}
	if err != nil {
		discardTemp(temp)
		return Part{}, err
	}

	return s.commitPart(ctx, uploadID, temp, size)
}

// commitPart puts a part that is on the disk into its upload, or removes it.
func (s *Store) commitPart(ctx context.Context, uploadID string, temp *os.File, size int64) (Part, error) {
	u, release, err := s.takeUpload(ctx, uploadID)
	if err == nil {
		defer release()

		if u.at(s.ids.now()).Status != UploadPending {
			err = ErrUploadEnded
		} else {
			err = s.makeUploadFolder(uploadID)
		}
	}
	if err != nil {
		discardTemp(temp)
		return Part{}, err
	}

	part := Part{UploadID: uploadID, Bytes: size}
	part.ID, part.CreatedAt = s.ids.next(partPrefix)
	if err := commitTemp(temp, filepath.Join(s.uploadPath(uploadID), part.ID)); err != nil {
		return Part{}, fmt.Errorf("store the part: %w", err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	u.parts[part.ID] = size

	return part, nil
}

// makeUploadFolder makes the folder of an upload's parts, unless it exists, and makes it durable.
func (s *Store) makeUploadFolder(id string) error {
	err := os.Mkdir(s.uploadPath(id), 0o700)
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = atomicfile.SyncDir(s.uploadPath(id)) // an earlier call may have failed here
	}
	if err != nil {
		return fmt.Errorf("store the part: %w", err)
	}

	return nil
}

// CompleteUpload makes the file of an upload from its parts in the order of partIDs. Parts that are
// not in partIDs are dropped. md5sum is the MD5 of the whole file, in hexadecimal digits; it is
// not checked if it is empty. The parts must have as many bytes together as the upload was created
// with. The call takes as much space on the disk as the file, until it returns.
//
// Whatever ends the process, the upload is either pending with all of its parts afterwards, or
// completed with its file. A repeated call with the same parts returns the same file, even if that
// was deleted since.
//
// ctx is for the time in which other calls work at the upload. The end of ctx does not stop this
// call from completing the upload: a client that has waited too long repeats its request, and
// would start from the beginning each time.
//
// The error is [ErrNotFound], [ErrUploadEnded] or a [*PartsError], or wraps syscall.ENOSPC if the
// disk is full.
func (s *Store) CompleteUpload(ctx context.Context, id string, partIDs []string, md5sum string) (Upload, error) {
	u, release, err := s.takeUpload(ctx, id)
	if err != nil {
		return Upload{}, err
	}
	defer release()

	md5sum = strings.ToLower(md5sum)
	completion := identifyCompletion(partIDs, md5sum)

	up := u.at(s.ids.now())
	if up.Status == UploadCompleted && u.record.Completion == completion {
		return up, nil
	}

	if up.Status != UploadPending {
		return Upload{}, ErrUploadEnded
	}

	if err := u.checkParts(partIDs); err != nil {
		return Upload{}, err
	}

	if err := s.checkRoom(up.Bytes); err != nil {
		return Upload{}, err
	}

	p, sum, err := s.assembleParts(id, partIDs, md5sum != "")
	if err != nil {
		return Upload{}, err
	}
	defer p.Abort()

	if sum != md5sum {
		return Upload{}, &PartsError{"md5", fmt.Sprintf("the parts have the MD5 %s together, not %s", sum, md5sum)}
	}

	rec := fileRecord{
		File: File{
			Owner:        up.Owner,
			Filename:     up.Filename,
			Purpose:      up.Purpose,
			ExpiresAfter: up.FileExpiresAfter,
		},
		Upload:     id,
		Completion: completion,
	}

	rec.File, err = p.commitRecord(rec)
	if err != nil {
		return Upload{}, err
	}

	s.recordCompletion(u, rec)

	return u.at(s.ids.now()), nil
}

// identifyCompletion returns a text that differs for other parts or another MD5.
func identifyCompletion(partIDs []string, md5sum string) string {
	sum := sha256.Sum256([]byte(strings.Join(partIDs, ",") + "," + md5sum))
	return hex.EncodeToString(sum[:])
}

// checkParts checks that an upload can be completed with parts.
func (u *activeUpload) checkParts(partIDs []string) error {
	id := u.record.ID
	seen := map[string]bool{}
	total := int64(0)
	for _, part := range partIDs {
		size, ok := u.parts[part]
		if !ok {
			return &PartsError{"part_ids", fmt.Sprintf("the upload %s has no part %q", id, part)}
		}

		if seen[part] {
			return &PartsError{"part_ids", fmt.Sprintf("the part %s is named twice", part)}
		}

		seen[part] = true
		total += size
	}

	if total != u.record.Bytes {
		remedy := "send the missing bytes as further parts"
		if total > u.record.Bytes {
			remedy = "name fewer parts"
		}

		return &PartsError{
			"part_ids", fmt.Sprintf("the parts have %d bytes together, but the upload was created with %d bytes: "+
				"%s, or create an upload with that size", total, u.record.Bytes, remedy),
		}
	}

	return nil
}

// assembleParts makes a pending file from parts, and returns its MD5 if that is wanted.
func (s *Store) assembleParts(id string, partIDs []string, withMD5 bool) (
	p *Pending, md5sum string, err error,
) {
	temp, err := s.createTemp(s.filesDir, filePrefix)
	if err != nil {
		return nil, "", fmt.Errorf("store the file: %w", err)
	}

	defer func() {
		if err != nil {
			discardTemp(temp)
		}
	}()

	paths := make([]string, len(partIDs))
	for i, part := range partIDs {
		paths[i] = filepath.Join(s.uploadPath(id), part)
	}

	sum, check := sha256.New(), md5.New()
	group, ctx := errgroup.WithContext(s.ctx)
	group.Go(func() error { return appendParts(ctx, temp, paths) })
	group.Go(func() error { return hashParts(ctx, sum, paths) })

	if withMD5 {
		group.Go(func() error { return hashParts(ctx, check, paths) })
	}

	if err := group.Wait(); err != nil {
		return nil, "", fmt.Errorf("complete the upload: %w", err)
	}

	info, err := temp.Stat()
	if err == nil {
		err = temp.Sync()
	}
	if err != nil {
		return nil, "", fmt.Errorf("complete the upload: %w", err)
	}

	if withMD5 {
		md5sum = hex.EncodeToString(check.Sum(nil))
	}

	return &Pending{
		store: s,
		temp:  temp,
		size:  info.Size(),
		sum:   hex.EncodeToString(sum.Sum(nil)),
	}, md5sum, nil
}

// appendStep is the number of bytes that are copied before the context is looked at.
const appendStep = 64 << 20

// appendParts appends files to a file. The kernel copies them (copy_file_range), and file systems
// that share blocks between files copy nothing.
func appendParts(ctx context.Context, w *os.File, paths []string) error {
	for _, path := range paths {
		part, err := os.Open(path)
		if err != nil {
			return err
		}

		for n := int64(1); n > 0 && err == nil; {
			if err = context.Cause(ctx); err == nil {
				n, err = io.Copy(w, io.LimitReader(part, appendStep))
			}
		}

		part.Close()
		if err != nil {
			return err
		}
	}

	return nil
}

// hashParts hashes files one after the other.
func hashParts(ctx context.Context, h hash.Hash, paths []string) error {
	for _, path := range paths {
		part, err := os.Open(path)
		if err != nil {
			return err
		}

		_, err = copyStream(ctx, io.Discard, part, h)
		part.Close()
		if err != nil {
			return err
		}
	}

	return nil
}

// recordCompletion ends an upload whose file is in the store: the record of the file has completed
// it already. So it is no failure if the record of the upload cannot be written.
func (s *Store) recordCompletion(u *activeUpload, rec fileRecord) {
	record := u.record
	record.Status, record.File, record.Completion = UploadCompleted, &rec.File, rec.Completion

	if err := s.endUpload(u, record); err != nil {
		s.log.Warn().Str("upload", record.ID).Err(err).Msg("failed to store the end of an upload; its file is stored")
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	u.record = record
}

// endUpload removes the parts of an upload, and then stores its last state. The parts go first:
// they make the room without which nothing can be stored on a full disk. The caller has the turn.
func (s *Store) endUpload(u *activeUpload, record uploadRecord) error {
	path := s.uploadPath(record.ID)
	if err := os.RemoveAll(path); err != nil {
		return err
	}

	s.mu.Lock()
	clear(u.parts)
	s.mu.Unlock()

	if err := writeRecord(path+recordSuffix, record); err != nil {
		return err
	}

	s.mu.Lock()
	u.record = record
	s.mu.Unlock()

	return nil
}

// CancelUpload ends an upload and removes its parts. A repeated call returns the same upload.
// The error is [ErrNotFound], or [ErrUploadEnded] if the upload is completed or has expired.
func (s *Store) CancelUpload(id string) (Upload, error) {
	u, release, err := s.takeUpload(context.Background(), id)
	if err != nil {
		return Upload{}, err
	}
	defer release()

	up := u.at(s.ids.now())
	if up.Status == UploadCancelled {
		return up, nil
	}

	if up.Status != UploadPending {
		return Upload{}, ErrUploadEnded
	}

	record := u.record
	record.Status = UploadCancelled
	if err := s.endUpload(u, record); err != nil {
		return Upload{}, fmt.Errorf("cancel the upload: %w", err)
	}

	return record.Upload, nil
}

// removeExpiredUploads ends the uploads that expire at now or earlier, and forgets those that
// ended long ago. It skips uploads at which another call is at work.
func (s *Store) removeExpiredUploads(now time.Time) error {
	s.mu.RLock()

	var expired []*activeUpload
	for _, u := range s.uploads {
		if !now.Before(u.record.ExpiresAt) {
			expired = append(expired, u)
		}
	}

	s.mu.RUnlock()

	var errs []error
	for _, u := range expired {
		select {
		case u.turn <- struct{}{}:
			errs = append(errs, s.expireUpload(u, now))
			<-u.turn
		default:
		}
	}

	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove expired uploads: %w", err)
	}

	return nil
}

// expireUpload ends an upload that has expired, and forgets it a day later. The caller has the
// turn.
func (s *Store) expireUpload(u *activeUpload, now time.Time) error {
	record := u.record
	if record.Status == UploadPending {
		record.Status = UploadExpired
		if err := s.endUpload(u, record); err != nil {
			return err
		}
	}

	if now.Before(record.ExpiresAt.Add(endedLifetime)) {
		return nil
	}

	if err := atomicfile.Unlink(s.uploadPath(record.ID) + recordSuffix); err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	delete(s.uploads, record.ID)

	return nil
}
