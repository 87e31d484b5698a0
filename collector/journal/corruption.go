package journal

import (
	"errors"
	"fmt"

	"github.com/promptmill/promptmill/proto"
)

// CorruptionError reports a part of a journal that differs from the bytes written there, or a file
// that is no journal. It counts as [proto.ErrFormat].
type CorruptionError struct {
	// Path is the path of the journal.
	Path string
	// Offset is the start of the unreadable frame, in bytes from the start of the file.
	Offset int64
	// Err is the reason.
	Err error
}

func (e *CorruptionError) Error() string {
	return fmt.Sprintf("%s is corrupt at byte %d: %v", e.Path, e.Offset, e.Err)
}

// Unwrap returns proto.ErrFormat and the cause.
func (e *CorruptionError) Unwrap() []error { return []error{proto.ErrFormat, e.Err} }

// isCorruption reports whether an error is a CorruptionError.
func isCorruption(err error) bool {
	_, ok := errors.AsType[*CorruptionError](err)
	return ok
}
