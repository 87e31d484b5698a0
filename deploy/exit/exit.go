// Package exit has the exit codes of promptmill's commands and the error that carries one.
//
// An [Error] adds two things to an error: the code with which the process ends, and a hint for
// the reader. The code that knows the cause makes the error ([Unreachable],
// [Usage]); a caller adds a hint if it knows more ([WithHint]) or if there is none yet
// ([WithDefaultHint]); the command prints both, once, and ends with [Code].
//
// A hint is an instruction: it gives the next step, in one line, without a full stop, and
// quotes commands as they are typed. It never repeats the error.
package exit

import (
	"errors"
	"fmt"
	"strconv"
)

// Exit codes of all commands.
const (
	CodeOK          = 0
	CodeError       = 1
	CodeUsage       = 2   // wrong command line, or an input with bad lines
	CodeFailed      = 3   // done, but some requests failed
	CodeUnreachable = 4   // the bus or the model server
	CodeLimit       = 5   // the run has reached a limit of its policy
	CodeInterrupted = 130 // the same command resumes
)

// Error is an error with an exit code and a hint.
type Error struct {
	code int
	err  error // nil: it has been reported
	hint string
	// command is the end of the hint, if that is a command line.
	command string
	// limit is the limit of [LimitReached]. Empty: none.
	limit string
}

// Error implements error.
func (e *Error) Error() string {
	if e.err == nil {
		return "exit code " + strconv.Itoa(e.code)
	}
	return e.err.Error()
}

// Unwrap returns the error without its code and hint.
func (e *Error) Unwrap() error { return e.err }

// Usage returns an error of the command line or of the input. The hint may be empty.
func Usage(hint, format string, args ...any) error {
	return &Error{code: CodeUsage, err: fmt.Errorf(format, args...), hint: hint}
}

// Unreachable returns the error of a bus or a model server that cannot be used. The hint may
// be empty.
func Unreachable(err error, hint string) error {
	return &Error{code: CodeUnreachable, err: err, hint: hint}
}

// Interrupted returns the error of a command that a signal has ended. The hint may be empty.
func Interrupted(err error, hint string) error {
	return &Error{code: CodeInterrupted, err: err, hint: hint}
}

// RequestsFailed returns the error of a run that is done, but has failed requests.
func RequestsFailed(err error, hint string) error {
	return &Error{code: CodeFailed, err: err, hint: hint}
}

// LimitReached returns the error of a run that has reached a limit of its policy: a condition such as
// failed>1%, or max_tokens. The hint may be empty.
func LimitReached(limit string, err error, hint string) error {
	return &Error{
		code:  CodeLimit,
		err:   err,
		hint:  hint,
		limit: limit,
	}
}

// Reported returns the error of a command that has printed its whole message.
func Reported(code int) error { return &Error{code: code} }

// WithHint gives an error a hint and keeps its exit code. It returns nil for nil.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}

	return &Error{
		code:  Code(err),
		err:   err,
		hint:  hint,
		limit: Limit(err),
	}
}

// WithDefaultHint is [WithHint] for an error that has no hint yet: one that was made nearer to
// the cause knows more.
func WithDefaultHint(err error, hint string) error {
	if Hint(err) != "" {
		return err
	}
	return WithHint(err, hint)
}

// WithCommand gives an error a hint that ends with a command line, and keeps its exit code. A
// terminal shows a command line without line breaks, so that it can be copied.
func WithCommand(err error, hint, command string) error {
	if err == nil {
		return nil
	}

	return &Error{
		code:    Code(err),
		err:     err,
		hint:    hint + command,
		command: command,
		limit:   Limit(err),
	}
}

// Code returns the exit code of an error: that of the outermost [Error] in its chain.
func Code(err error) int {
	if err == nil {
		return CodeOK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.code
	}
	return CodeError
}

// Hint returns the hint of the outermost [Error] in the chain, or an empty string.
func Hint(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.hint
	}
	return ""
}

// Command returns the command line at the end of the hint, empty if there is none.
func Command(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.command
	}
	return ""
}

// Limit returns the limit of [LimitReached], empty if there is none.
func Limit(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.limit
	}
	return ""
}

// IsError reports whether the chain has an [Error].
func IsError(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok
}

// IsReported reports whether the command has printed the error itself, see [Reported].
func IsReported(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.err == nil
}
