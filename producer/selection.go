package producer

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"

	"github.com/promptmill/promptmill/proto"
)

// selection chooses the rows or lines of an input that are requests of the run.
type selection struct {
	// limit and sample are those of [proto.Settings].
	limit, sample int
	// total is the number of rows or lines of the input; 0: not known yet.
	total int
	// passed counts the rows or lines that were read.
	passed int
	// most is the largest hash of a chosen row; isReady reports that it is known.
	most    uint64
	isReady bool
	// isCounting reports that no more rows are chosen.
	isCounting bool
}

// newSelection returns the selection of settings.
func newSelection(s proto.Settings) selection {
	return selection{limit: s.Limit, sample: s.Sample}
}

// isUnknown reports whether the rows have to be counted before one can be chosen.
func (s *selection) isUnknown() bool { return s.sample > 0 && !s.isReady && !s.isCounting }

// isDone reports whether all requests were read. index is that of the next one.
func (s *selection) isDone(index uint32) bool {
	return s.limit > 0 && int64(index) >= int64(s.limit) && !s.isCounting
}

// next moves behind a row or line, and reports whether it is chosen.
func (s *selection) next() bool {
	s.passed++
	if s.isCounting {
		return false
	}
	return s.sample == 0 || HashRow(s.passed) <= s.most
}

// checkContext returns the error of ctx once in a while: many rows may not be chosen.
func (s *selection) checkContext(ctx context.Context) error {
	if s.passed%4096 == 0 {
		return ctx.Err()
	}
	return nil
}

// HashRow returns the hash by which a row, counted from 1, is chosen for a sample: the rows with the smallest
// hashes are. It is the finalizer of SplitMix64 (Steele, Lea and Flood, 2014). No two rows have the same.
func HashRow(row int) uint64 {
	z := uint64(row) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// findLargestHash returns the largest hash of a sample: of the rows with the smallest hashes.
// Its memory does not grow with the rows.
func findLargestHash(sample, rows int) uint64 {
	if sample >= rows {
		return math.MaxUint64
	}

	const bits = 16
	var counts [1 << bits]int
	for row := range rows {
		counts[HashRow(row+1)>>(64-bits)]++
	}

	bucket, left := 0, sample
	for ; left > counts[bucket]; bucket++ {
		left -= counts[bucket]
	}

	var hashes []uint64
	for row := range rows {
		if h := HashRow(row + 1); int(h>>(64-bits)) == bucket {
			hashes = append(hashes, h)
		}
	}

	slices.Sort(hashes)

	return hashes[left-1]
}

// countForSample finds the rows of the sample. If their number is not known, it reads the input
// once.
func (r *Reader) countForSample() error {
	s := &r.selection
	if s.total == 0 {
		counter := &Reader{
			ctx:       r.ctx,
			source:    r.source,
			parser:    r.parser,
			validated: r.validated,
			bounded:   r.bounded,
		}
		if r.rows != nil {
			counter.rows = &rowReader{settings: r.rows.settings, columns: r.rows.columns}
		}

		var err error
		if s.total, err = counter.countAll(); err != nil {
			return err
		}
	}

	s.most, s.isReady = findLargestHash(s.sample, s.total), true

	return nil
}

// countAll reads the rest of the input, and returns the number of all its rows or lines. The
// reader has no more requests then.
func (r *Reader) countAll() (int, error) {
	defer r.Close()

	r.selection.isCounting = true

	for {
		err := r.nextChosen(&Item{})
		if errors.Is(err, io.EOF) {
			return r.selection.passed, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
