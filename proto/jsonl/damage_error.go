package jsonl

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/zstd"
)

// ErrDamaged is wrapped by the errors of a compressed file that cannot be decompressed, however
// often it is read. They are of type [*DamageError].
var ErrDamaged = errors.New("the file cannot be unpacked")

// DamageError is the error of a compressed file that cannot be decompressed. It wraps [ErrDamaged].
type DamageError struct {
	// File is the path of the file.
	File string
	// Compression is "gzip" or "zstd".
	Compression string
	// Window is set if the file is whole, and needs more memory than [Open] gives it.
	Window bool
	cause  error
}

// newDamageError returns the error of reading a compressed file: a [DamageError], or err itself
// if the disk is at fault.
func newDamageError(path, compression string, err error) error {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return err
	}

	return &DamageError{
		File:        path,
		Compression: compression,
		Window:      errors.Is(err, zstd.ErrWindowSizeExceeded),
		cause:       err,
	}
}

// Error implements error.
func (e *DamageError) Error() string {
	why := "its " + e.Compression + " data is damaged"
	switch {
	case errors.Is(e.cause, io.ErrUnexpectedEOF):
		why = fmt.Sprintf("it is cut off, its %s data ends in the middle", e.Compression)
	case e.Window:
		why = fmt.Sprintf("it was packed with a window of more than %d MiB", maxWindow>>20)
	case errors.Is(e.cause, errTrailingData):
		why = errTrailingData.Error()
	case errors.Is(e.cause, zstd.ErrMagicMismatch):
		why = "something other than zstd follows the zstd data"
	case errors.Is(e.cause, gzip.ErrChecksum), errors.Is(e.cause, zstd.ErrCRCMismatch):
		why += ": its checksum does not match"
	}

	return ErrDamaged.Error() + ": " + why
}

// Unwrap returns the kind of the error and its cause.
func (e *DamageError) Unwrap() []error { return []error{ErrDamaged, e.cause} }

var errTrailingData = errors.New("something other than gzip follows the gzip data")
