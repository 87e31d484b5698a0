package proto

import "errors"

// Errors for callers to distinguish with errors.Is.
var (
	// ErrFormat is returned for a message or a file that was not written by this
	// version of promptmill, or was damaged.
	ErrFormat = errors.New("unreadable format")
	// ErrNoRun is returned when a run's manifest is not on the bus.
	ErrNoRun = errors.New("no such run")
	// ErrConflict is returned when another process changed a manifest in a way that rules out the
	// wanted change.
	ErrConflict = errors.New("the run was changed by another process")
	// ErrInputChanged is returned when the input of a run differs from the validated one.
	ErrInputChanged = errors.New("the input was changed since it was validated")
	// ErrLeaseHeld is returned when another process has the lease of a run, and so collects it.
	ErrLeaseHeld = errors.New("the run is being collected by another process")
)
