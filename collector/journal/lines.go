package journal

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// windowTarget bounds the lines that an ordered read holds at once, in bytes.
const windowTarget = 64 << 20

// LineFunc receives the output line of a request, and whether the request failed. The line
// is valid until the function returns.
type LineFunc func(index uint32, failed bool, line []byte) error

// Lines calls yield with the lines of the requests from first to last, in the order of the
// file. It returns a [CorruptionError] if a line cannot be read, maybe after others were
// given out.
func (j *Journal) Lines(ctx context.Context, first, last uint32, yield LineFunc) error {
	frames, err := j.newReader()
	if err != nil {
		return err
	}

	lines, err := newLineDecoder()
	if err != nil {
		return err
	}
	defer lines.Close()

	end, damage, err := frames.readFrames(func(f frameRef) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

		if f.Packed == 0 {
			return nil
		}

		return frames.yieldLines(f, lines, first, last, yield)
	})
	if err != nil {
		return err
	}

	if damage < 0 && end != j.size {
		damage = end
	}

	if damage >= 0 {
		return frames.corruption(damage, errNoFrame)
	}

	return nil
}

// yieldLines is Lines for one frame.
func (r *frameReader) yieldLines(f frameRef, d *lineDecoder, first, last uint32, yield LineFunc) error {
	indexes, err := proto.ParseIndexes(f.Indexes, f.Counts.Done)
	if err != nil {
		return r.corruption(f.offset, err)
	}

	if len(indexes) == 0 || indexes[0] > last || indexes[len(indexes)-1] < first {
		return nil
	}

	failures, err := proto.ParseIndexes(f.Failed, f.Counts.Done)
	if err != nil {
		return r.corruption(f.offset, err)
	}

	text, err := d.decode(r, f)
	if err != nil {
		return err
	}

	if len(indexes) != f.Counts.Done {
		return r.corruption(f.offset, fmt.Errorf("%d indexes for %d requests", len(indexes), f.Counts.Done))
	}

	i := 0
	for line := range bytes.Lines(text) {
		index := indexes[i]
		i++

		failed := len(failures) > 0 && failures[0] == index
		if failed {
			failures = failures[1:]
		}

		if index < first || index > last {
			continue
		}

		if err := yield(index, failed, line); err != nil {
			return err
		}
	}

	return nil
}

// FailedLines returns the lines of failed requests, most at most, of the latest frames first. It
// skips frames that cannot be read.
func (j *Journal) FailedLines(most int) (list [][]byte, err error) {
	frames, err := j.newReader()
	if err != nil {
		return nil, err
	}

	lines, err := newLineDecoder()
	if err != nil {
		return nil, err
	}
	defer lines.Close()

	const mostFrames = 64 // to keep in memory

	var refs []frameRef
	_, _, err = frames.readFrames(func(f frameRef) error {
		if f.Failed != "" {
			refs = append(refs[max(0, len(refs)-mostFrames+1):], f)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}

	for _, f := range slices.Backward(refs) {
		err := frames.yieldLines(f, lines, 0, math.MaxUint32, func(_ uint32, failed bool, line []byte) error {
			if failed && len(list) < most {
				list = append(list, bytes.Clone(line))
			}
			return nil
		})
		if err != nil && !isCorruption(err) {
			return list, err
		}

		if len(list) == most {
			break
		}
	}

	return list, nil
}

// allLines calls yield with every line, in the order of the file.
func (j *Journal) allLines(ctx context.Context, yield LineFunc) error {
	return j.Lines(ctx, 0, math.MaxUint32, yield)
}

// orderedLines calls yield with every line in the order of the requests, in bounded memory.
// It takes the requests in windows, and reads for each window only the frames that have
// some of it. Frames come in nearly the order of the input, so most are read once or twice,
// unless requests were grouped by prefix: then each is read once for each window that it
// has requests of.
func (j *Journal) orderedLines(ctx context.Context, yield LineFunc) error {
	type indexedLine struct {
		index  uint32
		failed bool
		line   []byte
	}

	total := uint64(j.state.Manifest.Input.Requests)
	size := uint64(j.state.Sizes.OK + j.state.Sizes.Failed)
	windows := size/windowTarget + 1
	width := (total + windows - 1) / windows

	var lines []indexedLine
	for first := uint64(0); first < total; first += width {
		lines = lines[:0]

		err := j.Lines(ctx, uint32(first), uint32(min(first+width, total)-1),
			func(index uint32, failed bool, line []byte) error {
				lines = append(lines, indexedLine{index, failed, bytes.Clone(line)})
				return nil
			})
		if err != nil {
			return err
		}

		slices.SortFunc(lines, func(a, b indexedLine) int { return cmp.Compare(a.index, b.index) })

		for _, l := range lines {
			if err := yield(l.index, l.failed, l.line); err != nil {
				return err
			}
		}
	}

	return nil
}

// Drop takes the lines of some requests out of the journal. Each frame keeps its place and
// all that it holds besides.
func (j *Journal) Drop(requests *roaring.Bitmap) error {
	frames, err := j.newReader()
	if err != nil {
		return err
	}

	lines, err := newLineDecoder()
	if err != nil {
		return err
	}
	defer lines.Close()

	err = j.replaceFile(func(next *Journal) error {
		_, _, err := frames.readFrames(func(f frameRef) error {
			indexes, err := frames.parseIndexes(f)
			if err != nil {
				return err
			}

			if !requests.Intersects(roaring.BitmapOf(indexes...)) {
				return next.copyFrame(j.file, f)
			}

			text, err := lines.decode(frames, f)
			if err != nil {
				return err
			}

			return next.writeWithout(requests, f.header, indexes, text)
		})

		return err
	})
	if err != nil {
		return err
	}

	return j.recoverFrames(false)
}

// writeWithout appends a frame without the lines of some requests.
func (j *Journal) writeWithout(dropped *roaring.Bitmap, h header, indexes []uint32, text []byte) error {
	var (
		scan jsonscan.Scanner
		rest Frame
		i    int
	)
	for line := range bytes.Lines(text) {
		index := indexes[i]
		i++
		if dropped.Contains(index) {
			continue
		}

		info, err := proto.ParseLine(&scan, line)
		if err != nil {
			return err
		}

		info.Worker = bytes.Clone(info.Worker)
		rest.Add(index, line, info)
	}

	rest.Counts.Duplicates, rest.Counts.Dropped = h.Counts.Duplicates, h.Counts.Dropped
	kept, lines := rest.sortLines()
	of := rest.header(kept)
	h.Indexes, h.Failed, h.Sizes, h.Stats = of.Indexes, of.Failed, of.Sizes, of.Stats
	h.Counts, h.Digest = of.Counts, of.Digest

	return j.writeFrame(h, lines, false) // replaceFile syncs
}
