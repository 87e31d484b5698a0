package notice

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// fileEvery is the interval between two looks for a file.
const fileEvery = time.Second

// file is a file whose existence says that this box goes.
type file struct {
	path  string
	every time.Duration

	// now is the clock of this box. It may be set while the file is there.
	now func() time.Time

	// counts is the last version that named a time left, which was left when it was read.
	counts fileVersion
	left   time.Duration
}

// fileVersion is what a file held, and when it was written.
type fileVersion struct {
	text     string
	modified time.Time
}

func newFile(path string) *file {
	return &file{
		path:  path,
		every: fileEvery,
		now:   time.Now,
	}
}

// String returns file: with the path.
func (s *file) String() string { return "file:" + s.path }

func (s *file) watch(ctx context.Context, w *watcher) {
	unfinished := false // the file named no deadline a moment ago: it may have been in the middle of being written

	pollUntilEnd(ctx, w, s, s.every, func() error {
		info, err := os.Stat(s.path)
		if err != nil {
			unfinished = false
			return ignoreAbsence(err)
		}

		left, named, err := s.readDeadline(info)
		switch {
		case named:
		case !unfinished:
			unfinished = true
			return nil
		default:
			left = w.grace
		}

		w.announce(s, "the file is there", left)

		return err
	})
}

// readDeadline reads how much time the file leaves. named is false if it does not say it.
func (s *file) readDeadline(info fs.FileInfo) (left time.Duration, named bool, err error) {
	if !info.Mode().IsRegular() { // a pipe would block
		return 0, false, nil
	}

	f, err := os.Open(s.path)
	if err != nil {
		return 0, false, ignoreAbsence(err)
	}
	defer f.Close()

	text, err := io.ReadAll(io.LimitReader(f, maxContent+1))
	if err != nil {
		return 0, false, err
	}

	// A time left that was read once runs down by itself: by a clock that is set, the file would seem older.
	v := fileVersion{string(text), info.ModTime()}
	if v == s.counts {
		return s.left, true, nil
	}

	left, named, err = parseContent(v.text, v.modified, s.now())
	if named && isTimeLeft(v.text) {
		s.counts, s.left = v, left
	}

	return left, named, err
}

// ignoreAbsence returns an error unless it says that there is no file.
func ignoreAbsence(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
