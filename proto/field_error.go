package proto

import (
	"errors"
	"fmt"
	"strings"
)

// FieldError is the error for a message that does not fit the run, or does not have the form that
// it should. It counts as [ErrFormat].
type FieldError struct {
	// Field is the part of the message, such as "shard".
	Field string
	// Why describes the fault of the field.
	Why string
}

// Error implements error.
func (e *FieldError) Error() string { return e.Field + ": " + e.Why }

// Is reports whether target is [ErrFormat].
func (e *FieldError) Is(target error) bool { return target == ErrFormat }

// NewFieldError returns the error for a field of a message; format and args say why.
func NewFieldError(field, format string, args ...any) error {
	return &FieldError{Field: field, Why: fmt.Sprintf(format, args...)}
}

// ErrorField returns the field of a [FieldError], and "object" for any other error of a message:
// its payload could not be read.
func ErrorField(err error) string {
	if e, ok := errors.AsType[*FieldError](err); ok {
		return e.Field
	}

	return "object"
}

// Excerpt shortens foreign text to 80 bytes, for an error that quotes it.
func Excerpt(text string) string {
	const most = 80
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "..."
	}

	return text
}
