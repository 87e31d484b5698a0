package collector

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/proto"
)

// Config is what a collector needs. JS, Journal, Output and Limits are required.
type Config struct {
	JS      jetstream.JetStream
	Journal *Journal
	Output  Output
	Limits  proto.Limits  // of the run's streams, should they have to be made again
	Flush   time.Duration // a line is in the synced file after this at most. Defaults to 5 s.
	Format  Format
	Meta    Origin // what the metadata tells of the run's surroundings
	Log     zerolog.Logger
}

// Collector gathers the results of one run.
type Collector struct {
	cfg     Config
	run     string
	total   int
	runs    *proto.Runs
	source  source
	seen    *roaring.Bitmap // requests that have a line, synced or not
	scan    proto.Scanner
	frame   *frame
	writes  chan *frame
	flushed time.Time // when the frame before was closed

	mu        sync.Mutex
	received  proto.Counts
	durable   proto.Counts
	synced    Position
	finishing bool
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
	return &Collector{
		cfg: cfg, run: s.Manifest.Run, total: s.Manifest.Input.Requests,
		source:   source{js: cfg.JS, run: s.Manifest.Run, at: s.Position},
		seen:     s.Done.Clone(),
		frame:    &frame{},
		writes:   make(chan *frame, 1),
		received: s.Counts, durable: s.Counts, synced: s.Position,
	}
}

// Progress is what the collector has so far. It may be called at any time.
func (c *Collector) Progress() Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Progress{Total: c.total, Received: c.received, Durable: c.durable.Done, Finishing: c.finishing}
}

// Run gathers results until each request has its line, then writes the output files
// and returns nil. When ctx ends it syncs what it has and returns ctx's cause. It
// returns an error at once when the output cannot be written.
func (c *Collector) Run(ctx context.Context) error {
	var err error
	if c.runs, err = proto.OpenRuns(ctx, c.cfg.JS); err != nil {
		return fmt.Errorf("collector: %w", err)
	}
	if err := c.cfg.Journal.begin(); err != nil {
		return fmt.Errorf("collector: %w", err)
	}
	for {
		if err := c.gather(ctx); err != nil {
			return fmt.Errorf("collector: %w", err)
		}
		err := c.finish(ctx)
		if !errors.Is(err, errDamaged) {
			return err
		}
		// Lines that were thought safe are not readable: they are fetched again.
		c.cfg.Log.Error().Err(err).Msg("running the requests of damaged frames again")
		if err := c.cfg.Journal.recover(true); err != nil {
			return fmt.Errorf("collector: repair journal: %w", err)
		}
		state := c.cfg.Journal.State()
		c.seen = state.Done.Clone()
		c.source = source{js: c.cfg.JS, run: c.run}
		c.mu.Lock()
		c.received, c.durable, c.synced, c.finishing = state.Counts, state.Counts, state.Position, false
		c.mu.Unlock()
	}
}

// gather reads results into the journal until no request lacks its line.
func (c *Collector) gather(ctx context.Context) error {
	c.flushed = time.Now()
	c.writes = make(chan *frame, 1)
	// The writer outlives ctx: what was taken off the bus is still synced then.
	group, broken := errgroup.WithContext(context.WithoutCancel(ctx))
	group.Go(c.write)
	done := make(chan struct{})
	group.Go(func() error {
		c.tell(broken, done)
		return nil
	})
	err := c.read(ctx, broken)
	c.close()
	close(c.writes)
	close(done)
	return errors.Join(group.Wait(), err)
}

