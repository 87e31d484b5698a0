package producer

import (
	"bytes"
	"fmt"
	"io"

	"github.com/promptmill/promptmill/proto/jsonl"
)

// MaxFiller is the most bytes of unpacked text that validation reads besides lines of at most
// [jsonl.MaxLine], or as many as those lines have if that is more: blank lines, and longer lines. A small
// packed file can hold a thousand times as much of them.
const MaxFiller = 256 << 20

// FillerError is the error of an input file with too much text that is no request: see [MaxFiller].
type FillerError struct {
	// File is the path of the file, as given.
	File string
	// Line is the number of the last line that was read.
	Line int
	// isLine reports that the text is one line.
	isLine bool
}

// Error implements error.
func (e *FillerError) Error() string {
	return fmt.Sprintf("%s has more than %d MiB of blank lines, the last of them near line %d", e.File, MaxFiller>>20,
		e.Line)
}

// fillerReader reads text, and ends with a [FillerError] when too much of it is no request.
type fillerReader struct {
	r io.Reader
	// read counts the bytes read, and line those since the last line feed.
	read, line int64
	// useful counts the bytes of the lines that were returned.
	useful int64
}

// Read implements io.Reader.
func (f *fillerReader) Read(p []byte) (int, error) {
	if f.read-f.useful > MaxFiller+f.useful {
		return 0, &FillerError{isLine: f.line > jsonl.MaxLine}
	}

	n, err := f.r.Read(p)
	f.read += int64(n)
	if feed := bytes.LastIndexByte(p[:n], '\n'); feed >= 0 {
		f.line = int64(n - feed - 1)
	} else {
		f.line += int64(n)
	}

	return n, err
}
