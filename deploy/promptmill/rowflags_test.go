package main

import (
	"testing"

	"golang.org/x/text/encoding/htmlindex"
)

// Each encoding that has a name of Python is one that is read.
func TestPythonEncodings(t *testing.T) {
	t.Parallel()

	for name, standard := range pythonEncodings {
		if _, err := htmlindex.Get(standard); err != nil {
			t.Errorf("%s stands for %s: %v", name, standard, err)
		}
		if _, err := htmlindex.Get(name); err == nil && name != standard {
			t.Errorf("%s is a name of the standard already", name)
		}
	}
}