// read takes results off the bus. It returns nil when it has all, the cause of ctx's
// end, and nil too when broken ends, since the writer then has the error.
func (c *Collector) read(ctx, broken context.Context) error {
	round := rounds{c: c}
	for c.missing() > 0 {
		n, err := c.source.fetch(ctx, 50*time.Millisecond, c.take)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case broken.Err() != nil:
			return nil
		case err != nil:
			c.cfg.Log.Warn().Err(err).Msg("read results; trying on")
			if err := sleep(ctx, 500*time.Millisecond); err != nil {
				return err
			}
		}
		if c.frame.position.Seq > 0 && time.Since(c.frame.opened) >= c.cfg.Flush {
			c.close()
		}
		if n == 0 {
			if err := round.check(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Collector) missing() int { return c.total - int(c.seen.GetCardinality()) }

// take adds a message's lines to the frame, dropping those of requests that have one.
func (c *Collector) take(msg jetstream.Msg) error {
	meta, err := msg.Metadata()
	if err != nil {
		return err
	}
	seqs, err := proto.ResultSeqs(msg.Headers())
	var lines [][]byte
	if err == nil {
		var payload []byte
		payload, err = c.payload(msg)
		if errors.Is(err, jetstream.ErrObjectNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) {
			c.drop(msg, err)
			return nil
		}
		if err != nil {
			return err
		}
		lines, err = proto.SplitLines(payload, len(seqs))
	}
	if err != nil {
		c.drop(msg, err)
		return nil
	}
	before := c.frame.counts
	for i, seq := range seqs {
		info, err := proto.ParseLine(&c.scan, lines[i])
		if int(seq) >= c.total {
			err = fmt.Errorf("%w: request %d of %d", proto.ErrFormat, seq, c.total)
		}
		if err != nil {
			c.drop(msg, err)
			continue
		}
		if !c.seen.CheckedAdd(seq) {
			c.frame.counts.Duplicates++
			continue
		}
		c.frame.add(seq, lines[i], info)
	}
	c.mu.Lock()
	c.received.Add(c.frame.counts.Minus(before))
	c.mu.Unlock()
	if c.frame.opened.IsZero() {
		c.frame.opened = time.Now()
	}
	c.frame.position = Position{Created: c.source.at.Created, Seq: meta.Sequence.Stream, Time: meta.Timestamp}
	if c.frame.full() {
		c.close()
	}
	return nil
}

// payload is a message's lines; big ones are in the object store.
func (c *Collector) payload(msg jetstream.Msg) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return proto.NewObjects(c.cfg.JS, c.run).Payload(ctx, msg.Headers(), msg.Data())
}

// drop gives up on results that cannot be read. Their requests are found missing in
// the end, and run again.
func (c *Collector) drop(msg jetstream.Msg, err error) {
	c.cfg.Log.Error().Err(err).Str("subject", msg.Subject()).Msg("drop results that cannot be read")
}

// close hands the frame to the writer, which may make it wait: then the results
// stream fills, and the workers wait too.
func (c *Collector) close() {
	if c.frame.position.Seq == 0 {
		return // nothing in it
	}
	c.writes <- c.frame
	c.frame = &frame{}
}

// write syncs frames to the journal.
func (c *Collector) write() error {
	for f := range c.writes {
		seqs, lines := f.lines()
		now := time.Now()
		h := f.header(seqs)
		h.Run, h.At, h.Worked = c.run, now.UTC(), now.Sub(c.flushed).Milliseconds()
		err := c.cfg.Journal.append(h, seqs, lines)
		if err != nil {
			for range c.writes { // let the reader come to its end
			}
			return err
		}
		c.flushed = now
		state := c.cfg.Journal.State()
		c.mu.Lock()
		c.durable, c.synced = state.Counts, state.Position
		c.mu.Unlock()
	}
	return nil
}

// tell lets the bus know once a second what is synced: its counts go into the
// manifest, and the results stream may forget it.
func (c *Collector) tell(ctx context.Context, done <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var told proto.Counts
	for {
		select {
		case <-tick.C:
		case <-done:
			return
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		counts, synced := c.durable, c.synced
		c.mu.Unlock()
		err := c.purge(ctx, synced)
		if counts != told {
			err = errors.Join(err, c.note(ctx, counts))
			told = counts
		}
		if err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn().Err(err).Msg("tell the bus what is synced")
		}
	}
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

// purge makes room in the results stream once it is more than half full. The newer
// half of the messages stays: workers look there for what a shard has done already,
// and readers downstream have it as their slack.
func (c *Collector) purge(ctx context.Context, synced Position) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stream, err := c.cfg.JS.Stream(ctx, proto.ResultsStream(c.run))
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", proto.ResultsStream(c.run), err)
	}
	info := stream.CachedInfo()
	if int64(info.State.Bytes) < info.Config.MaxBytes/2 || !info.Created.Equal(synced.Created) {
		return nil
	}
	upTo := min(synced.Seq, info.State.LastSeq-info.State.Msgs/2)
	if upTo < info.State.FirstSeq {
		return nil
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1)); err != nil {
		return fmt.Errorf("purge stream %s: %w", proto.ResultsStream(c.run), err)
	}
	c.cfg.Log.Debug().Uint64("up_to", upTo).Msg("purged results that are synced")
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
