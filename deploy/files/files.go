// Package files has the functions of commands and the pipeline for the names of files.
package files

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/promptmill/promptmill/collector/atomicfile"
)

// Exists reports whether there is a file or a folder at path.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// IsUnchanged reports whether a file was not changed between two looks at it. One that was not there, nil, counts as
// changed.
func IsUnchanged(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// Short returns a path as seen from the working directory, if that is shorter. A shell does not
// take it for a flag.
func Short(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}

	if rel, err := filepath.Rel(here, path); err == nil && len(rel) < len(path) {
		if rel[0] == '-' {
			return "./" + rel
		}
		return rel
	}

	return path
}

// Begin is [atomicfile.Create] that waits while another process writes the same file, at most so long. The error wraps
// [atomicfile.ErrLocked] then.
func Begin(path string, mode fs.FileMode, most time.Duration) (*atomicfile.File, error) {
	for end := time.Now().Add(most); ; time.Sleep(5 * time.Millisecond) {
		file, err := atomicfile.Create(path, mode)
		if !errors.Is(err, atomicfile.ErrLocked) || time.Now().After(end) {
			return file, err
		}
	}
}

// secretTime is how long the writing of a secret waits for that of another process, which takes milliseconds.
const secretTime = 10 * time.Second

// Write writes a file with permissions mode, less the umask. The file appears under its name
// once it is whole.
func Write(path string, mode fs.FileMode, write func(io.Writer) error) error {
	file, err := atomicfile.Create(path, mode)
	if err != nil {
		return err
	}
	return file.Commit(write(file))
}

// WriteSecret is [Write] of a file that only its owner may read and write, whoever could read the file that
// it replaces. It waits while another process writes the file: the later one stays.
func WriteSecret(path string, write func(io.Writer) error) error {
	file, err := Begin(path, 0o600, secretTime)
	if err != nil {
		return err
	}

	err = file.Chmod(0o600)
	if err == nil {
		err = write(file)
	}

	return file.Commit(err)
}

// WithoutPath returns an error without the path that it has, for a message that names the file.
func WithoutPath(err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
