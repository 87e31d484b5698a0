package collector

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Config is what a collector needs. JS, Journal, Output, Input and Limits are required.
// Whoever makes or opens the journal claims the output for it ([Journal.Claim]).
type Config struct {
	JS      jetstream.JetStream
	Journal *journal.Journal
	Output  output.Prefix
	Input   Input         // of the run
	Host    string        // this machine's name, for those who look for the output
	Limits  bus.Limits    // of the run's streams, should they have to be made again
	Flush   time.Duration // a line is in the synced file after this at most. Defaults to 5 s.
	Format  output.Format
	Meta    Origin // what the metadata tells of the run's surroundings
	Written func() // if not nil, called when the output files and the metadata are whole; again after a crash
	Log     zerolog.Logger
}

// Input is the input of a run. It is read when a run ends before all its requests were
// run, and when lines of other requests have come.
type Input interface {
	// Requests gives the wanted requests in ascending order, as they are published. A
	// request may be used until the next one.
	Requests(wanted *roaring.Bitmap) iter.Seq2[proto.Request, error]
}

// Collector gathers the results of one run.
type Collector struct {
	cfg        Config
	run        string
	bounds     proto.Bounds
	total      int
	runs       *bus.RunStore
	leases     *bus.Leases
	heartbeats *bus.Heartbeats
	fleet      *fleet
	source     source
	seen       *roaring.Bitmap // requests that have a line, synced or not
	scan       jsonscan.Scanner
	frame      *pendingFrame
	writes     chan *pendingFrame
	clock      *clock
	dropped    proto.DropCounter
	gap        [2]time.Time // nobody collected between; its beginning moves on with the results that came in it

	ending atomic.Pointer[ending] // set when the run is to end before it is complete

	mu        sync.Mutex
	received  proto.Counts
	durable   proto.Counts
	synced    journal.Position
	finishing bool
	unneeded  []largeAnswer   // on the bus, and synced by this process, the oldest first
	spent     []string        // objects of requests whose results are synced
	sights    metadata.Series // of the workers, since the last frame
}

// Progress is what a collector has so far.
type Progress struct {
	Total    int
	Received proto.Counts // lines taken off the bus, those of earlier sessions included
	Durable  int          // lines in the synced output
	// Finishing says that all lines are there and the files are being written.
	Finishing bool
}

// New returns a collector for the run of the journal.
func New(cfg Config) *Collector {
	if cfg.Flush == 0 {
		cfg.Flush = 5 * time.Second
	}

	s := cfg.Journal.State()
	c := &Collector{
		cfg:      cfg,
		run:      s.Manifest.Run,
		bounds:   s.Manifest.Bounds(),
		total:    s.Manifest.Input.Requests,
		fleet:    newFleet(s.Manifest.Run, s.WorkerSessions),
		source:   source{js: cfg.JS, run: s.Manifest.Run, at: s.Position},
		seen:     s.Done.Clone(),
		frame:    &pendingFrame{},
		clock:    newClock(time.Now()),
		writes:   make(chan *pendingFrame, 1),
		received: s.Counts,
		durable:  s.Counts,
		synced:   s.Position,
	}

	c.source.skipped = c.skip

	return c
}

// Progress is what the collector has so far. It may be called at any time.
func (c *Collector) Progress() Progress {
	c.mu.Lock()
	defer c.mu.Unlock()

	return Progress{
		Total:     c.total,
		Received:  c.received,
		Durable:   c.durable.Done,
		Finishing: c.finishing,
	}
}

// Run gathers results until each request has its line, then writes the output files
// and returns nil. When ctx ends it syncs what it has and returns ctx's cause. It
// returns an error at once when the output cannot be written, one that wraps
// proto.ErrCollected when somebody else collects the run, and [ErrDeleted] when the
// run is taken off the bus.
func (c *Collector) Run(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return fmt.Errorf("collector: %w", err)
	}

	defer c.leave(ctx)

	for {
		if err := c.gather(ctx); err != nil {
			return fmt.Errorf("collector: %w", err)
		}

		err := c.finish(ctx)
		switch {
		case isCorruption(err):
			// Lines that were thought safe are not readable: they are fetched again.
			c.cfg.Log.Error().Err(err).Msg("running the requests of damaged frames again")
			if err := c.cfg.Journal.Repair(); err != nil {
				return fmt.Errorf("collector: %w", err)
			}
		case errors.Is(err, errForeignLines):
			c.cfg.Log.Error().Err(err).Msg("running the requests of these lines again")
		default:
			return err
		}

		// The position is 0 after damage. Otherwise what was read is not read again, since
		// the stream still has the lines of other requests.
		state := c.cfg.Journal.State()
		c.seen = state.Done.Clone()
		c.source = source{
			js:      c.cfg.JS,
			run:     c.run,
			at:      state.Position,
			skipped: c.skip,
		}

		c.mu.Lock()
		c.received, c.durable, c.synced, c.finishing = state.Counts, state.Counts, state.Position, false
		c.mu.Unlock()
	}
}

