// Package inputfile opens the input files of a run, wherever they are.
//
// [Local] opens files of this machine. A program that reads from object stores or web servers
// implements [Opener] itself; the producer only needs to read a file from some place on, and at
// any place.
package inputfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// Opener describes and opens input files.
type Opener interface {
	// Stat describes a file, by its path or URL, as it is now. The error wraps
	// [io/fs.ErrNotExist] if there is none.
	Stat(ctx context.Context, path string) (proto.File, error)
	// Open opens the file at file.Path. If file.ETag is set, the file must still have it: else the
	// error, of Open or of a later read, wraps [proto.ErrInputChanged]. The end of ctx ends the
	// reads, too.
	Open(ctx context.Context, file proto.File) (File, error)
}

// File is an open input file. Reads and seeks are not safe for concurrent use, ReadAt is.
type File interface {
	io.ReadSeekCloser
	io.ReaderAt
	// Size returns the size of the file in bytes.
	Size() int64
}

// Local opens files of this machine. It implements [Opener].
type Local struct{}

// Stat implements Opener.
func (Local) Stat(_ context.Context, path string) (proto.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return proto.File{}, err
	}
	return Describe(path, info), nil
}

// Open implements Opener.
func (Local) Open(_ context.Context, file proto.File) (File, error) {
	f, err := os.Open(file.Path)
	if err != nil {
		return nil, err
	}

	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = &os.PathError{
			Op:   "read",
			Path: file.Path,
			Err:  errors.New("is a directory; name the files in it"),
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}

	return &localFile{File: f, size: info.Size()}, nil
}

// localFile is a file of this machine.
type localFile struct {
	*os.File

	size int64
}

// Size implements File.
func (f *localFile) Size() int64 { return f.size }

// OpenText opens a file and decompresses it if it is gzip or zstd, from an offset in its
// decompressed text on. Errors name the file, and wrap [jsonl.ErrDamaged] if it is damaged.
func OpenText(ctx context.Context, opener Opener, file proto.File, offset int64) (io.ReadCloser, error) {
	f, err := opener.Open(ctx, file)
	if err != nil {
		return nil, err
	}

	text, err := jsonl.Decompress(file.Path, f)
	if err != nil {
		return nil, err
	}

	if offset == 0 {
		return text, nil
	}

	if seeker, ok := text.(io.Seeker); ok {
		_, err = seeker.Seek(offset, io.SeekStart)
	} else { // a compressed file has to be read up to there
		_, err = io.CopyN(io.Discard, text, offset)
	}
	if err != nil {
		text.Close()
		return nil, fmt.Errorf("go to byte %d of %s: %w", offset, file.Path, err)
	}

	return text, nil
}

// Compression returns "gzip" or "zstd" for a file that is compressed so, and "" for any other.
func Compression(ctx context.Context, opener Opener, file proto.File) (string, error) {
	f, err := opener.Open(ctx, file)
	if err != nil {
		return "", err
	}
	defer f.Close()

	return jsonl.CompressionOf(f)
}
