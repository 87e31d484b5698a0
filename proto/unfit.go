package proto

import (
	"fmt"
	"sync"
)

// FieldError is the error for a message that does not fit what its receiver knows. It counts
// as [ErrFormat].
type FieldError struct {
	Field string // what of the message, such as "shard"
	Why   string
}

// Error implements error.
func (u *FieldError) Error() string { return u.Field + ": " + u.Why }

// Is reports whether target is [ErrFormat].
func (u *FieldError) Is(target error) bool { return target == ErrFormat }

// NewFieldError returns the error for a field of a message; format and args say why.
func NewFieldError(field, format string, args ...any) error {
	return &FieldError{Field: field, Why: fmt.Sprintf(format, args...)}
}

// maxSenders bounds what [DropCounter] remembers, since senders choose their names.
const maxSenders = 256

// DropCounter counts messages that did not fit and were dropped. It says which is the first
// of its kind and sender, so that a flood of them makes one line in a log. Its zero value
// is ready, and safe for concurrent use.
type DropCounter struct {
	mu    sync.Mutex
	count int64
	known map[string]bool
}

// Add counts a message. field is the [FieldError.Field] of its error.
func (d *DropCounter) Add(field, sender string) (first bool) {
	d.mu.Lock()
	defer d.mu.Unlock()

	d.count++

	key := field + "\x00" + sender
	if d.known[key] || len(d.known) >= maxSenders {
		return false
	}

	if d.known == nil {
		d.known = map[string]bool{}
	}

	d.known[key] = true

	return true
}

// Count is how many were dropped.
func (d *DropCounter) Count() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}