// lastTelling is how long an exchange with the bus may go on when nothing is read any more.
const lastTelling = 2 * time.Second

// gather reads results into the journal until no request lacks its line.
func (c *Collector) gather(ctx context.Context) error {
	c.clock = newClock(time.Now())
	c.writes = make(chan *pendingFrame, 1)
	// The writer outlives ctx: what was taken off the bus is still synced then.
	group, broken := errgroup.WithContext(context.WithoutCancel(ctx))
	broken, stop := context.WithCancel(broken)
	defer stop()

	group.Go(func() error { return c.write(stop) })
	done := make(chan struct{})
	telling, endTelling := context.WithCancel(broken)
	defer endTelling()

	group.Go(func() error { return c.tell(telling, done) })
	err := c.read(ctx, broken)
	c.close()
	close(c.writes)
	close(done)
	time.AfterFunc(lastTelling, endTelling) // a bus that does not answer does not hold up a stop

	if failed := group.Wait(); failed != nil {
		return errors.Join(failed, err)
	}

	return errors.Join(c.noteRest(), err)
}

// read takes results off the bus. It returns nil when it has all, the cause of ctx's
// end, and nil too when broken ends, since the writer then has the error.
func (c *Collector) read(ctx, broken context.Context) error {
	round := rounds{c: c}
	var last *ender
	defer func() { last.stop() }()

	for c.missing() > 0 {
		begin := time.Now()
		n, err := c.source.fetch(ctx, 50*time.Millisecond, c.take)
		if n > 0 {
			round.noteResults()
		}

		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case broken.Err() != nil:
			return nil
		case err != nil:
			c.clock.blind(begin, time.Now())
			c.cfg.Log.Warn().Err(err).Msg("read results; trying on")
			if err := bus.Sleep(ctx, 500*time.Millisecond); err != nil {
				return err
			}
		}

		if c.frame.Position.Sequence > 0 && time.Since(c.frame.opened) >= c.cfg.Flush {
			c.close()
		}

		switch e := c.ending.Load(); {
		case e != nil && last == nil:
			last = newEnder(c, *e)
		case e != nil && n == 0:
			if err := last.step(ctx); err != nil {
				return err
			}
		case e == nil && n == 0:
			if err := round.check(ctx); err != nil {
				return err
			}
		}
	}

	return nil
}

func (c *Collector) missing() int { return c.total - int(c.seen.GetCardinality()) }

// take adds a message's lines to the frame, dropping those of requests that have one, and
// those that do not fit the run.
func (c *Collector) take(msg jetstream.Msg) error {
	if proto.IsDeliveryNote(msg.Headers()) {
		return nil // for workers
	}

	meta, err := msg.Metadata()
	if err != nil {
		return err
	}

	before := c.frame.Counts
	batch, lines, err := c.open(msg)
	switch {
	case bus.IsUnrecoverable(err):
		c.drop(msg.Subject(), nil, err)
	case err != nil:
		return err
	default:
		c.clock.work(time.Now())
		c.find(meta)
		c.add(msg.Subject(), batch, lines)
	}

	fresh := c.frame.Counts.Minus(before)
	c.mu.Lock()
	c.received.Add(fresh)
	c.mu.Unlock()

	if err == nil {
		c.frame.Series.Add(meta.Timestamp, metadata.Point{
			Requests:         int64(fresh.Done),
			Failed:           int64(fresh.Failed),
			PromptTokens:     fresh.PromptTokens,
			CompletionTokens: fresh.CompletionTokens,
		})
	}

	if c.frame.opened.IsZero() {
		c.frame.opened = time.Now()
	}

	c.frame.Position = journal.Position{Created: c.source.at.Created, Sequence: meta.Sequence.Stream, Time: meta.Timestamp}
	if c.frame.IsFull() {
		c.close()
	}

	return nil
}

