package collector

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/promptmill/promptmill/collector/metadata"
)

// ErrNotWritten is returned for an output that is not as its run has written it.
var ErrNotWritten = errors.New("not as it was written")

// CheckWritten compares the files of a complete output with what its metadata says of
// them. It returns an error that wraps [ErrNotWritten] and names the first file that is
// gone, was changed or is another run's.
func (o Output) CheckWritten(meta *metadata.Run) error {
	if err := checkFile(o.Results(), meta.Test.OutputSHA256); err != nil {
		return err
	}

	if meta.Results.FailureCount > 0 {
		return checkFile(o.Errors(), meta.Test.ErrorSHA256)
	}

	if _, err := os.Stat(o.Errors()); err == nil {
		return fmt.Errorf("%s is there, though no request failed: %w", o.Errors(), ErrNotWritten)
	}

	return nil
}

// checkFile compares a file with the SHA-256 that it had.
func checkFile(path, want string) error {
	var got string
	_, err := sumFile(path, &got)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is gone: %w", path, ErrNotWritten)
	case err != nil:
		return err
	case got != want:
		return fmt.Errorf("%s is %w: its SHA-256 began with %.12s, and begins with %.12s now",
			path, ErrNotWritten, want, got)
	}

	return nil
}

// sumFile takes the SHA-256 of a file, in hexadecimal, and returns the file's size.
func sumFile(path string, into *string) (size int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()

	sum := sha256.New()
	if size, err = io.Copy(sum, file); err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}

	*into = hex.EncodeToString(sum.Sum(nil))

	return size, nil
}

// Holds returns the path of the run's file that is the same file as another, or "". A
// temporary file counts too.
func (o Output) Holds(other fs.FileInfo) string {
	for _, path := range o.files() {
		for _, suffix := range []string{"", tempSuffix, trySuffix, newSuffix} {
			if info, err := os.Stat(path + suffix); err == nil && os.SameFile(info, other) {
				return path + suffix
			}
		}
	}

	return ""
}
