package output

import (
	"bufio"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/atomicfile"
)

// LineWriter writes lines into a compressed file, which appears under its name when it is
// whole.
type LineWriter struct {
	*atomicfile.File

	buf  *bufio.Writer
	zstd io.WriteCloser
}

// NewLineWriter begins to write lines into a file. size is the number of bytes of all
// lines; the file states it. The caller ends with Finish or, on an error, Abort.
func NewLineWriter(file *atomicfile.File, size int64, seekable bool) (*LineWriter, error) {
	w := &LineWriter{File: file, buf: bufio.NewWriterSize(file, 1<<20)}

	var err error
	if seekable {
		w.zstd, err = newSeekableWriter(w.buf)
	} else {
		w.zstd, err = newFrameWriter(w.buf, size)
	}
	if err != nil {
		file.Abort()
		return nil, err
	}

	return w, nil
}

// newFrameWriter writes one zstd frame that states its content's size and checksum. It is one
// frame, because common readers (the defaults of python-zstandard and fsspec) silently stop
// after the first.
func newFrameWriter(w io.Writer, size int64) (*zstd.Encoder, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithEncoderCRC(true),
		zstd.WithWindowSize(4<<20))
	if err != nil {
		return nil, fmt.Errorf("zstd encoder: %w", err)
	}
	enc.ResetContentSize(w, size)
	return enc, nil
}

// WriteLine writes a line, with its line feed.
func (w *LineWriter) WriteLine(line []byte) error {
	if _, err := w.zstd.Write(line); err != nil {
		return fmt.Errorf("write %s: %w", w.Path(), err)
	}
	return nil
}

// Finish makes the file whole, durable and visible.
func (w *LineWriter) Finish() error {
	err := w.zstd.Close()
	if err == nil {
		err = w.buf.Flush()
	}
	return w.Commit(err)
}