// open reads a message of results, as far as its lines. The error says whether it can
// never be read: [bus.IsUnrecoverable].
func (c *Collector) open(msg jetstream.Msg) (batch proto.Batch, lines [][]byte, err error) {
	batch, err = c.bounds.ParseBatch(msg.Subject(), msg.Headers())
	if err != nil {
		return batch, nil, err
	}

	if batch.Ending && c.ending.Load() == nil {
		return batch, nil, &proto.FieldError{
			Field: proto.HeaderShard,
			Why:   batch.Shard + " of a run that is not ending",
		}
	}

	payload := msg.Data()
	if batch.Object != "" {
		if payload, err = c.large(msg); err != nil {
			return batch, nil, err
		}
	}

	lines, err = batch.SplitLines(payload)

	return batch, lines, err
}

// add adds the lines of a batch to the frame.
func (c *Collector) add(subject string, batch proto.Batch, lines [][]byte) {
	whole, size := true, 0
	for i, seq := range batch.Indexes {
		size += len(lines[i])
		info, err := batch.ParseLine(&c.scan, i, lines[i])
		if err != nil {
			c.drop(subject, info.Worker, err)
			whole = false
			continue
		}

		if !c.seen.CheckedAdd(seq) {
			c.frame.Counts.Duplicates++
			continue
		}

		c.frame.Add(seq, lines[i], info)
	}

	if batch.Source != "" && whole {
		c.frame.sources = append(c.frame.sources, batch.Source)
	}
	if batch.Object != "" && whole {
		c.frame.answers = append(c.frame.answers, largeAnswer{batch.Object, int64(size)})
	}
}

// find finds the time before a message to be worked, though nobody collected. One that
// came since then does not count, however early it was by the clock of the bus.
func (c *Collector) find(m *jetstream.MsgMetadata) {
	if at := m.Timestamp; m.Sequence.Stream <= c.source.backlog && at.After(c.gap[0]) && at.Before(c.gap[1]) {
		c.frame.found += at.Sub(c.gap[0])
		c.gap[0] = at
	}
}

// large are the lines of a message that were too big for it.
func (c *Collector) large(msg jetstream.Msg) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return bus.New(c.cfg.JS).Answers(c.run).Payload(ctx, msg.Headers(), msg.Data())
}

// drop gives up on results that do not fit the run. Their requests are found missing in
// the end, and run again. The first of a kind and a worker, which may be unknown, is
// logged.
func (c *Collector) drop(subject string, worker []byte, err error) {
	c.frame.Counts.Dropped++
	if c.dropped.Add(proto.ErrorField(err), string(worker)) {
		c.cfg.Log.Error().Err(err).Str("subject", subject).Str("worker", string(worker)).
			Msg("dropped results that do not fit the run; more of this kind are only counted")
	}
}

// skip notes a message that cannot be delivered, since it passes for a server's word.
func (c *Collector) skip(msg *jetstream.RawStreamMsg) {
	c.drop(msg.Subject, nil, &proto.FieldError{
		Field: "Status",
		Why:   "a message without lines, with the header of a server's answer",
	})

	c.mu.Lock()
	c.received.Dropped++
	c.mu.Unlock()

	if c.frame.opened.IsZero() {
		c.frame.opened = time.Now()
	}

	c.frame.Position = journal.Position{Created: c.source.at.Created, Sequence: msg.Sequence, Time: msg.Time}
}

// close hands the frame to the writer, which may make it wait: then the results
// stream fills, and the workers wait too.
func (c *Collector) close() {
	if c.frame.Position.Sequence == 0 {
		return // nothing in it
	}

	spent := c.clock.take()
	c.frame.Worked, c.frame.Idle, c.frame.Lost = spent.worked+c.frame.found, spent.idle, -c.frame.found
	c.mu.Lock()
	c.frame.Series.Merge(&c.sights)
	c.sights = metadata.Series{}
	c.mu.Unlock()
	c.writes <- c.frame
	c.frame = &pendingFrame{}
}

// write syncs frames to the journal. When it cannot, it stops the reader.
func (c *Collector) write(stop func()) error {
	for f := range c.writes {
		f.WorkerSessions = c.fleet.news(c.cfg.Journal.State(), f.Stats, false)

		err := c.cfg.Journal.Append(&f.Frame)
		if err != nil {
			stop()
			for range c.writes { // the reader may have some more
			}
			return err
		}

		state := c.cfg.Journal.State()
		c.mu.Lock()
		c.durable, c.synced = state.Counts, state.Position
		c.spent = append(c.spent, f.sources...)
		c.unneeded = append(c.unneeded, f.answers...)
		c.mu.Unlock()
	}

	return nil
}

// isCorruption reports whether an error is of a damaged journal.
func isCorruption(err error) bool {
	_, ok := errors.AsType[*journal.CorruptionError](err)
	return ok
}
