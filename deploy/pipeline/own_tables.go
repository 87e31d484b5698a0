package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
)

// ownTables are the files of tables that a run has written, or has begun to write.
type ownTables struct {
	// sums are the SHA-256 of files in the metadata of the run, by their names.
	sums map[string]string
	// noted are the names of files that were being written when the run was killed.
	noted map[string]bool
}

// readOwnTables returns the tables of the run of an output.
func readOwnTables(out output.Prefix, note tableNote) (own ownTables, err error) {
	own.sums = map[string]string{}
	if meta, err := out.ReadMeta(); err == nil { // others are reported with the output
		for _, t := range meta.Test.Tables {
			own.sums[t.File] = t.SHA256
		}
	}

	names, err := note.read()
	own.noted = map[string]bool{}
	for _, name := range names {
		own.noted[name] = true
	}

	return own, err
}

// names returns the names of the files. A name can be there twice.
func (o ownTables) names() []string {
	return append(slices.Sorted(maps.Keys(o.sums)), slices.Sorted(maps.Keys(o.noted))...)
}

// contains reports whether the run has written a file, or has begun to write it.
func (o ownTables) contains(path string) bool {
	return o.sums[filepath.Base(path)] != "" || o.isNoted(path)
}

// isNoted reports whether a file was being written when the run was killed.
func (o ownTables) isNoted(path string) bool { return o.noted[filepath.Base(path)] }

// isChanged reports whether a file has other contents than the run has written. A file that was being written can
// have any. The error wraps [fs.ErrNotExist] if it is not there.
func (o ownTables) isChanged(path string) (bool, error) {
	sum, _, err := output.HashFile(path)
	return err == nil && sum != o.sums[filepath.Base(path)] && !o.isNoted(path), err
}

// checkUnchanged refuses to replace a file that someone has changed after this run had written it.
func (o ownTables) checkUnchanged(path string) error {
	if !o.contains(path) || o.isNoted(path) {
		return nil
	}

	isChanged, err := o.isChanged(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case isChanged:
		return exit.WithHint(fmt.Errorf("%s was changed after this run had written it", files.Short(path)),
			"move it away or remove it, then give the same command again")
	}

	return nil
}

// compareFiles reports whether files of a table are there, and whether one of them was changed.
func (o ownTables) compareFiles(t TableOutput) (there, isChanged bool, err error) {
	for _, path := range t.paths() {
		isChanged, err := o.isChanged(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return false, false, err
		case isChanged:
			return true, true, nil
		}

		there = true
	}

	return there, false, nil
}
