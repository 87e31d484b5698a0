package collector

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/promptmill/promptmill/proto"
)

// errDamaged is returned when the contents of a journal frame cannot be read.
var errDamaged = errors.New("the journal is damaged")

// windowTarget bounds the lines that an ordered rewrite holds at once, in bytes.
const windowTarget = 64 << 20

// takeLine receives an output line, valid until it returns, and whether its request
// failed.
type takeLine func(seq uint32, failed bool, line []byte) error

// rewrite turns a complete journal into the output files. It can be interrupted and
// repeated: each file appears only when it is whole.
func (j *Journal) rewrite(ctx context.Context, out Output, f Format) error {
	s := &j.state
	okSize, failedSize := s.Sizes.OK, s.Sizes.Failed
	if f.Plain {
		okSize, failedSize = s.Sizes.OKPlain, s.Sizes.FailedPlain
	}

	if err := j.allUnmoved(out); err != nil {
		return err
	}

	results, err := j.createLines(out.Results(), okSize, f.Seekable)
	if err != nil {
		return err
	}
	defer results.Abort() // nothing is left to abort after commit

	files := []*lineFile{results}
	failures := results
	if s.Counts.Failed > 0 {
		if failures, err = j.createLines(out.Errors(), failedSize, f.Seekable); err != nil {
			return err
		}
		defer failures.Abort()
		files = append(files, failures)
	}

	take := func(_ uint32, failed bool, line []byte) error {
		if f.Plain {
			line = proto.StripExtras(line)
		}
		if failed {
			return failures.write(line)
		}
		return results.write(line)
	}
	if f.Ordered {
		err = j.ordered(ctx, take)
	} else {
		err = j.each(ctx, 0, 1<<32-1, take)
	}
	if err != nil {
		return err
	}

	for _, file := range slices.Backward(files) {
		if err := file.commit(); err != nil {
			return err
		}
	}

	if s.Counts.Failed == 0 {
		path, err := follow(out.Errors())
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the errors of an earlier run: %w", err)
		}
	}

	return nil
}

// each gives out the lines of requests from first to last, in the order of the file.
func (j *Journal) each(ctx context.Context, first, last uint32, take takeLine) error {
	u, err := newUnpacker()
	if err != nil {
		return err
	}
	defer u.close()

	end, damaged, err := j.frames(func(p place) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

		if p.Packed == 0 {
			return nil
		}

		seqs, err := proto.ParseIndexes(p.Seqs, p.Counts.Done)
		if err != nil {
			return fmt.Errorf("%w: frame at byte %d: %w", errDamaged, p.offset, err)
		}

		if len(seqs) == 0 || seqs[0] > last || seqs[len(seqs)-1] < first {
			return nil
		}

		failed, err := proto.ParseIndexes(p.Failed, p.Counts.Done)
		if err != nil {
			return fmt.Errorf("%w: frame at byte %d: %w", errDamaged, p.offset, err)
		}

		text, err := u.unpack(j.file, p)
		if err == nil && len(seqs) != p.Counts.Done {
			err = fmt.Errorf("%d numbers for %d requests", len(seqs), p.Counts.Done)
		}
		if err != nil {
			return fmt.Errorf("%w: frame at byte %d: %w", errDamaged, p.offset, err)
		}

		i := 0
		for line := range bytes.Lines(text) {
			seq := seqs[i]
			i++

			bad := len(failed) > 0 && failed[0] == seq
			if bad {
				failed = failed[1:]
			}

			if seq < first || seq > last {
				continue
			}

			if err := take(seq, bad, line); err != nil {
				return err
			}
		}

		return nil
	})
	if err == nil && (damaged || end != j.size) {
		return errDamaged
	}

	return err
}

// ordered gives out all lines in the order of their numbers, in bounded memory: it
// takes them in windows of numbers, and reads for each window only the frames that
// have some of it. Frames come in nearly the order of the input, so most are read
// once or twice, unless requests were grouped by prefix: then each is read once for
// each window of the numbers that it has.
func (j *Journal) ordered(ctx context.Context, take takeLine) error {
	total := uint64(j.state.Manifest.Input.Requests)
	size := uint64(j.state.Sizes.OK + j.state.Sizes.Failed)
	windows := size/windowTarget + 1
	width := (total + windows - 1) / windows
	type lineOf struct {
		seq    uint32
		failed bool
		line   []byte
	}

	var lines []lineOf
	for first := uint64(0); first < total; first += width {
		lines = lines[:0]
		err := j.each(ctx, uint32(first), uint32(min(first+width, total)-1),
			func(seq uint32, failed bool, line []byte) error {
				lines = append(lines, lineOf{seq, failed, bytes.Clone(line)})
				return nil
			})
		if err != nil {
			return err
		}

		slices.SortFunc(lines, func(a, b lineOf) int { return cmp.Compare(a.seq, b.seq) })
		for _, l := range lines {
			if err := take(l.seq, l.failed, l.line); err != nil {
				return err
			}
		}
	}

	return nil
}
