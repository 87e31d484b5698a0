package collector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Collector collects the results of one run.
type Collector struct {
	cfg      Config
	run      string // its id
	total    int    // requests
	bus      *bus.Bus
	lease    *lease
	ledger   *ledger
	activity *activityTimer
	workers  *workerRegistry
	ends     *endWatcher
	limits   *limitJudge
	gap      *collectionGap
	dropped  *proto.DropCounter
}

// Progress counts the lines of a run that a collector has.
type Progress struct {
	// Total is the number of requests of the run.
	Total int
	// Received counts the lines that were taken off the bus, those of earlier sessions
	// included.
	Received proto.Counts
	// Found counts those of Received that the collector found when it began: in the journal, and
	// on the bus.
	Found proto.Counts
	// Durable is the number of lines in the synced journal.
	Durable int
	// Finishing reports that all lines are there and the files are being written.
	Finishing bool
	// Stopped reports that a limit of its policy has stopped the run.
	Stopped bool
	// Remaining is the time in seconds that the rest takes. Nil while it is unknown, or the run does
	// not work.
	Remaining *proto.Interval
}

// New returns a collector for the run of the journal. It returns an error that names the
// field if the configuration lacks one.
func New(cfg Config) (*Collector, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return newCollector(cfg), nil
}

// newCollector is New without the checks.
func newCollector(cfg Config) *Collector {
	if cfg.FlushInterval == 0 {
		cfg.FlushInterval = 5 * time.Second
	}

	state := cfg.Journal.State()
	run := state.Manifest.Run
	b := bus.New(cfg.JS)

	c := &Collector{
		cfg:      cfg,
		run:      run,
		total:    state.Manifest.Input.Requests,
		bus:      b,
		lease:    newLease(b.Leases, run, proto.CollectorInfo{Host: cfg.Host, Output: string(cfg.Output)}),
		ledger:   &ledger{},
		activity: newActivityTimer(time.Now()),
		workers:  newWorkerRegistry(run, state.WorkerSessions),
		limits:   newLimitJudge(&cfg, b.Runs),
		gap:      &collectionGap{},
		dropped:  &proto.DropCounter{},
	}

	c.ledger.reset(state)
	c.ends = &endWatcher{
		runs:   b.Runs,
		run:    run,
		total:  c.total,
		ledger: c.ledger,
		limits: c.limits,
		log:    cfg.Log,
	}

	return c
}

// Progress returns the counts so far. It may be called at any time.
func (c *Collector) Progress() Progress {
	p := c.ledger.progress(c.total)
	p.Stopped = c.limits.isStopped()

	return p
}

// Failures counts the failed requests with a line in the synced journal by cause, the most frequent
// causes alone (see [proto.TopFailures]). It may be called at any time, and its result must not be
// changed.
func (c *Collector) Failures() map[string]int64 { return c.ledger.syncedFailures() }

// Run gathers results until each request has its line, then writes the output files and
// returns nil. When ctx ends, Run syncs what it has and returns ctx's cause. It returns an
// error at once when the output cannot be written, one that wraps proto.ErrLeaseHeld when
// another process collects the run, and [ErrDeleted] when the run is deleted from the bus.
func (c *Collector) Run(ctx context.Context) error {
	if err := c.beginRun(ctx); err != nil {
		return fmt.Errorf("collector: %w", err)
	}

	defer func() {
		if err := c.lease.release(ctx); err != nil {
			c.cfg.Log.Debug().Err(err).Msg("failed to release the lease of the run")
		}
	}()

	for {
		if err := c.newSession().run(ctx); err != nil {
			return fmt.Errorf("collector: %w", err)
		}

		err := c.finishRun(ctx)
		switch {
		case isCorruption(err):
			// Lines that were synced cannot be read: they are fetched again.
			c.cfg.Log.Error().Err(err).Msg("the journal is damaged; running the lost requests again")

			if err := c.cfg.Journal.Repair(); err != nil {
				return fmt.Errorf("collector: %w", err)
			}
		case errors.Is(err, errForeignLines):
			c.cfg.Log.Error().Err(err).Msg("dropped lines of other requests; running the requests again")
		case err != nil:
			return fmt.Errorf("collector: %w", err)
		default:
			return nil
		}

		// The position is 0 after damage. Otherwise the messages read before are not read
		// again, since the stream still has the lines of other requests.
		c.ledger.reset(c.cfg.Journal.State())
		c.limits.restart(c.cfg.Journal.State().Counts)
	}
}

// beginRun acquires the run and begins a session of the journal.
func (c *Collector) beginRun(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	if _, err := bus.Open(ctx, c.cfg.JS); err != nil {
		return err
	}

	backlog, err := EndOfResults(ctx, c.cfg.JS, c.run)
	if err != nil {
		return err
	}

	c.limits.begin(backlog)
	c.ledger.setBacklog(backlog)

	if err := c.lease.acquire(ctx); err != nil {
		return err
	}

	err = c.bus.Runs.Update(ctx, c.run, func(m *proto.Manifest) error {
		m.Output = c.lease.holder.String()
		return nil
	})
	if err != nil {
		return err
	}

	// An earlier process may have ended the run and died over its files.
	if err := c.ends.check(ctx); err != nil {
		return err
	}

	before := *c.cfg.Journal.State()
	if err := c.cfg.Journal.BeginSession(); err != nil {
		return err
	}

	*c.gap = collectionGap{from: before.AccountedTo, begin: before.AccountedTo, to: time.Now()}
	c.gap.lostFrom = c.gap.to

	if c.cfg.Journal.State().Sessions > before.Sessions {
		c.gap.lostFrom = laterOf(before.AccountedTo, before.Began)
	}

	return nil
}

// isCorruption reports whether an error is of a damaged journal.
func isCorruption(err error) bool {
	_, ok := errors.AsType[*journal.CorruptionError](err)
	return ok
}
