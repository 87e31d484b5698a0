package table

import (
	"errors"
	"io"

	"github.com/promptmill/promptmill/proto/jsonl"
)

// rowBuffer holds the part of a text in which the next row is.
type rowBuffer struct {
	r io.Reader
	// buf has the text from the next row on, in buf[start:].
	buf   []byte
	start int
	// offset is the offset of the next row in the text.
	offset int64
	// err ended the text; nil before.
	err error
}

// maxBuffer is the largest buffer: for a row of the largest size, and more, so that a longer
// one shows.
const maxBuffer = jsonl.MaxLine + startSize

// text returns the text that is there, and whether it reaches to the end.
func (b *rowBuffer) text() (text []byte, whole bool) {
	return b.buf[b.start:], errors.Is(b.err, io.EOF)
}

// skip moves to an offset in the text that is there.
func (b *rowBuffer) skip(n int) {
	b.start += n
	b.offset += int64(n)
}

// fill reads more text. The text that is there before is not valid any more.
func (b *rowBuffer) fill() error {
	if b.err != nil {
		return b.err
	}

	rest := b.buf[b.start:]

	size := startSize
	for size < 2*len(rest) && size < maxBuffer {
		size *= 2
	}

	size = min(size, maxBuffer)

	buf := b.buf[:0]
	if cap(buf) != size {
		buf = make([]byte, 0, size) // one long row does not cost its memory for the rest of the run
	}

	buf = append(buf, rest...)

	n, err := io.ReadFull(b.r, buf[len(buf):size])
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}

	b.buf, b.start, b.err = buf[:len(buf)+n], 0, err

	return nil
}
