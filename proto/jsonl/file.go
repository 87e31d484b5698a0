package jsonl

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// maxWindow is the largest window of a zstd file in bytes, the distance that it may refer back
// in its text. It is also about the memory that reading takes. zstd itself allows the same
// unless --long is given.
const maxWindow = 128 << 20

// Open opens a file and decompresses it if it is gzip or zstd, which are known by their first
// bytes, whatever the name. Errors name the file, and wrap
// a [DamageError] if it is damaged.
func Open(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}

	if info, err := f.Stat(); err != nil || info.IsDir() {
		f.Close()
		return nil, errors.Join(err, &os.PathError{
			Op:   "read",
			Path: path,
			Err:  errors.New("is a directory; name a file of JSON lines"),
		})
	}

	return Decompress(path, f)
}

// Decompress returns the text of an open file, decompressed if it is gzip or zstd. Closing the text
// closes the file, and so does an error. name stands for the file in errors.
func Decompress(name string, f io.ReadSeekCloser) (io.ReadCloser, error) {
	from := &source{Reader: f}
	buf := newBuffer(from)
	magic, _ := buf.Peek(magicSize) // a shorter file is neither
	switch {
	case isGzip(magic):
		z, err := newGzipReader(buf)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("unpack %s: %w", name, from.describeError(name, "gzip", err))
		}
		return file{z, func() { f.Close() }, name, "gzip", from}, nil

	case isZstd(magic):
		z, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("unpack %s: %w", name, from.describeError(name, "zstd", err))
		}
		return file{z, func() { z.Close(); f.Close() }, name, "zstd", from}, nil

	default:
		if _, err := f.Seek(0, io.SeekStart); err == nil {
			return f, nil
		}
		return file{buf, func() { f.Close() }, name, "", from}, nil // a pipe: only buf has the bytes peeked at
	}
}

// Compression returns "gzip" or "zstd" for a file that is compressed so, and "" for any other.
func Compression(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()

	return CompressionOf(f)
}

// CompressionOf returns the compression of an open file, which it reads at its beginning.
func CompressionOf(f io.ReaderAt) (string, error) {
	var magic [magicSize]byte

	n, err := io.ReadFull(io.NewSectionReader(f, 0, magicSize), magic[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", err
	}

	switch {
	case isGzip(magic[:n]):
		return "gzip", nil
	case isZstd(magic[:n]):
		return "zstd", nil
	}

	return "", nil
}

// magicSize is the number of bytes at the start of a file that show its format.
const magicSize = 4

func isGzip(magic []byte) bool { return bytes.HasPrefix(magic, []byte{0x1f, 0x8b}) } // RFC 1952, 2.3.1

// isZstd knows both kinds of frames (RFC 8878, 3.1).
func isZstd(magic []byte) bool {
	return bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		len(magic) == magicSize && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18})
}

// file names itself in the errors of its reader.
type file struct {
	r     io.Reader
	close func()
	path  string
	// format is the name of the compression; empty: none.
	format string
	// from is the file before it is unpacked.
	from *source
}

// Read implements [io.Reader].
func (f file) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		if f.format != "" {
			err = f.from.describeError(f.path, f.format, err)
		}
		if !strings.Contains(err.Error(), f.path) { // a store names the file itself
			err = fmt.Errorf("read %s: %w", f.path, err)
		}
	}

	return n, err
}

// Close implements [io.Closer].
func (f file) Close() error {
	f.close()
	return nil
}

// gzipReader reads the members of a gzip file, and the zeros that a tape or a disk image has put
// behind them, as gzip(1) does.
type gzipReader struct {
	*gzip.Reader
	buf *bufio.Reader
}

func newGzipReader(buf *bufio.Reader) (*gzipReader, error) {
	z, err := gzip.NewReader(buf)
	if err != nil {
		return nil, err
	}

	z.Multistream(false)

	return &gzipReader{z, buf}, nil
}

// Read implements [io.Reader].
func (g *gzipReader) Read(p []byte) (int, error) {
	for {
		n, err := g.Reader.Read(p)
		if errors.Is(err, io.EOF) {
			err = g.nextMember()
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		} // else an empty member
	}
}

// nextMember starts with the next member. It returns [io.EOF] if there is none.
func (g *gzipReader) nextMember() error {
	magic, err := g.buf.Peek(2)
	if len(magic) == 0 {
		return err
	}

	if !isGzip(magic) {
		return g.skipZeros()
	}

	if err := g.Reset(g.buf); err != nil {
		return err
	}

	g.Multistream(false)

	return nil
}

// skipZeros reads to the end of the file, before which there may be zeros alone.
func (g *gzipReader) skipZeros() error {
	for {
		c, err := g.buf.ReadByte()
		if err != nil {
			return err
		}

		if c != 0 {
			return errTrailingData
		}
	}
}

// source is a file that is unpacked. It keeps the error of a read, which is no damage.
type source struct {
	io.Reader

	err error
}

// Read implements [io.Reader].
func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}

	return n, err
}

// describeError returns the error of unpacking the file: the one with which it was read, or damage.
func (s *source) describeError(path, compression string, err error) error {
	if s.err != nil {
		return s.err
	}
	return newDamageError(path, compression, err)
}
