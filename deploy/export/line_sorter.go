package export

import (
	"bufio"
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/klauspost/compress/s2"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// sortLimits bound the memory of sorting lines.
type sortLimits struct {
	// runBytes is the size of the lines that are sorted in memory at once, in bytes.
	runBytes int
	// runs is the most sorted runs that are merged at once. Each takes a few times [sortBlock] of memory.
	runs int
}

// sortBlock is the size of the blocks in which a sorted run is compressed, in bytes. A reader of a run has
// the memory of a few blocks, and ten million lines have about a hundred runs.
const sortBlock = 16 << 10

// usualSortLimits are the limits of a table.
var usualSortLimits = sortLimits{runBytes: 32 << 20, runs: 128}

// sortedLines are the lines of files that do not have theirs in order. They are sorted in runs, which lie
// in one temporary file without a name: it is gone with the process, however that ends.
type sortedLines struct {
	limits sortLimits
	file   *os.File
	size   int64
	runs   runHeap

	scan jsonscan.Scanner
	// latest is the run of the latest line. Nil: there is none.
	latest *sortedRun
}

// sortLines sorts all lines of a source, with a temporary file in a folder.
func sortLines(ctx context.Context, lines *mergedLines, dir string, limits sortLimits) (*sortedLines, error) {
	file, err := createUnnamed(dir)
	if err != nil {
		return nil, err
	}

	s := &sortedLines{limits: limits, file: file}

	err = s.readAll(ctx, lines)
	for err == nil && len(s.runs) > limits.runs {
		err = s.mergeRuns(ctx)
	}
	if err == nil {
		heap.Init(&s.runs)
		return s, nil
	}

	s.close()

	return nil, err
}

// createUnnamed creates a file and removes its name. It is in a folder or, if that cannot be written, in the
// system's for temporary files: a table there can be compared.
func createUnnamed(dir string) (*os.File, error) {
	const pattern = ".promptmill-sort-*"

	file, err := os.CreateTemp(dir, pattern)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		file, err = os.CreateTemp("", pattern)
	}
	if err != nil {
		return nil, fmt.Errorf("sort the answers: %w", err)
	}

	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, fmt.Errorf("sort the answers: %w", err)
	}

	return file, nil
}

// indexedLine is a line in memory.
type indexedLine struct {
	index int64
	text  []byte
}

// readAll reads the lines into sorted runs.
func (s *sortedLines) readAll(ctx context.Context, lines *mergedLines) error {
	var (
		pending []indexedLine
		text    []byte
	)
	flush := func() error {
		if len(pending) == 0 {
			return nil
		}

		slices.SortStableFunc(pending, func(a, b indexedLine) int { return cmp.Compare(a.index, b.index) })

		w := s.newRun(pending[0].index)
		for _, l := range pending {
			if err := w.write(l); err != nil {
				return err
			}
		}
		pending, text = pending[:0], text[:0]

		return w.close()
	}

	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return err
		}

		raw := lines.latest.text
		if cap(text)-len(text) < len(raw) { // earlier lines keep the memory that they have
			if err := flush(); err != nil {
				return err
			}

			if cap(text) < len(raw) {
				text = make([]byte, 0, max(s.limits.runBytes, len(raw)))
			}
		}

		start := len(text)
		text = append(text, raw...)
		pending = append(pending, indexedLine{line.Index, text[start:]})

		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// mergeRuns merges the first runs into one.
func (s *sortedLines) mergeRuns(ctx context.Context) error {
	first := &sortedLines{file: s.file, runs: slices.Clone(s.runs[:s.limits.runs])}
	rest := slices.Clone(s.runs[s.limits.runs:])
	heap.Init(&first.runs)

	s.runs = nil
	w := s.newRun(first.runs[0].index)
	for {
		line, err := first.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}

		if err := w.write(indexedLine{line.Index, first.latest.text}); err != nil {
			return err
		}

		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}

	err := w.close()
	s.runs = append(rest, s.runs...)

	return err
}

