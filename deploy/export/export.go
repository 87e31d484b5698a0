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
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
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
	// CheckInput is called once, before the first file appears. Its error, such as that the input has changed,
	// removes the files. Defaults to no check.
	CheckInput func(context.Context) error
	// KeepOthers reports that a file of a path is refused if it has other contents than the table's, with an
	// [OtherFileError]. Defaults to false: it is replaced.
	KeepOthers bool
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

// OtherFileError reports that a file with other contents is in the place of a table.
type OtherFileError struct {
	// Path is the path of the file.
	Path string
}

// Error implements error.
func (e *OtherFileError) Error() string {
	return files.Short(e.Path) + " is there, and has other contents than this table"
}

// Write writes the table. It can be interrupted and repeated: its files appear only when all are whole.
// The error is a [MismatchError] if the output does not match the input, and an [OtherFileError] if a file is not
// to be replaced.
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

	var parts []*partFile
	for i, path := range Paths(cfg.Path, cfg.Shards) {
		part, partErr := newPartFile(cfg, path, partRows(cfg.Run.Input.Requests, cfg.Shards, i))
		if partErr != nil {
			return nil, commitParts(parts, partErr)
		}
		parts = append(parts, part)

		if err := part.finish(writeRows(ctx, f, j, part)); err != nil {
			return nil, commitParts(parts, err)
		}
	}

	if err := commitParts(parts, checkBeforeCommit(ctx, cfg, j, parts)); err != nil {
		return nil, err
	}

	var tables []metadata.TableFile
	for _, part := range parts {
		tables = append(tables, metadata.TableFile{
			File:   filepath.Base(part.path),
			SHA256: part.sum,
			Rows:   part.rows,
		})
	}

	return tables, nil
}

// checkBeforeCommit returns the reason why the files of a table that are written must not appear.
func checkBeforeCommit(ctx context.Context, cfg Config, j *joiner, parts []*partFile) error {
	if err := j.checkEnd(); err != nil {
		return err
	}

	for _, part := range parts {
		if !cfg.KeepOthers {
			break
		}

		sum, _, err := output.HashFile(part.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case sum != part.sum:
			return exit.WithHint(&OtherFileError{part.path}, otherFileHint)
		}
	}

	if cfg.CheckInput != nil {
		return cfg.CheckInput(ctx)
	}

	return nil
}

// commitParts makes files appear. After an error, or if err is not nil, it removes the rest of them.
func commitParts(parts []*partFile, err error) error {
	for _, part := range parts {
		err = part.file.Commit(err)
	}
	return err
}

// partRows returns the number of rows of the i-th of n parts.
func partRows(rows, n, i int) int {
	count := rows / n
	if i < rows%n {
		count++
	}
	return count
}

// writeRows writes the next rows into a file.
func writeRows(ctx context.Context, f format, j *joiner, file *partFile) error {
	w, err := f.newWriter(file, j.columns, j.run.Run)
	if err != nil {
		return err
	}

	return w.close(copyRows(ctx, w, j, file.rows))
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
