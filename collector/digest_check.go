package collector

import (
	"context"
	"errors"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// errForeignLines is returned when the journal had lines that answer other requests than
// the run's. They are not in it any more.
var errForeignLines = errors.New("results of other requests were taken for the run's")

// checkDigest compares the digest of all lines with that of the input. It differs when a
// line answers another request than the one of its index: a worker has sent it so, or the
// input was changed while it was published. checkDigest takes such lines out of the journal
// and returns an error that wraps errForeignLines.
func checkDigest(ctx context.Context, j *journal.Journal, input Input) error {
	s := j.State()
	if s.Digest == s.Manifest.Input.Digest {
		return nil
	}

	foreign, err := findForeignLines(ctx, j, input)
	if err != nil {
		return err
	}

	if foreign.IsEmpty() {
		return fmt.Errorf("%w: the headers of the journal have the digest %s, but each of its lines answers its request",
			proto.ErrFormat, s.Digest)
	}

	if err := j.Drop(foreign); err != nil {
		return fmt.Errorf("drop lines of other requests from the journal: %w", err)
	}

	return fmt.Errorf("%w: %d lines, the first as that of request %d",
		errForeignLines, foreign.GetCardinality(), foreign.Minimum())
}

// digestWindow is the number of requests that are compared with their lines at a time. They
// take 8 bytes each. A journal is read once for each window.
const digestWindow = 1 << 22

// findForeignLines returns the requests whose lines answer others.
func findForeignLines(ctx context.Context, j *journal.Journal, input Input) (*roaring.Bitmap, error) {
	var (
		total   = j.State().Manifest.Input.Requests
		foreign = roaring.New()
		sum     proto.Digest
		window  = make([]proto.Digest, 0, min(digestWindow, total))
		first   uint32
	)

	compareWindow := func() error {
		if len(window) == 0 {
			return nil
		}

		err := compareLines(ctx, j, first, window, foreign)
		first += uint32(len(window))
		window = window[:0]

		return err
	}

	for r, err := range input.Requests(ctx, roaring.Flip(roaring.New(), 0, uint64(total))) {
		if err != nil {
			return nil, fmt.Errorf("compare the lines with the input: %w", err)
		}

		d := proto.DigestOf(r.Index, r.CustomID, r.Hash())
		sum += d

		window = append(window, d)
		if len(window) == cap(window) {
			if err := compareWindow(); err != nil {
				return nil, err
			}
		}
	}

	if err := compareWindow(); err != nil {
		return nil, err
	}

	if sum != j.State().Manifest.Input.Digest {
		return nil, proto.ErrInputChanged
	}

	return foreign, nil
}

// compareLines compares the lines of requests, from first on, with their digests. It adds
// the requests whose lines have other digests to foreign.
func compareLines(
	ctx context.Context, j *journal.Journal, first uint32, wanted []proto.Digest, foreign *roaring.Bitmap,
) error {
	var scan jsonscan.Scanner
	last := first + uint32(len(wanted)) - 1

	return j.Lines(ctx, first, last, func(index uint32, _ bool, line []byte) error {
		info, err := proto.ParseLine(&scan, line)
		if err != nil || !info.Hashed || proto.DigestOf(index, info.CustomID, info.RequestHash) != wanted[index-first] {
			foreign.Add(index)
		}

		return nil
	})
}
