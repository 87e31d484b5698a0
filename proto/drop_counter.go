package proto

import "sync"

// maxSenders bounds the memory of a [DropCounter], since senders choose their names.
const maxSenders = 256

// DropCounter counts messages that were dropped because they did not fit. It reports which is the
// first of its kind and sender, so that a flood of them makes one line in a log. Its zero value is
// ready to use, and safe for concurrent use.
type DropCounter struct {
	// mu guards the fields below.
	mu    sync.Mutex
	count int64
	// known has the drops by field and sender.
	known map[string]bool
}

// Add counts a message, and reports whether it is the first from the sender for that field. field
// is the [FieldError.Field] of its error.
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

// Count returns the number of messages that were dropped.
func (d *DropCounter) Count() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()

	return d.count
}
