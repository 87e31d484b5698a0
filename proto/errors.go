package proto

import "errors"

// Errors that callers tell apart with errors.Is.
var (
	// ErrFormat is returned for a message or a file that was not written by this
	// version of promptmill, or was damaged.
	ErrFormat = errors.New("unreadable format")
	// ErrNoRun is returned when a run's manifest is not on the bus.
	ErrNoRun = errors.New("no such run")
	// ErrConflict is returned when a manifest was changed by somebody else in a way
	// that rules out the change wanted.
	ErrConflict = errors.New("the run was changed by another process")
	// ErrInputChanged is returned when the input of a run is not what validation has read.
	ErrInputChanged = errors.New("the input was changed since it was validated")
	// ErrLeaseHeld is returned when another process collects a run.
	ErrLeaseHeld = errors.New("the run is being collected by another process")
)
