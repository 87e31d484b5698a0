package collector

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// OutputSuffix is what the name of an output file ends in.
const OutputSuffix = ".jsonl.zst"

// JournalSuffix is what the name of a journal ends in.
const JournalSuffix = ".part.zst"

// Output is the common beginning of a run's output files' paths.
type Output string

// Results is the path of the answered requests.
func (o Output) Results() string { return string(o) + OutputSuffix }

// Errors is the path of the failed requests.
func (o Output) Errors() string { return string(o) + ".errors" + OutputSuffix }

// Meta is the path of the metadata.
func (o Output) Meta() string { return string(o) + ".meta.json" }

// ReportMarkdown and ReportHTML are the paths of the report.
func (o Output) ReportMarkdown() string { return string(o) + ".report.md" }
func (o Output) ReportHTML() string     { return string(o) + ".report.html" }

// Journal is the path of the journal, which is there until the run is complete.
func (o Output) Journal() string { return string(o) + JournalSuffix }

// Format is how the output files are written.
type Format struct {
	Seekable bool // in the zstd seekable format instead of one frame
	Ordered  bool // in the order of the input instead of that of completion
	Plain    bool // without the key "promptmill"
}

// lineFile writes lines into a compressed file that appears under its name when it is
// whole.
type lineFile struct {
	path string
	file *os.File
	buf  *bufio.Writer
	zstd interface {
		io.Writer
		Close() error
	}
}

// createLines begins a file of size bytes of lines.
func createLines(path string, size int64, seekable bool) (*lineFile, error) {
	file, err := os.Create(path + ".tmp")
	if err != nil {
		return nil, fmt.Errorf("write output: %w", err)
	}
	l := &lineFile{path: path, file: file, buf: bufio.NewWriterSize(file, 1<<20)}
	if seekable {
		l.zstd, err = newSeekableWriter(l.buf)
	} else {
		l.zstd, err = newWholeWriter(l.buf, size)
	}
	if err != nil {
		l.abort()
		return nil, err
	}
	return l, nil
}

// newWholeWriter writes one zstd frame that tells its content's size and checksum.
// One frame, because common readers (the defaults of python-zstandard and fsspec)
// silently stop after the first.
func newWholeWriter(w io.Writer, size int64) (*zstd.Encoder, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithEncoderCRC(true), zstd.WithWindowSize(4<<20))
	if err != nil {
		return nil, fmt.Errorf("zstd encoder: %w", err)
	}
	enc.ResetContentSize(w, size)
	return enc, nil
}

func (l *lineFile) write(line []byte) error {
	if _, err := l.zstd.Write(line); err != nil {
		return fmt.Errorf("write %s: %w", l.path, err)
	}
	return nil
}

// commit makes the file whole, durable and visible.
func (l *lineFile) commit() error {
	err := l.zstd.Close()
	if err == nil {
		err = l.buf.Flush()
	}
	return commitFile(l.file, l.path, err)
}

// abort removes what was written.
func (l *lineFile) abort() {
	l.file.Close()
	os.Remove(l.file.Name())
}

// commitFile syncs a temporary file and gives it its name, unless err is set.
func commitFile(file *os.File, path string, err error) error {
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err == nil {
		err = syncDir(path)
	}
	if err != nil {
		os.Remove(file.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
