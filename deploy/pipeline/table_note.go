package pipeline

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/statedir"
)

// tableNote is a file with the names of the files of tables, one a line. It is there while they are written.
type tableNote struct {
	// state and stateDir are the state folder, and the folder of the run in it.
	state, stateDir string
}

// path returns the path of the file.
func (n tableNote) path() string { return filepath.Join(n.stateDir, "table") }

// read returns the names, none if the file is not there.
func (n tableNote) read() ([]string, error) {
	text, err := os.ReadFile(n.path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the names of tables: %w", err)
	}

	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' }), nil
}

// write notes the files of tables before one of them is there.
func (n tableNote) write(tables []TableOutput) error {
	if err := statedir.Make(n.state, n.stateDir); err != nil {
		return err
	}

	return files.Write(n.path(), 0o600, func(file io.Writer) error {
		for _, t := range tables {
			for _, path := range t.paths() {
				if _, err := fmt.Fprintln(file, filepath.Base(path)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// remove removes the file when the run has ended.
func (n tableNote) remove() error {
	err := os.Remove(n.path())
	os.Remove(n.stateDir) // if it is empty
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}

	return err
}
