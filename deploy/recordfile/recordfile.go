// Package recordfile keeps a list of records in one JSON file, which several processes read and change at once: the
// keys of the batch API, and the join strings with names.
//
// A change replaces the whole file in one step and under a lock, so that a process which dies leaves the file as it was
// before or after the change. A reader looks at the file each time, and reads it only if it has changed.
package recordfile

import (
	"bytes"
	"cmp"
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
	// lockTime is the longest time that a change waits for the changes of other processes.
	lockTime = 10 * time.Second
)

// ErrFull is wrapped by the error of a change after which the file would be too large to be read again.
var ErrFull = errors.New("the file would be larger than its limit")

// Format is the format of a file of records. All exported fields are required.
type Format struct {
	// Subject names the records in errors, such as "the API keys".
	Subject string
	// Version is the latest version of the format that this program reads.
	Version int
	// ErrContent is wrapped by the error of a file with another content.
	ErrContent error

	most int // bytes of a file, for tests; 0: maxBytes
}

// maxBytes returns the most bytes of a file.
func (f Format) maxBytes() int { return cmp.Or(f.most, maxBytes) }

// Look is the last look at a file. The zero Look is none.
type Look struct {
	info os.FileInfo // nil: the file was not there, or could not be read
	err  error       // why its content cannot be used; nil: it can
}

// Exists reports whether there was a file.
func (l Look) Exists() bool { return l.info != nil }

// Refresh reads a file if it has changed since the last look, and hands its content to parse. It reports whether there
// is another file, or none any more. The error is for people: it names the file. A file that cannot be used is not read
// again until it changes.
func (f Format) Refresh(path string, last *Look, parse func([]byte) error) (changed bool, err error) {
	info, err := os.Stat(path)
	if err == nil && files.IsUnchanged(last.info, info) {
		return false, last.err
	}

	info, err = f.read(path, parse)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = nil, nil
	}

	*last = Look{info: info, err: err}

	return true, err
}

// Change replaces a file, which need not be there, by the content that edit returns. Before, it hands the content that
// is there to parse. Other processes that change the file wait meanwhile. The error is that of edit, or one for people,
// which wraps [ErrFull] if the new content would be too large to be read again.
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

	var data bytes.Buffer
	e := json.NewEncoder(&data)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(content); err != nil {
		return err
	}
	if data.Len() > f.maxBytes() {
		return fmt.Errorf("write %s in %s: %w of %d MB", f.Subject, filepath.Clean(path), ErrFull, f.maxBytes()>>20)
	}

	_, err = data.WriteTo(next)

	return f.describeFault("write", path, next.Commit(err))
}

// Decode decodes the content of a file. The error wraps ErrContent.
func (f Format) Decode(data []byte, content any) error {
	if len(data) > f.maxBytes() {
		return fmt.Errorf("%w: it is larger than %d MB", f.ErrContent, f.maxBytes()>>20)
	}

	if version := readVersion(data); version > f.Version {
		return fmt.Errorf("%w: it is of a later promptmill (version %d, this one reads %d)", f.ErrContent, version, f.Version)
	}

	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(content); err != nil || d.More() {
		return f.ErrContent
	}

	return nil
}

// readVersion returns the version of the format of a file, or 0 if it has none. It reads no further: a file begins with
// its version, and may have megabytes behind that.
func readVersion(data []byte) (version int) {
	d := json.NewDecoder(bytes.NewReader(data))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return 0
	}

	for d.More() {
		key, err := d.Token()
		if err != nil {
			return 0
		}

		var other json.RawMessage
		switch {
		case key == "version" && d.Decode(&version) == nil:
			return version
		case d.Decode(&other) != nil:
			return 0
		}
	}

	return 0
}

// lock begins the next version of a file. Other processes hold it for milliseconds.
func (f Format) lock(path string) (*atomicfile.File, error) {
	next, err := files.Begin(path, 0o600, lockTime)
	if errors.Is(err, atomicfile.ErrLocked) {
		return nil, fmt.Errorf("another process has been changing %s in %s for %s", f.Subject, path, lockTime)
	}

	return next, f.describeFault("write", path, err)
}

// read reads a file and hands its content to parse. The file is returned with an error of parse too.
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

	data, err := io.ReadAll(io.LimitReader(file, int64(f.maxBytes())+1))
	if err != nil {
		return nil, f.describeFault("read", path, err)
	}

	if err := parse(data); err != nil {
		return info, fmt.Errorf("%s in %s cannot be used: %w", f.Subject, path, err)
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
