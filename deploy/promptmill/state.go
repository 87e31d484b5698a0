package main

import (
	"errors"
	"os"
)

// spoolFile is the file in a folder of state that has the copy of standard input.
const spoolFile = "input"

// unwrapPath takes the path out of an error that is going to name it anyway.
func unwrapPath(err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
