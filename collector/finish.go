package collector

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// finishRun writes the output files and the metadata of a complete journal, and removes the
// journal. Everything in it can be repeated after a crash: until the journal is removed, all
// is done again; after that, all but the state on the bus is there.
func (c *Collector) finishRun(ctx context.Context) error {
	c.ledger.setFinishing()

	if err := checkDigest(ctx, c.cfg.Journal, c.cfg.Input); err != nil {
		return err
	}

	// A run that is being cancelled stays so: this process may die now.
	if end := c.ends.pending(); end == nil || end.state != proto.StateCancelled {
		c.setState(ctx, proto.StateFinalizing)
	}

	if err := c.cfg.Journal.Rewrite(ctx, c.cfg.Output, c.cfg.Format); err != nil {
		return fmt.Errorf("write output files: %w", err)
	}

	// Workers report their usage only every few seconds.
	c.awaitFinalUsage(ctx)

	if err := c.writeMetadata(ctx, time.Now().UTC()); err != nil {
		return err
	}

	if c.cfg.OnWritten != nil {
		c.cfg.OnWritten()
	}

	c.cleanUp(context.WithoutCancel(ctx)) // the run is whole, whatever interrupts it now

	return nil
}

// awaitFinalUsage waits, not for long, until the workers have reported their usage for
// the run.
func (c *Collector) awaitFinalUsage(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, renewInterval+time.Second)
	defer cancel()

	for {
		if _, err := c.workers.poll(ctx, c.bus.Heartbeats); err != nil {
			if ctx.Err() == nil {
				c.cfg.Log.Warn().Err(err).Msg("failed to read the workers' usage for the run")
			}
			return
		}

		stats := c.cfg.Journal.State().Stats
		if stats == nil || !c.workers.isUsagePending(stats.Workers) || bus.Sleep(ctx, 200*time.Millisecond) != nil {
			return
		}
	}
}

// writeMetadata writes the tables, and then the file of the metadata of a run that ended at a time.
func (c *Collector) writeMetadata(ctx context.Context, ended time.Time) (err error) {
	var tables []metadata.TableFile
	if c.cfg.WriteTables != nil {
		if tables, err = c.cfg.WriteTables(ctx); err != nil {
			return fmt.Errorf("write tables: %w", err)
		}
	}

	state := c.cfg.Journal.State()

	meta, err := buildMetadata(&c.cfg, state, c.workers.all(), c.workers.takeSeries(), c.finalState(), ended)
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}

	meta.Test.Tables = tables
	// Other limits may have been set since the run began.
	meta.Manifest.Policy = meta.Manifest.Policy.WithLimits(c.limits.currentPolicy())

	text, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}

	file, err := c.cfg.Journal.CreateFile(c.cfg.Output.Meta())
	if err != nil {
		return err
	}

	_, err = file.Write(append(text, '\n'))

	return file.Commit(err)
}

// finalState returns the state that the run ends in. A run whose last answers were on their
// way when its time was over is complete.
func (c *Collector) finalState() proto.State {
	end := c.ends.pending()
	if end == nil {
		return proto.StateCompleted
	}

	s := c.cfg.Journal.State()
	if end.state == proto.StateExpired && s.Counts.Skipped <= s.Manifest.Input.Invalid {
		return proto.StateCompleted
	}

	return end.state
}

// cleanUpTimeout is the limit for each step on the bus after a run's files are whole. A cluster
// has agreed on a new leader by then.
const cleanUpTimeout = 15 * time.Second

// cleanUp removes the objects on the bus that a complete run does not need any more. The files
// are whole, so no failure here makes the run fail.
func (c *Collector) cleanUp(ctx context.Context) {
	c.removeTemporaries()
	c.setState(ctx, c.finalState())

	// Results stay for readers, the input for a retry. The work is done, and the bus has room
	// set aside for it.
	ctx, cancel := context.WithTimeout(ctx, cleanUpTimeout)
	defer cancel()

	if err := bus.DeleteStream(ctx, c.cfg.JS, proto.WorkStream(c.run)); err != nil {
		c.cfg.Log.Warn().Err(err).
			Msg("failed to delete the work stream of the ended run; it is deleted with the run")
	}
}

// removeTemporaries removes the files that a complete output does not need any more.
func (c *Collector) removeTemporaries() {
	if err := c.cfg.Output.RemoveStale(); err != nil {
		c.cfg.Log.Warn().Err(err).Msg("failed to remove temporary files; the output is whole")
	}

	if err := c.cfg.Journal.Remove(); err != nil {
		c.cfg.Log.Warn().Err(err).
			Msg("failed to remove the journal; the output is whole, and the journal can be deleted")
	}
}

// setState writes the run's state into the manifest. The files decide: a run ends also if
// the bus does not answer now.
func (c *Collector) setState(ctx context.Context, s proto.State) {
	ctx, cancel := context.WithTimeout(ctx, cleanUpTimeout)
	defer cancel()

	state := c.cfg.Journal.State()
	counts, failures := state.Counts, topFailures(state)

	err := c.bus.Runs.Update(ctx, c.run, func(m *proto.Manifest) error {
		c.limits.setPolicy(m.Policy) // it may have changed since it was read last
		m.State, m.Counts, m.Failures, m.StoppedBy = s, counts, failures, nil
		if s.Ended() {
			now := time.Now().UTC()
			m.EndedAt, m.Problem = &now, ""
		}
		return nil
	})
	if err != nil {
		c.cfg.Log.Warn().Err(err).Str("state", string(s)).Msg("failed to update the state of the run on the bus")
	}
}
