package collector

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// OutputSuffix is what the name of an output file ends in.
const OutputSuffix = ".jsonl.zst"

// JournalSuffix is what the name of a journal ends in.
const JournalSuffix = ".part.zst"

// What the names of the other files of a run end in.
const (
	errorsSuffix   = ".errors" + OutputSuffix
	metaSuffix     = ".meta.json"
	markdownSuffix = ".report.md"
	htmlSuffix     = ".report.html"
)

// Output is the common beginning of a run's output files' paths.
type Output string

// Results is the path of the answered requests.
func (o Output) Results() string { return string(o) + OutputSuffix }

// Errors is the path of the failed requests.
func (o Output) Errors() string { return string(o) + errorsSuffix }

// Meta is the path of the metadata.
func (o Output) Meta() string { return string(o) + metaSuffix }

// ReportMarkdown and ReportHTML are the paths of the report.
func (o Output) ReportMarkdown() string { return string(o) + markdownSuffix }
func (o Output) ReportHTML() string     { return string(o) + htmlSuffix }

// Journal is the path of the journal, which is there until the run is complete.
func (o Output) Journal() string { return string(o) + JournalSuffix }

// outputMode are the permissions of output files, less the umask.
const outputMode = 0o666

// files are the paths of all files that a run may make, the journal included.
func (o Output) files() []string {
	return []string{o.Results(), o.Errors(), o.Meta(), o.ReportMarkdown(), o.ReportHTML(), o.Journal()}
}

// Check says why the files of a run could not be written, before anything has been done
// for it: a name is too long for its file system or is that of a folder, a device or a
// pipe, two of them are one, another run writes one of them, or the folder cannot be
// written. It finds out by making files of the longest names, and removes these.
func (o Output) Check() error {
	targets, err := o.targets()
	if err != nil {
		return err
	}

	if err := (&claim{targets: targets}).check(o, targets[o.Journal()]); err != nil {
		return err
	}

	longest := map[string]string{} // name by folder: links may lead elsewhere
	for _, path := range o.files() {
		target := targets[path]
		dir, name := filepath.Split(target)
		if len(name) > len(longest[dir]) {
			longest[dir] = name
		}
	}

	for dir, name := range longest {
		path := dir + name + trySuffix
		file, err := createLocked(path, 0o600)
		if errors.Is(err, ErrLocked) {
			continue // another process has just made it
		}
		if err != nil {
			return fmt.Errorf("%s cannot be written: %w", dir+name, pathless(err))
		}

		discard(file)
	}

	return nil
}

// RemoveLeft removes temporary files that a process has left which was killed. Those of
// a living one stay.
func (o Output) RemoveLeft() error {
	var all error
	for _, path := range o.files() {
		target, err := follow(path)
		if err != nil {
			all = errors.Join(all, err)
			continue
		}

		left := []string{target + tempSuffix, target + trySuffix}
		if path == o.Journal() {
			left = append(left, target+newSuffix)
		}

		for _, path := range left {
			if err := removeLeft(path); !errors.Is(err, ErrLocked) && !errors.Is(err, errMoved) {
				all = errors.Join(all, err)
			}
		}

		if err := lookAtClaim(target+claimSuffix, o.Journal()); !errors.Is(err, ErrLocked) &&
			!errors.Is(err, ErrClaimed) {
			all = errors.Join(all, err)
		}
	}

	return all
}

// pathless takes the path out of an error that is going to name it anyway.
func pathless(err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// Format is how the output files are written.
type Format struct {
	Seekable bool // in the zstd seekable format instead of one frame
	Ordered  bool // in the order of the input instead of that of completion
	Plain    bool // without the key "promptmill"
}

// lineFile writes lines into a compressed file that appears under its name when it is
// whole.
type lineFile struct {
	*File
	buf  *bufio.Writer
	zstd interface {
		io.Writer
		Close() error
	}
}

// createLines begins a file of size bytes of lines.
func (j *Journal) createLines(path string, size int64, seekable bool) (*lineFile, error) {
	file, err := j.create(path)
	if err != nil {
		return nil, err
	}

	l := &lineFile{File: file, buf: bufio.NewWriterSize(file, 1<<20)}
	if seekable {
		l.zstd, err = newSeekableWriter(l.buf)
	} else {
		l.zstd, err = newWholeWriter(l.buf, size)
	}
	if err != nil {
		l.Abort()
		return nil, err
	}

	return l, nil
}

// newWholeWriter writes one zstd frame that tells its content's size and checksum.
// One frame, because common readers (the defaults of python-zstandard and fsspec)
// silently stop after the first.
func newWholeWriter(w io.Writer, size int64) (*zstd.Encoder, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithEncoderCRC(true),
		zstd.WithWindowSize(4<<20))
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
	return l.Commit(err)
}
