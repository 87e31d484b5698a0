package collector

import (
	"context"
	"errors"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// errForeignLines is returned when the journal had lines that answer other requests than
// the run's. They are not in it any more.
var errForeignLines = errors.New("results of other requests were taken for the run's")

// prove compares the digest of all lines with that of the input. It differs when a line
// answers another request than the one with its number: a worker has sent it so, or the
// input was changed while it was published. Such lines are taken out of the journal.
func (c *Collector) prove(ctx context.Context) error {
	s := c.cfg.Journal.State()
	if s.Digest == s.Manifest.Input.Digest {
		return nil
	}

	foreign, err := c.findForeign(ctx)
	if err != nil {
		return err
	}

	if foreign.IsEmpty() {
		return fmt.Errorf("%w: the headers of %s have the digest %s, but each of its lines answers its request",
			proto.ErrFormat, c.cfg.Output.Journal(), s.Digest)
	}

	if err := c.cfg.Journal.Drop(foreign); err != nil {
		return fmt.Errorf("take lines of other requests out of the journal: %w", err)
	}

	return fmt.Errorf("%w: %d lines, the first as that of request %d",
		errForeignLines, foreign.GetCardinality(), foreign.Minimum())
}

// proofWindow is how many requests are compared with their lines at a time. They take 8
// bytes each. A journal is read once for each window.
const proofWindow = 1 << 22

// findForeign returns the requests whose lines answer others.
func (c *Collector) findForeign(ctx context.Context) (*roaring.Bitmap, error) {
	var (
		foreign = roaring.New()
		sum     proto.Digest
		window  = make([]proto.Digest, 0, min(proofWindow, c.total))
		first   uint32
	)

	compare := func() error {
		if len(window) == 0 {
			return nil
		}

		err := c.compareLines(ctx, first, window, foreign)
		first += uint32(len(window))
		window = window[:0]

		return err
	}

	for r, err := range c.cfg.Input.Requests(roaring.Flip(roaring.New(), 0, uint64(c.total))) {
		if err != nil {
			return nil, fmt.Errorf("compare the lines with the input: %w", err)
		}

		d := proto.DigestOf(r.Index, r.CustomID, r.Hash())
		sum += d

		window = append(window, d)
		if len(window) == cap(window) {
			if err := compare(); err != nil {
				return nil, err
			}
		}
	}

	if err := compare(); err != nil {
		return nil, err
	}

	if sum != c.cfg.Journal.State().Manifest.Input.Digest {
		return nil, proto.ErrInputChanged
	}

	return foreign, nil
}

// compareLines adds the requests from first on to foreign whose lines have other digests.
func (c *Collector) compareLines(
	ctx context.Context, first uint32, wanted []proto.Digest, foreign *roaring.Bitmap,
) error {
	var scan jsonscan.Scanner
	last := first + uint32(len(wanted)) - 1

	return c.cfg.Journal.Lines(ctx, first, last, func(seq uint32, _ bool, line []byte) error {
		info, err := proto.ParseLine(&scan, line)
		if err != nil || !info.Hashed || proto.DigestOf(seq, info.CustomID, info.RequestHash) != wanted[seq-first] {
			foreign.Add(seq)
		}

		return nil
	})
}
