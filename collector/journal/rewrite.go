package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
)

// Rewrite turns a complete journal into the output files. It can be interrupted and
// repeated: each file appears only when it is whole. It returns a [CorruptionError] if a
// line cannot be read.
func (j *Journal) Rewrite(ctx context.Context, out output.Prefix, format output.Format) error {
	if err := j.claim.CheckTargets(out); err != nil {
		return err
	}

	sizes := j.state.Sizes
	if format.Plain {
		sizes.OK, sizes.Failed = sizes.OKPlain, sizes.FailedPlain
	}

	results, err := j.createLines(out.Results(), sizes.OK, format.Seekable)
	if err != nil {
		return err
	}
	defer results.Abort() // does nothing after Finish

	files := []*output.LineWriter{results}
	failures := results

	if j.state.Counts.Failed > 0 {
		if failures, err = j.createLines(out.Errors(), sizes.Failed, format.Seekable); err != nil {
			return err
		}
		defer failures.Abort()
		files = append(files, failures)
	}

	write := func(_ uint32, failed bool, line []byte) error {
		if format.Plain {
			line = proto.StripExtras(line)
		}
		if failed {
			return failures.WriteLine(line)
		}
		return results.WriteLine(line)
	}
	if format.Ordered {
		err = j.orderedLines(ctx, write)
	} else {
		err = j.allLines(ctx, write)
	}
	if err != nil {
		return err
	}

	for _, file := range slices.Backward(files) {
		if err := file.Finish(); err != nil {
			return err
		}
	}

	if j.state.Counts.Failed == 0 {
		return removeErrors(out)
	}

	return nil
}

// createLines begins a file of size bytes of lines.
func (j *Journal) createLines(path string, size int64, seekable bool) (*output.LineWriter, error) {
	file, err := j.CreateFile(path)
	if err != nil {
		return nil, err
	}
	return output.NewLineWriter(file, size, seekable)
}

// removeErrors removes the failed requests that an earlier run has left.
func removeErrors(out output.Prefix) error {
	path, err := atomicfile.FollowLinks(out.Errors())
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the errors of an earlier run: %w", err)
	}

	return nil
}
