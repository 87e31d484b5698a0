package quality

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/promptmill/promptmill/proto/jsonl"
)

// digest is a SHA-256.
type digest [sha256.Size]byte

// lineFile is a file of lines that are read in any order. Only their places are in memory.
type lineFile struct {
	path string
	file *os.File
	// ends are the offsets at which the lines end.
	ends []int64
	// sum is of the file.
	sum digest
	buf []byte
}

// openLineFile opens a file, and calls a function for each of its lines, in their order.
func openLineFile(path string, each func(line []byte) error) (*lineFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}

	f := &lineFile{path: path, file: file}
	if err := f.readAll(each); err != nil {
		file.Close()
		return nil, err
	}

	return f, nil
}

// readAll finds the lines.
func (f *lineFile) readAll(each func(line []byte) error) error {
	compression, err := jsonl.CompressionOf(f.file)
	if err != nil {
		return fmt.Errorf("read %s: %w", f.path, err)
	}
	if compression != "" {
		return fmt.Errorf("%s is compressed with %s, and must not be: its lines are read in any order", f.path,
			compression)
	}

	hash := sha256.New()
	lines := jsonl.NewReader(io.TeeReader(f.file, hash))
	for {
		line, err := lines.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s, line %d: %w", f.path, lines.Line()+1, err)
		}

		if err := each(line); err != nil {
			return err
		}
		f.ends = append(f.ends, lines.Offset())
	}
	hash.Sum(f.sum[:0])

	return nil
}

// line returns a line, from 0, valid until the next call. It can have white space around it.
func (f *lineFile) line(i int64) ([]byte, error) {
	start := int64(0)
	if i > 0 {
		start = f.ends[i-1]
	}

	n := int(f.ends[i] - start)
	if cap(f.buf) < n {
		f.buf = make([]byte, n)
	}

	if _, err := f.file.ReadAt(f.buf[:n], start); err != nil {
		return nil, fmt.Errorf("read %s, line %d: %w", f.path, i+1, err)
	}

	return f.buf[:n], nil
}

// close closes the file.
func (f *lineFile) close() { f.file.Close() }
