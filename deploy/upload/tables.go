package upload

import (
	"context"
	"os"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/export"
)

// PrepareTables checks the place of the tables of a complete run: it can be written, and no
// object of another program or another run is in the way.
func (t *Target) PrepareTables(ctx context.Context, run string) error {
	if err := t.checkTables(ctx, run); err != nil {
		return t.describeError(err)
	}

	return t.describeError(t.tryWrite(ctx))
}

// CreateTable returns the function for [export.Config.Create] that writes a table of a run on this
// machine. When it is whole it is moved into the store.
func (t *Target) CreateTable(ctx context.Context, run string) func(path string) (export.File, error) {
	return func(path string) (export.File, error) {
		file, err := export.CreateFile(path)
		if err != nil {
			return nil, err
		}

		move := func() error {
			defer os.Remove(path)

			sum, _, err := output.HashFile(path)
			if err != nil {
				return err
			}

			return t.describeError(t.upload(ctx, localFile{path, sum}, run))
		}

		return movedFile{file, move}, nil
	}
}

// movedFile is a table that is moved into a store.
type movedFile struct {
	export.File

	// move moves the file.
	move func() error
}

// Commit implements export.File.
func (f movedFile) Commit(err error) error {
	if err := f.File.Commit(err); err != nil {
		return err
	}
	return f.move()
}
