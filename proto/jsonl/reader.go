package jsonl

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// MaxLine is the longest line that a [Reader] returns, in bytes.
const MaxLine = 64 << 20

// ErrLineTooLong is returned for a line of more than [MaxLine] bytes.
var ErrLineTooLong = fmt.Errorf("line is longer than %d MiB", MaxLine>>20)

// Reader reads JSON lines. It drops blank lines, line feeds and the carriage returns before them,
// and byte-order marks where lines begin (files put together have several), and counts lines and
// bytes.
type Reader struct {
	r *bufio.Reader
	// long gathers a line longer than r's buffer.
	long   []byte
	offset int64
	line   int
}

// NewReader returns a reader of the lines of r.
func NewReader(r io.Reader) *Reader { return NewReaderAt(r, 0, 0) }

// NewReaderAt returns a reader that continues in the middle of a text, before whose rest r there
// were some bytes and lines.
func NewReaderAt(r io.Reader, offset int64, line int) *Reader {
	return &Reader{
		r:      newBuffer(r),
		offset: offset,
		line:   line,
	}
}

func newBuffer(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 256<<10) }

// Peek returns the beginning of the text that comes next, at most 256 KiB, and whether that is all
// of it. It is valid until the next call of a method. A fault of the text ends the beginning, and
// [Reader.Next] returns it.
func (r *Reader) Peek() (start []byte, whole bool) {
	start, err := r.r.Peek(r.r.Size())
	return start, errors.Is(err, io.EOF)
}

// Next returns the next line that is not blank, valid until the next call. The error is [io.EOF]
// at the end, and [ErrLineTooLong] for a line over [MaxLine], after which reading continues with
// the line behind it.
func (r *Reader) Next() ([]byte, error) {
	for {
		r.skipBlankLines()

		line, err := r.readLine()
		if err != nil && !errors.Is(err, ErrLineTooLong) {
			return nil, err
		}

		r.line++
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

// skipBlankLines passes over the blank lines that come next, as far as they are in the buffer.
// One by one they take twenty times as long, and a file of 31 KB can hold a billion.
func (r *Reader) skipBlankLines() {
	text, _ := r.r.Peek(r.r.Buffered())
	n := 0

	for n < len(text) && (text[n] == '\n' || text[n] == '\r' || text[n] == ' ' || text[n] == '\t') {
		n++
	}

	n = bytes.LastIndexByte(text[:n], '\n') + 1
	if n == 0 {
		return
	}

	r.line += bytes.Count(text[:n], []byte{'\n'})
	r.offset += int64(n)
	r.r.Discard(n) // cannot fail: it is in the buffer
}

// Offset is the number of bytes read.
func (r *Reader) Offset() int64 { return r.offset }

// Line is the number of the line returned last, from 1.
func (r *Reader) Line() int { return r.line }

// readLine returns the next line with its line feed, if it has one.
func (r *Reader) readLine() ([]byte, error) {
	if cap(r.long) > 1<<20 {
		r.long = nil // one long line does not cost its memory for the rest of the run
	}

	part, err := r.r.ReadSlice('\n')
	r.offset += int64(len(part))
	if err == nil || err == io.EOF && len(part) > 0 {
		return part, nil
	}
	if !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}

	r.long = append(r.long[:0], part...)

	for errors.Is(err, bufio.ErrBufferFull) {
		part, err = r.r.ReadSlice('\n')
		r.offset += int64(len(part))

		if len(r.long) <= MaxLine { // past the limit the rest is read and dropped
			r.long = append(r.long, part...)
		}
	}
	if err != nil && err != io.EOF {
		return nil, err
	}

	if len(r.long) > MaxLine {
		r.long = nil
		return nil, ErrLineTooLong
	}

	return r.long, nil
}
