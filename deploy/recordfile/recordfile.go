// Package recordfile keeps a list of records in one JSON file, which several processes read and change at once: the
// keys of the batch API, and the join strings with names.
//
// A change replaces the whole file in one step and under a lock, so that a process which dies leaves the file as it was
// before or after the change. A reader looks at the file each time, and reads it only if it has changed.
package recordfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/deploy/files"
)

const (
	// maxBytes is the most bytes of a file: a hundred thousand records.
	maxBytes = 32 << 20
	// lockTime is how long a change waits for the changes of other processes.
	lockTime = 10 * time.Second
)

// Format is the format of a file of records. All fields are required.
type Format struct {
	// Subject names the records in errors, such as "the API keys".
	Subject string
	// Version is the latest version of the format that this program reads.
	Version int
	// ErrContent is wrapped by the error of a file with another content.
	ErrContent error
}

// Refresh reads a file if it has changed since it was last, and hands its content to parse. It returns the file as it
// is now, nil if it is not there, and whether that is another one than last. The error is for people: it names the
// file.
func (f Format) Refresh(
	path string, last os.FileInfo, parse func([]byte) error,
) (info os.FileInfo, changed bool, err error) {
	info, err = os.Stat(path)
	if err == nil && files.IsUnchanged(last, info) {
		return last, false, nil
	}

	info, err = f.read(path, parse)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}

	return info, true, err
}

// Change replaces a file, which need not be there, by the content that edit returns. Before, it hands the content that
// is there to parse. Other processes that change the file wait meanwhile. The error is that of edit, or one for people.
func (f Format) Change(path string, parse func([]byte) error, edit func() (content any, err error)) error {
	next, err := f.lock(path)
	if err != nil {
		return err
	}
	defer next.Abort()

	if _, err := f.read(next.Path(), parse); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	content, err := edit()
	if err != nil {
		return err
	}

	e := json.NewEncoder(next)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)

	return f.describeFault("write", path, next.Commit(e.Encode(content)))
}

// Decode decodes the content of a file. The error wraps ErrContent.
func (f Format) Decode(data []byte, content any) error {
	if len(data) > maxBytes {
		return fmt.Errorf("%w: it is larger than %d MB", f.ErrContent, maxBytes>>20)
	}

	var format struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &format); err == nil && format.Version > f.Version {
		return fmt.Errorf("%w: it is of a later promptmill (version %d, this one reads %d)", f.ErrContent,
			format.Version, f.Version)
	}

	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(content); err != nil || d.More() {
		return f.ErrContent
	}

	return nil
}

// lock begins the next version of a file. Other processes hold it for milliseconds.
func (f Format) lock(path string) (*atomicfile.File, error) {
	for end := time.Now().Add(lockTime); ; time.Sleep(5 * time.Millisecond) {
		next, err := atomicfile.Create(path, 0o600)
		switch {
		case err == nil:
			return next, nil
		case !errors.Is(err, atomicfile.ErrLocked):
			return nil, f.describeFault("write", path, err)
		case time.Now().After(end):
			return nil, fmt.Errorf("another process has been changing %s in %s for %s", f.Subject, path, lockTime)
		}
	}
}

// read reads a file and hands its content to parse.
func (f Format) read(path string, parse func([]byte) error) (os.FileInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, f.describeFault("read", path, err)
	}
	defer file.Close()

	info, err := file.Stat()
	if err != nil {
		return nil, f.describeFault("read", path, err)
	}

	data, err := io.ReadAll(io.LimitReader(file, maxBytes+1))
	if err != nil {
		return nil, f.describeFault("read", path, err)
	}

	if err := parse(data); err != nil {
		return nil, fmt.Errorf("%s in %s cannot be used: %w", f.Subject, path, err)
	}

	return info, nil
}

// describeFault returns the error of the system for a person.
func (f Format) describeFault(verb, path string, err error) error {
	if err == nil {
		return nil
	}

	if fault, ok := errors.AsType[*fs.PathError](err); ok {
		err = fault.Err
	} else if inner := errors.Unwrap(err); inner != nil {
		err = inner // without the path, which atomicfile names too
	}

	return fmt.Errorf("%s %s in %s: %w", verb, f.Subject, filepath.Clean(path), err)
}
