package collector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// ErrResultsGone is returned when the bus does not have all results of an ended run any more.
var ErrResultsGone = errors.New("the bus no longer has all of its results")

// Copy writes the output files of a run that has ended, from the results that are still on the bus,
// and returns nil. It changes nothing on the bus. ended is the run's manifest there. When ctx ends,
// Copy syncs what it has and returns ctx's cause. It returns an error that wraps [ErrResultsGone]
// when requests have no line on the bus; the caller removes the journal.
func (c *Collector) Copy(ctx context.Context, ended proto.Manifest) error {
	// The run has lines of requests that were not executed, if it ended early, and no limit stops it.
	c.ends.end.Store(&earlyEnd{state: ended.State})

	at := time.Now().UTC()
	if ended.EndedAt != nil {
		at = *ended.EndedAt
	}

	for {
		state := c.cfg.Journal.State()
		from := laterOf(state.Manifest.CreatedAt, state.Position.Time)
		*c.gap = collectionGap{from: from, begin: from, to: at, lostFrom: at}

		s := c.newSession()
		s.copying = true
		if err := s.copyResults(ctx); err != nil {
			return fmt.Errorf("collector: %w", err)
		}

		err := c.finishCopy(ctx, at)
		switch {
		case isCorruption(err):
			c.cfg.Log.Error().Err(err).Msg("the journal is damaged; reading the lost results again")

			if err := c.cfg.Journal.Repair(); err != nil {
				return fmt.Errorf("collector: %w", err)
			}
		case errors.Is(err, errForeignLines):
			c.cfg.Log.Error().Err(err).Msg("dropped lines of other requests")
		case err != nil:
			return fmt.Errorf("collector: %w", err)
		default:
			return nil
		}

		c.ledger.reset(c.cfg.Journal.State())
	}
}

// copyResults reads results into the journal until no request lacks its line.
func (s *session) copyResults(ctx context.Context) error {
	group, broken := errgroup.WithContext(context.WithoutCancel(ctx))
	broken, stop := context.WithCancel(broken)
	defer stop()

	group.Go(func() error { return s.writeFrames(stop) })

	err := s.readRemaining(ctx, broken)
	s.closeFrame()
	close(s.frames)

	if failed := group.Wait(); failed != nil {
		return failed
	}

	return err
}

// readRemaining takes the results off the bus that are there. It returns nil when it has
// all. When broken ends, the writer has the error.
func (s *session) readRemaining(ctx, broken context.Context) error {
	for s.missing() > 0 {
		n, err := s.source.fetchMessages(ctx, 50*time.Millisecond, s.handleMessage)
		if err == nil && n == 0 {
			_, err = s.source.nextMessage(ctx, s.source.at.Sequence+1)
		}

		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case broken.Err() != nil:
			return broken.Err()
		case errors.Is(err, jetstream.ErrMsgNotFound), errors.Is(err, jetstream.ErrStreamNotFound):
			return fmt.Errorf("%w: %d are missing", ErrResultsGone, s.missing())
		case err != nil:
			s.log.Warn().Err(err).Msg("failed to read results; retrying")

			if err := bus.Sleep(ctx, 500*time.Millisecond); err != nil {
				return err
			}
		}

		if s.frame.Position.Sequence > 0 && time.Since(s.frame.opened) >= s.flushInterval {
			s.closeFrame()
		}
	}

	return nil
}

// finishCopy writes the output files and the metadata of a complete journal of a run that ended at a
// time, and removes the journal.
func (c *Collector) finishCopy(ctx context.Context, ended time.Time) error {
	c.ledger.setFinishing()

	if err := checkDigest(ctx, c.cfg.Journal, c.cfg.Input); err != nil {
		return err
	}

	if err := c.cfg.Journal.Rewrite(ctx, c.cfg.Output, c.cfg.Format); err != nil {
		return fmt.Errorf("write output files: %w", err)
	}

	if err := c.writeMetadata(ctx, ended); err != nil {
		return err
	}

	if c.cfg.OnWritten != nil {
		c.cfg.OnWritten()
	}

	c.removeTemporaries()

	return nil
}
