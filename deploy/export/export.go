// Package export joins the answers of a run with the rows of its input, as a table.
//
// [Write] writes one row for each request of the run, in the order of the input: the columns of the input,
// with their types, and the answer, or the reason why there is none:
//
//	answer         the text of the first choice; without one the tool calls as JSON; of an embedding the
//	               vector as JSON; null if the request failed, unless the answer does not match the schema
//	FIELD ...      with a JSON Schema of the answers: its properties, with their types; null if the answer
//	               has no such field, or a value of another type
//	finish_reason  the reason why the answer ended
//	error          the code and the message of the error; null if the request was answered
//	input_tokens   the tokens of the prompt, and
//	output_tokens  of the answer; null if the model server did not count them
//	latency_ms     the whole milliseconds of the last attempt; null if the request was not sent
//
// If the input has a column of one of these names, all of them end in _2, or in the next number that is
// free. A run of requests, not of rows, has the one input column custom_id.
//
// The ending of a path decides the format: see [Formats]. CSV cannot distinguish null from an empty text;
// both are an empty field. In Parquet, a field whose numbers do not fit into 64 bits is a column of text.
//
// The lines of an output are merged if they are in order, and sorted on disk first if they are not. So the
// memory does not depend on the number of rows. Each line is compared with its request, by index and
// custom_id: an output that lacks a line, has one twice, or is of another input is a [MismatchError], and
// no table. [Check] compares a table with the one that Write would write.
package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
)

// Config names the parts of a table.
type Config struct {
	// Input is the input of the run. Required.
	Input producer.Source
	// Run is the run. Required.
	Run proto.Manifest
	// Output has the output lines. Required.
	Output output.Prefix
	// Ordered reports that each file of the output has its lines in the order of the input. Others are
	// sorted first, in a temporary file in the folder of Path. Defaults to false.
	Ordered bool
	// Path is the path of the table; its ending decides the format: see [Formats]. Required.
	Path string
	// Shards is the number of files, NAME-00000-of-0000N.EXT, each with the same number of rows but for
	// one. Defaults to one file, Path.
	Shards int
	// CheckInput is called just before a file appears. Its error, such as that the input has changed,
	// removes the file. Defaults to no check.
	CheckInput func(context.Context) error
	// Create creates a file that appears when it is committed. Defaults to atomicfile's.
	Create func(path string) (File, error)
}

// File is a file that appears when it is committed.
type File interface {
	io.Writer
	// Commit makes the file appear, or removes it if err is not nil.
	Commit(err error) error
}

// MismatchError reports that an output does not have exactly one line for each row of its input.
type MismatchError struct {
	// File is the path of the input file with the row; empty if the row is none of the input.
	File string
	// Row is the number of the row in its file, from 1.
	Row int
	// Problem describes the mismatch.
	Problem string
}

// Error implements error.
func (e *MismatchError) Error() string {
	if e.File == "" {
		return "the output does not match its input: " + e.Problem
	}
	return fmt.Sprintf("%s, row %d: %s", e.File, e.Row, e.Problem)
}

// withDefaults returns the configuration with its defaults.
func (c Config) withDefaults() (Config, format, error) {
	f, ok := formatOf(c.Path)
	if !ok {
		return c, f, fmt.Errorf("export: Config.Path is %q, must end in one of %q", c.Path, Formats())
	}

	c.Shards = max(c.Shards, 1)
	if c.Shards > MaxShards {
		return c, f, fmt.Errorf("export: Config.Shards is %d, must be at most %d", c.Shards, MaxShards)
	}

	if c.Create == nil {
		c.Create = CreateFile
	}

	return c, f, nil
}

// CreateFile begins a file of this machine, which appears when it is committed.
func CreateFile(path string) (File, error) {
	file, err := atomicfile.Create(path, output.Mode)
	if err != nil {
		return nil, fmt.Errorf("the table %s cannot be written: %w", files.Short(path), files.WithoutPath(err))
	}

	return file, nil
}

// Write writes the table. It can be interrupted and repeated: each file appears only when it is whole.
// The error is a [MismatchError] if the output does not match the input.
func Write(ctx context.Context, cfg Config) ([]metadata.TableFile, error) {
	cfg, f, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}

	var tables []metadata.TableFile
	err = widenColumns(func(wide []string) error {
		tables, err = writeParts(ctx, cfg, f, wide)
		return err
	})

	return tables, err
}

// widenColumns calls a function until no number is too large for its column, with the columns whose numbers
// were too large.
func widenColumns(run func(wide []string) error) error {
	var wide []string
	for {
		err := run(wide)

		tooWide, ok := errors.AsType[*wideNumberError](err)
		if !ok || slices.Contains(wide, tooWide.column) {
			return err
		}
		wide = append(wide, tooWide.column)
	}
}

// writeParts writes all files of a table, some of whose columns have numbers of any size.
func writeParts(ctx context.Context, cfg Config, f format, wide []string) ([]metadata.TableFile, error) {
	j, err := newJoiner(ctx, cfg, f, wide)
	if err != nil {
		return nil, err
	}
	defer j.close()

	var tables []metadata.TableFile
	for i, path := range Paths(cfg.Path, cfg.Shards) {
		of, err := writePart(ctx, cfg, f, j, path, partRows(cfg.Run.Input.Requests, cfg.Shards, i))
		if err != nil {
			return nil, err
		}
		tables = append(tables, of)
	}

	return tables, nil
}

// partRows returns the number of rows of the i-th of n parts.
func partRows(rows, n, i int) int {
	of := rows / n
	if i < rows%n {
		of++
	}
	return of
}

// writePart writes one file of a table with the next rows.
func writePart(
	ctx context.Context, cfg Config, f format, j *joiner, path string, rows int,
) (of metadata.TableFile, err error) {
	file, err := newPartFile(cfg, path)
	if err != nil {
		return of, err
	}

	err = writeRows(ctx, f, j, file, rows)
	if err == nil && j.isAtEnd() { // before the last file appears
		err = j.checkEnd()
	}
	if err == nil && cfg.CheckInput != nil {
		err = cfg.CheckInput(ctx)
	}

	return metadata.TableFile{
		File:   filepath.Base(path),
		SHA256: file.sum(),
		Rows:   rows,
	}, file.Commit(err)
}

// writeRows writes the next rows into a file.
func writeRows(ctx context.Context, f format, j *joiner, file *partFile, rows int) error {
	w, err := f.newWriter(file, j.columns, j.run.Run)
	if err != nil {
		return err
	}

	if err := w.close(copyRows(ctx, w, j, rows)); err != nil {
		return err
	}

	return file.flush()
}

// copyRows writes the next rows.
func copyRows(ctx context.Context, w rowWriter, j *joiner, rows int) error {
	for i := range rows {
		if i%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}

		columns, values, err := j.next()
		if err != nil {
			return err
		}

		if err := w.writeRow(columns, values); err != nil {
			return err
		}
	}

	return nil
}
