package producer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

// MaxLine is the longest line of an input file in bytes.
const MaxLine = 64 << 20

// errTooLong is the fault of a line of more than [MaxLine] bytes.
var errTooLong = fmt.Errorf("line is longer than %d MiB", MaxLine>>20)

// Open opens an input or output file of promptmill and unpacks it if it is
// compressed: gzip and zstd are known by their first bytes, whatever the name.
func Open(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.IsDir() {
		f.Close()
		return nil, errors.Join(err, &os.PathError{Op: "read", Path: path, Err: errors.New("is a directory; name a file of JSON lines")})
	}
	buf := newBuffer(f)
	magic, _ := buf.Peek(4) // a shorter file is neither
	switch {
	case isGzip(magic):
		z, err := gzip.NewReader(buf)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("unpack %s: %w", path, err)
		}
		return input{z, func() { f.Close() }, path}, nil
	case isZstd(magic):
		z, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("unpack %s: %w", path, err)
		}
		return input{z, func() { z.Close(); f.Close() }, path}, nil
	default:
		if _, err := f.Seek(0, io.SeekStart); err != nil { // a pipe: what was peeked is in buf alone
			return input{buf, func() { f.Close() }, path}, nil
		}
		return f, nil
	}
}

// Packed reports whether a file is gzip or zstd.
func Packed(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var magic [4]byte
	n, err := io.ReadFull(f, magic[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return false, err
	}
	return isGzip(magic[:n]) || isZstd(magic[:n]), nil
}

func isGzip(magic []byte) bool { return bytes.HasPrefix(magic, []byte{0x1f, 0x8b}) } // RFC 1952, 2.3.1

// isZstd knows both kinds of frames (RFC 8878, 3.1).
func isZstd(magic []byte) bool {
	return bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18})
}

// input names the file in the errors of its reader.
type input struct {
	r     io.Reader
	close func()
	path  string
}

func (in input) Read(p []byte) (int, error) {
	n, err := in.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("read %s: %w", in.path, err)
	}
	return n, err
}

func (in input) Close() error {
	in.close()
	return nil
}

// LineReader reads JSON lines: it drops a byte-order mark, blank lines, line feeds
// and the carriage returns before them, and counts lines and bytes.
type LineReader struct {
	r      *bufio.Reader
	long   []byte // gathers a line longer than r's buffer
	offset int64
	line   int
}

// NewLineReader reads lines from r.
func NewLineReader(r io.Reader) *LineReader { return &LineReader{r: newBuffer(r)} }

func newBuffer(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 256<<10) }

// Next returns the next line that is not blank, valid until the next call. The error
// is io.EOF at the end, and errTooLong for a line over [MaxLine], after which reading
// goes on with the line behind it.
func (l *LineReader) Next() ([]byte, error) {
	for {
		line, err := l.read()
		if err != nil && !errors.Is(err, errTooLong) {
			return nil, err
		}
		l.line++
		if err != nil {
			return nil, err
		}
		if l.line == 1 {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		}
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if len(bytes.TrimLeft(line, " \t\r")) > 0 {
			return line, nil
		}
	}
}

// Offset is the number of bytes read, Line the number of lines.
func (l *LineReader) Offset() int64 { return l.offset }

// Line is the number of the line returned last, from 1.
func (l *LineReader) Line() int { return l.line }

// read returns the next line with its line feed, if it has one.
func (l *LineReader) read() ([]byte, error) {
	if cap(l.long) > 1<<20 {
		l.long = nil // one long line does not cost its memory for the rest of the run
	}
	part, err := l.r.ReadSlice('\n')
	l.offset += int64(len(part))
	if err == nil || err == io.EOF && len(part) > 0 {
		return part, nil
	}
	if !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	l.long = append(l.long[:0], part...)
	for errors.Is(err, bufio.ErrBufferFull) {
		part, err = l.r.ReadSlice('\n')
		l.offset += int64(len(part))
		if len(l.long) <= MaxLine { // past the limit the rest is read and dropped
			l.long = append(l.long, part...)
		}
	}
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(l.long) > MaxLine {
		l.long = nil
		return nil, errTooLong
	}
	return l.long, nil
}
