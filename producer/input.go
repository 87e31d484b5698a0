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

// ErrLineTooLong is the fault of a line of more than [MaxLine] bytes.
var ErrLineTooLong = fmt.Errorf("line is longer than %d MiB", MaxLine>>20)

// Open opens an input or output file of promptmill and unpacks it if it is
// compressed: gzip and zstd are known by their first bytes, whatever the name.
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

	buf := newBuffer(f)
	magic, _ := buf.Peek(4) // a shorter file is neither
	switch {
	case isGzip(magic):
		z, err := newGunzip(buf)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("unpack %s: %w", path, explain(err, "gzip"))
		}
		return input{z, func() { f.Close() }, path, "gzip"}, nil
	case isZstd(magic):
		z, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("unpack %s: %w", path, explain(err, "zstd"))
		}
		return input{z, func() { z.Close(); f.Close() }, path, "zstd"}, nil
	default:
		if _, err := f.Seek(0, io.SeekStart); err != nil { // a pipe: what was peeked is in buf alone
			return input{buf, func() { f.Close() }, path, ""}, nil
		}
		return f, nil
	}
}

// maxWindow is how much unpacked text a zstd file may refer back to, and so about the memory
// that it takes. It is what zstd itself allows unless --long says otherwise.
const maxWindow = 128 << 20

// ErrDamaged is in errors of a file that is not as it should be, and will be no other.
var ErrDamaged = errors.New("the file cannot be unpacked")

// explain says of an error of a packed file what is wrong with the file.
func explain(err error, format string) error {
	switch {
	case format == "":
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it is cut off, its %s data ends in the middle: %w", ErrDamaged, format, err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("%w: it was packed with a window of more than %d MiB; unpack it with zstd -d --long=31",
			ErrDamaged, maxWindow>>20)
	case errors.Is(err, errTail), errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader),
		errors.Is(err, zstd.ErrCRCMismatch), errors.Is(err, zstd.ErrMagicMismatch):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}

	return err
}

var errTail = errors.New("something other than gzip follows the gzip data")

// gunzip reads the members of a gzip file, and the zeros that a tape or a disk image has put
// behind them, as gzip(1) does.
type gunzip struct {
	*gzip.Reader
	buf *bufio.Reader
}

func newGunzip(buf *bufio.Reader) (*gunzip, error) {
	z, err := gzip.NewReader(buf)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return &gunzip{z, buf}, nil
}

func (g *gunzip) Read(p []byte) (int, error) {
	for {
		n, err := g.Reader.Read(p)
		if err == io.EOF {
			err = g.next()
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		} // else a member of nothing
	}
}

// next goes on with the next member, if there is one.
func (g *gunzip) next() error {
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

// skipZeros reads to the end, which must come.
func (g *gunzip) skipZeros() error {
	for {
		c, err := g.buf.ReadByte()
		if err != nil {
			return err
		}

		if c != 0 {
			return errTail
		}
	}
}

// IsCompressed reports whether a file is gzip or zstd.
func IsCompressed(path string) (bool, error) {
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
	r      io.Reader
	close  func()
	path   string
	format string // empty: plain
}

func (in input) Read(p []byte) (int, error) {
	n, err := in.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("read %s: %w", in.path, explain(err, in.format))
	}
	return n, err
}

func (in input) Close() error {
	in.close()
	return nil
}

// LineReader reads JSON lines: it drops blank lines, line feeds and the carriage returns
// before them, and byte-order marks where lines begin (files put together have several), and
// counts lines and bytes.
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
		l.skipBlank()

		line, err := l.read()
		if err != nil && !errors.Is(err, ErrLineTooLong) {
			return nil, err
		}

		l.line++
		if err != nil {
			return nil, err
		}

		line = bytes.TrimPrefix(line, byteOrderMark)
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if len(bytes.TrimLeft(line, " \t\r")) > 0 {
			return line, nil
		}
	}
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// skipBlank passes over the blank lines that come next, as far as they are in the buffer.
// One by one they take twenty times as long, and a file of 31 KB can hold a billion.
func (l *LineReader) skipBlank() {
	text, _ := l.r.Peek(l.r.Buffered())
	n := 0
	for n < len(text) && (text[n] == '\n' || text[n] == '\r' || text[n] == ' ' || text[n] == '\t') {
		n++
	}

	n = bytes.LastIndexByte(text[:n], '\n') + 1
	if n == 0 {
		return
	}

	l.line += bytes.Count(text[:n], []byte{'\n'})
	l.offset += int64(n)
	l.r.Discard(n) // it is in the buffer
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
		return nil, ErrLineTooLong
	}

	return l.long, nil
}
