package pipeline

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/producer"
)

// spoolFile is the file in a folder of state that has the copy of standard input.
const spoolFile = "input"

// stdinCopy is a copy of standard input, which a run reads more than once. It stays apart
// from the copy that an earlier start of the run has made until it is kept, so that
// another input does no harm to that run.
type stdinCopy struct {
	path string // of the text
	kept string // where the run has its copy
}

// copyStdin copies standard input into dir. The error wraps producer.ErrEmpty if there is
// nothing: an export that failed must not get the answers of an earlier one, whose copy dir
// may have. The end of ctx ends the reading.
func copyStdin(ctx context.Context, stdin io.Reader, dir string) (*stdinCopy, error) {
	s := &stdinCopy{kept: filepath.Join(dir, spoolFile)}
	s.removeStale()

	file, err := os.CreateTemp(dir, spoolFile+"-*")
	if err != nil {
		return nil, fmt.Errorf("copy standard input: %w", err)
	}
	defer file.Close()

	s.path = file.Name()

	size, err := copyUntil(ctx, file, stdin)
	if err == nil {
		err = file.Sync()
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		s.discard()
		return nil, fmt.Errorf("copy standard input: %w", err)
	}

	if size == 0 {
		s.discard()
		return nil, exit.Usage("check the command that writes it; a run is resumed with the same input",
			"standard input: %w", producer.ErrEmpty)
	}

	return s, nil
}

// CopyStdin copies standard input into a file in dir, for a command that reads it more than
// once. If standard input is empty, it returns the error of an empty input. The end of ctx ends the
// reading.
func CopyStdin(ctx context.Context, stdin io.Reader, dir string) (path string, err error) {
	s, err := copyStdin(ctx, stdin, dir)
	if err != nil {
		return "", err
	}
	return s.path, nil
}

// IsStdinCopy reports whether a file may be what a process that was killed has left of [CopyStdin], by its name.
func IsStdinCopy(name string) bool { return stdinCopyName.MatchString(name) }

// stdinCopyName matches what os.CreateTemp makes of spoolFile.
var stdinCopyName = regexp.MustCompile(`^` + spoolFile + `-[0-9]+$`)

// copyUntil copies until the end of r or of ctx. A read of a terminal or a pipe cannot be
// interrupted, so it is left behind.
func copyUntil(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	var size int64
	copied := make(chan error, 1)
	go func() {
		n, err := io.Copy(w, r)
		size = n
		copied <- err
	}()

	select {
	case err := <-copied:
		return size, err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// keep moves the copy to the place of the run's.
func (s *stdinCopy) keep() error {
	if s.path == s.kept {
		return nil
	}

	if err := os.Rename(s.path, s.kept); err != nil {
		return fmt.Errorf("keep the copy of standard input: %w", err)
	}

	s.path = s.kept

	return nil
}

// discard removes a copy that was not kept.
func (s *stdinCopy) discard() {
	if s.path != s.kept {
		os.Remove(s.path)
	}
}

// removeStale removes the files of a process that was killed while it read.
func (s *stdinCopy) removeStale() {
	entries, err := os.ReadDir(filepath.Dir(s.kept))
	if err != nil {
		return // creating a file fails, too
	}

	for _, e := range entries {
		if IsStdinCopy(e.Name()) {
			os.Remove(filepath.Join(filepath.Dir(s.kept), e.Name()))
		}
	}
}
