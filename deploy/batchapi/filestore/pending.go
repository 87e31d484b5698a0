package filestore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/promptmill/promptmill/collector/atomicfile"
)

// Pending is a file whose bytes are on the disk, and which is not in the store yet.
// Either [Pending.Commit] or [Pending.Abort] ends it.
type Pending struct {
	store *Store
	temp  *os.File
	size  int64
	sum   string

	finished bool // committed or aborted
}

// Create stores the bytes of r as a file, as [Store.Begin] and [Pending.Commit] do.
func (s *Store) Create(ctx context.Context, f File, r io.Reader) (File, error) {
	p, err := s.Begin(ctx, r)
	if err != nil {
		return File{}, err
	}

	return p.Commit(f)
}

// Begin writes the bytes of r to the disk, syncs and hashes them, in little memory. It leaves
// nothing behind if r fails or ctx ends. A call of r.Read that blocks is not interrupted.
//
// The error wraps the error of r, and syscall.ENOSPC if the disk is full or would have less than
// its reserve, of a twentieth and 1 GiB at most.
func (s *Store) Begin(ctx context.Context, r io.Reader) (*Pending, error) {
	temp, err := s.createTemp(s.filesDir, filePrefix)
	if err != nil {
		return nil, fmt.Errorf("store the file: %w", err)
	}

	hash := sha256.New()

	size, err := copyStream(ctx, newRoomWriter(temp, s), r, hash)
	if err == nil {
		err = syncTemp(temp)
	}
	if err != nil {
		discardTemp(temp)
		return nil, err
	}

	return &Pending{
		store: s,
		temp:  temp,
		size:  size,
		sum:   hex.EncodeToString(hash.Sum(nil)),
	}, nil
}

// Bytes is the size of the file.
func (p *Pending) Bytes() int64 { return p.size }

// SHA256 is the hash of the file's bytes, in hexadecimal digits.
func (p *Pending) SHA256() string { return p.sum }

// Commit puts the file into the store with the owner, name, purpose and expiry of f. All of it is
// durable when Commit returns. If Commit fails, it leaves nothing behind.
func (p *Pending) Commit(f File) (File, error) {
	if err := p.store.beginChange(); err != nil {
		p.Abort()
		return File{}, err
	}
	defer p.store.endChange()

	return p.commitRecord(fileRecord{File: f})
}

// commitRecord is Commit for a file that may come from an upload.
func (p *Pending) commitRecord(rec fileRecord) (File, error) {
	if p.finished {
		return File{}, errors.New("filestore: the pending file is committed or aborted already")
	}

	p.finished = true

	rec.ID, rec.CreatedAt = p.store.ids.next(filePrefix)
	rec.Bytes, rec.SHA256, rec.Version = p.size, p.sum, recordVersion
	rec.Filename = strings.ToValidUTF8(rec.Filename, "\uFFFD") // as JSON will have it

	if rec.ExpiresAfter > 0 {
		rec.ExpiresAt = rec.CreatedAt.Add(rec.ExpiresAfter)
		rec.ExpiresAfter = 0
	}
	if !rec.ExpiresAt.IsZero() {
		rec.ExpiresAt = rec.ExpiresAt.UTC().Round(0)
	}

	path := p.store.filePath(rec.ID)
	temp := path + atomicfile.TempSuffix
	if err := commitTemp(p.temp, temp); err != nil {
		return File{}, fmt.Errorf("store the file: %w", err)
	}

	// With the metadata the file exists: if the process ends here, load gives the data its name.
	err := writeRecord(path+recordSuffix, rec)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		// The metadata may be in its place, and only its folder was not synced.
		atomicfile.Unlink(path + recordSuffix)
		atomicfile.Unlink(temp)

		return File{}, fmt.Errorf("store the file: %w", err)
	}

	p.store.insertFile(rec.File)

	return rec.File, nil
}

// Abort removes the file. After [Pending.Commit] it does nothing.
func (p *Pending) Abort() {
	if !p.finished {
		p.finished = true
		discardTemp(p.temp)
	}
}

// createTemp creates a temporary file. The lock of the store keeps other processes away.
func (s *Store) createTemp(dir, prefix string) (*os.File, error) {
	name, _ := s.ids.next(prefix)
	return os.OpenFile(dir+"/"+name+atomicfile.TempSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// syncTemp makes the bytes of a temporary file durable. It takes long for a large file, and so it
// comes before anything that others wait for.
func syncTemp(temp *os.File) error {
	if err := temp.Sync(); err != nil {
		return fmt.Errorf("store the file: %w", err)
	}
	return nil
}

// commitTemp closes a synced temporary file and gives it another name, durably. If it fails, it
// removes the file.
func commitTemp(temp *os.File, path string) error {
	err := temp.Close()
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		atomicfile.Unlink(temp.Name())
		return err
	}

	if err := atomicfile.SyncDir(path); err != nil {
		atomicfile.Unlink(path)
		return err
	}

	return nil
}

// discardTemp removes a temporary file.
func discardTemp(temp *os.File) {
	atomicfile.Unlink(temp.Name())
	temp.Close()
}

// copyStep is the size of the steps in which files are copied. Larger ones are no faster.
const copyStep = 256 << 10

// copyStream copies r to w until it ends, and returns the number of bytes. A second goroutine writes them to sum
// while the next ones come: SHA-256 takes a third of the processor time of an upload.
func copyStream(ctx context.Context, w io.Writer, r io.Reader, sum io.Writer) (int64, error) {
	// One is filled and written while the other is hashed.
	bufs := [2][]byte{make([]byte, copyStep), make([]byte, copyStep)}
	size := int64(0)

	var hashing sync.WaitGroup
	defer hashing.Wait()

	for i := 0; ; i ^= 1 {
		n, readErr := fillBuffer(ctx, bufs[i], r)
		if _, err := w.Write(bufs[i][:n]); err != nil {
			return size, fmt.Errorf("store the file: %w", err)
		}

		size += int64(n)

		hashing.Wait()
		hashing.Go(func() { sum.Write(bufs[i][:n]) }) // a hash never fails

		if errors.Is(readErr, io.EOF) {
			return size, nil
		}

		if readErr != nil {
			return size, fmt.Errorf("receive the file: %w", readErr)
		}
	}
}

// fillBuffer reads until the buffer is full, or r or ctx ends. The parts of a form come in steps of
// 4 KB (mime/multipart): a write for each would take half of the time of an upload. [io.ReadFull]
// will not do: it has the same error for the end of r and for a form that was cut off.
func fillBuffer(ctx context.Context, buf []byte, r io.Reader) (n int, err error) {
	for n < len(buf) && err == nil {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}

		var read int
		read, err = r.Read(buf[n:])
		n += read
	}

	return n, err
}
