// Package export joins the answers of a run with the rows of its input, as a table.
//
// [Write] writes one row for each row of the input, in its order: the columns of the input, with their
// types, and the answer, or why there is none. [Check] compares a table with what Write would write.
package export

import (
	"context"
	"io"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
)

// Config names the parts of a table.
type Config struct {
	// Input is the input of the run. Required.
	Input producer.Source
	// Run is the run. Required.
	Run proto.Manifest
	// Output has the output lines. Lines in the order of the input are merged with it; others are sorted
	// first. Required.
	Output output.Prefix
	// Path is the path of the table; its ending decides the format: see [Formats]. Required.
	Path string
	// Shards is the number of files, NAME-00000-of-0000N.EXT, each with the same number of rows but for
	// one. Defaults to one file, Path.
	Shards int
	// Create creates a file that appears when it is committed. Defaults to atomicfile's.
	Create func(path string) (File, error)
}

// File is a file that appears when it is committed.
type File interface {
	io.Writer
	// Commit makes the file appear, or removes it if err is not nil.
	Commit(err error) error
}

// Write writes the table. It can be interrupted and repeated: each file appears only when it is whole.
func Write(ctx context.Context, cfg Config) ([]metadata.TableFile, error) { panic("not there yet") }

// Check compares the table's files with what Write would write. The error is a [MismatchError] if a row
// is missing, differs or is there twice.
func Check(ctx context.Context, cfg Config) (rows int, err error) { panic("not there yet") }