// next implements lineSource.
func (s *sortedLines) next() (outputLine, error) {
	if s.latest != nil {
		if err := s.latest.advance(); err != nil {
			return outputLine{}, fmt.Errorf("sort the answers: %w", err)
		}

		if s.latest.text == nil {
			heap.Pop(&s.runs)
		} else {
			heap.Fix(&s.runs, 0)
		}
		s.latest = nil
	}

	if len(s.runs) == 0 {
		return outputLine{}, io.EOF
	}

	run := s.runs[0]
	if run.text == nil {
		run.open(s.file)
		if err := run.advance(); err != nil {
			return outputLine{}, fmt.Errorf("sort the answers: %w", err)
		}
	}

	s.latest = run

	return parseLine(&s.scan, run.text)
}

// close implements lineSource.
func (s *sortedLines) close() { s.file.Close() }

// sortedRun are lines in order, in a part of the file. It is opened when its first line is due: runs of
// nearly sorted lines hardly overlap.
type sortedRun struct {
	// start and size are the place in the file.
	start, size int64
	// index is the index of the line in text or, before the run is open, of the first line.
	index int64
	text  []byte
	buf   []byte
	r     *bufio.Reader
}

// open begins to read the run.
func (r *sortedRun) open(file *os.File) {
	section := io.NewSectionReader(file, r.start, r.size)
	r.r = bufio.NewReaderSize(s2.NewReader(section, s2.ReaderMaxBlockSize(sortBlock)), 4<<10)
}

// advance reads the next line. At the end text is nil.
func (r *sortedRun) advance() error {
	var head [12]byte
	if _, err := io.ReadFull(r.r, head[:]); errors.Is(err, io.EOF) {
		r.text, r.buf = nil, nil
		return nil
	} else if err != nil {
		return err
	}

	r.index = int64(binary.LittleEndian.Uint64(head[:]))
	n := int(binary.LittleEndian.Uint32(head[8:]))
	r.buf = slices.Grow(r.buf[:0], n)[:n]
	r.text = r.buf

	_, err := io.ReadFull(r.r, r.text)

	return err
}

// runWriter writes a run at the end of the file.
type runWriter struct {
	sorted *sortedLines
	run    *sortedRun
	file   *io.OffsetWriter
	s2     *s2.Writer
}

// newRun begins a run.
func (s *sortedLines) newRun(first int64) *runWriter {
	file := io.NewOffsetWriter(s.file, s.size)

	return &runWriter{
		sorted: s,
		run:    &sortedRun{start: s.size, index: first},
		file:   file,
		s2:     s2.NewWriter(file, s2.WriterBlockSize(sortBlock), s2.WriterConcurrency(1)),
	}
}

// write writes a line.
func (w *runWriter) write(l indexedLine) error {
	var head [12]byte
	binary.LittleEndian.PutUint64(head[:], uint64(l.index))
	binary.LittleEndian.PutUint32(head[8:], uint32(len(l.text)))

	_, err := w.s2.Write(head[:])
	if err == nil {
		_, err = w.s2.Write(l.text)
	}

	return describeSortError(w.sorted.file, err)
}

// close ends the run.
func (w *runWriter) close() error {
	if err := w.s2.Close(); err != nil {
		return describeSortError(w.sorted.file, err)
	}

	end, err := w.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return describeSortError(w.sorted.file, err)
	}

	w.run.size = end
	w.sorted.size += w.run.size
	w.sorted.runs = append(w.sorted.runs, w.run)

	return nil
}

// describeSortError names the folder of the temporary file, which has no name.
func describeSortError(file *os.File, err error) error {
	if err == nil {
		return nil
	}

	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		err = pathErr.Err
	}

	return fmt.Errorf("sort the answers in a temporary file in %s: %w", filepath.Dir(file.Name()), err)
}

// runHeap is a heap of runs by the index of their next line.
type runHeap []*sortedRun

func (h runHeap) Len() int           { return len(h) }
func (h runHeap) Less(i, j int) bool { return h[i].index < h[j].index }
func (h runHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *runHeap) Push(x any) { *h = append(*h, x.(*sortedRun)) }

// Pop implements heap.Interface.
func (h *runHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
