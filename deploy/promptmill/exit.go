package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Exit codes of all commands.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2   // wrong command line, or an input with bad lines
	exitFailed      = 3   // done, but some requests failed
	exitUnreachable = 4   // the bus or the model server
	exitInterrupted = 130 // the same command goes on
)

// failure is an error that knows its exit code and how to fix it.
type failure struct {
	code int
	err  error  // nil: it has been said
	hint string // what to do, or empty
}

func (f *failure) Error() string {
	if f.err == nil {
		return "exit code " + strconv.Itoa(f.code)
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// usage is a failure of the command line or the input.
func usage(hint, format string, args ...any) error {
	return &failure{exitUsage, fmt.Errorf(format, args...), hint}
}

// withHint gives an error a hint, and keeps its exit code.
func withHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &failure{codeOf(err), err, hint}
}

// withDefault gives an error a hint, unless it has one, which knows more.
func withDefault(err error, hint string) error {
	if f, ok := errors.AsType[*failure](err); ok && f.hint != "" {
		return err
	}
	return withHint(err, hint)
}

func codeOf(err error) int {
	if err == nil {
		return exitOK
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	return exitError
}

// complain prints an error, once, for a person.
func complain(w io.Writer, err error) {
	f, ok := errors.AsType[*failure](err)
	if ok && f.err == nil {
		return
	}

	fmt.Fprintf(w, "promptmill: error: %s\n", printableLines(err.Error()))
	if ok && f.hint != "" {
		fmt.Fprintf(w, "promptmill: hint: %s\n", printableLines(f.hint))
	}
}
