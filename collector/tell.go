package collector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// ErrDeleted is returned when a run was taken off the bus while it was collected.
var ErrDeleted = errors.New("the run was deleted")

// begin takes the run: nobody else may collect it, and the bus knows where to.
func (c *Collector) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	b, err := bus.Open(ctx, c.cfg.JS)
	if err != nil {
		return err
	}

	c.runs, c.leases, c.heartbeats = b.Runs, b.Leases, b.Heartbeats

	if err := c.leases.Acquire(ctx, c.run, c.info()); err != nil {
		return err
	}

	err = c.runs.Update(ctx, c.run, func(m *proto.Manifest) error {
		m.Output = c.info().String()
		return nil
	})
	if err != nil {
		return err
	}

	// An earlier process may have ended the run and died over its files.
	if err := c.look(ctx); err != nil {
		return err
	}

	before := c.cfg.Journal.State().At
	if err := c.cfg.Journal.BeginSession(); err != nil {
		return err
	}

	c.gap = [2]time.Time{before, c.cfg.Journal.State().At}

	return nil
}

func (c *Collector) info() proto.CollectorInfo {
	return proto.CollectorInfo{Host: c.cfg.Host, Output: string(c.cfg.Output)}
}

// leave lets somebody else collect the run.
func (c *Collector) leave(ctx context.Context) {
	// Not for long: the claim ends by itself.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()

	who, ok, err := c.leases.Holder(ctx, c.run)
	if err == nil && ok && who == c.info() {
		err = c.leases.Release(ctx, c.run)
	}
	if err != nil {
		c.cfg.Log.Debug().Err(err).Msg("take back the claim on the run")
	}
}

// tell exchanges news with the bus once a second: what is synced goes into the
// manifest, and the results stream may forget it; workers tell what they do; and the run
// may have been cancelled, deleted, or its time be over. It returns an error when
// collecting has to end.
func (c *Collector) tell(ctx context.Context, done <-chan struct{}) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()

	var told proto.Counts
	var surveyed time.Time
	claimed := time.Now()
	for {
		select {
		case <-tick.C:
		case <-done:
			return nil
		case <-ctx.Done():
			return nil
		}

		c.clock.ask(time.Now())
		c.mu.Lock()
		counts, synced, spent := c.durable, c.synced, c.spent
		c.spent = nil
		c.mu.Unlock()

		err := errors.Join(c.purge(ctx, synced), c.forget(ctx, spent))
		if counts != told {
			err = errors.Join(err, c.note(ctx, counts))
			told = counts
		}

		if time.Since(claimed) >= proto.PresenceTTL/5 {
			claimed = time.Now()
			err = errors.Join(err, c.leases.Acquire(ctx, c.run, c.info()))
		}

		if time.Since(surveyed) >= proto.PresenceTTL/5 {
			surveyed = time.Now()
			err = errors.Join(err, c.survey(ctx))
		}

		err = errors.Join(err, c.look(ctx))
		c.clock.answered(time.Now(), err)
		switch {
		case errors.Is(err, proto.ErrLeaseHeld) || errors.Is(err, ErrDeleted):
			return err
		case err != nil && ctx.Err() == nil:
			c.cfg.Log.Warn().Err(err).Msg("exchange news with the bus; trying on")
		}
	}
}

// look looks for a reason to end the run early.
func (c *Collector) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	m, err := c.runs.Get(ctx, c.run)
	if errors.Is(err, proto.ErrNoRun) {
		return fmt.Errorf("run %s: %w", c.run, ErrDeleted)
	}
	if err != nil || c.ending.Load() != nil {
		return err
	}

	switch {
	case m.State == proto.StateCancelling:
		c.ending.Store(&cancelled)
	case m.Policy.ExpiresAt != nil && time.Now().After(*m.Policy.ExpiresAt) && c.incomplete(m):
		err := c.runs.Update(ctx, c.run, func(m *proto.Manifest) error {
			m.State = proto.StateFinalizing // so that workers let go of it
			return nil
		})
		if err != nil {
			return err
		}

		c.ending.Store(&expired)
	default:
		return nil
	}

	c.cfg.Log.Info().Str("as", string(c.ending.Load().state)).Msg("ending the run")

	return nil
}

// incomplete reports whether some requests have no line, or one that says that they
// were not run.
func (c *Collector) incomplete(m proto.Manifest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.received.Done < c.total || c.received.Skipped > m.Input.Invalid
}

// note writes the counts into the manifest.
func (c *Collector) note(ctx context.Context, counts proto.Counts) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.runs.Update(ctx, c.run, func(m *proto.Manifest) error {
		m.Counts = counts
		return nil
	})
}

// forget deletes the objects of requests that have their line.
func (c *Collector) forget(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	objects := bus.New(c.cfg.JS).Objects(c.run)
	for _, name := range names {
		if err := objects.Delete(ctx, name); err != nil {
			return err // it goes with the run
		}
	}

	return nil
}

// purge makes room in the results stream once it is more than half full. The newer
// half of the messages stays: workers look there for what a shard has done already,
// and readers downstream have it as their slack.
func (c *Collector) purge(ctx context.Context, synced journal.Position) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	stream, err := bus.FindStream(ctx, c.cfg.JS, proto.ResultsStream(c.run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil // it is made again, or the run is being deleted
	}
	if err != nil {
		return err
	}

	info := stream.CachedInfo()
	if most := info.Config.MaxBytes; most > 0 {
		if err := c.purgeAnswers(ctx, most/2); err != nil {
			return err
		}
	}

	if info.Config.MaxBytes < 0 || int64(info.State.Bytes) < info.Config.MaxBytes/2 ||
		!info.Created.Equal(synced.Created) {
		return nil
	}

	upTo := min(synced.Sequence, info.State.LastSeq-info.State.Msgs/2)
	if upTo < info.State.FirstSeq {
		return nil
	}

	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1)); err != nil {
		return fmt.Errorf("purge stream %s: %w", proto.ResultsStream(c.run), err)
	}

	c.cfg.Log.Debug().Uint64("up_to", upTo).Msg("purged results that are synced")

	return nil
}

// purgeAnswers deletes the older half of the large answers that are synced, once they have
// more than so many bytes. The newer half stays for those for whom [Collector.purge]
// leaves the newer half of the results.
func (c *Collector) purgeAnswers(ctx context.Context, most int64) error {
	c.mu.Lock()

	var size int64
	for _, a := range c.unneeded {
		size += a.bytes
	}

	n := 0
	if size > most {
		for ; size > most/2; n++ {
			size -= c.unneeded[n].bytes
		}
	}

	old := c.unneeded[:n:n]
	c.unneeded = c.unneeded[n:]
	c.mu.Unlock()

	answers := bus.New(c.cfg.JS).Answers(c.run)
	for _, a := range old {
		if err := answers.Purge(ctx, a.name); err != nil {
			return err // what is left is deleted with the run
		}
	}

	return nil
}
