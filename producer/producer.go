package producer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Config is what a producer needs. JS and Run are required.
type Config struct {
	JS  jetstream.JetStream
	Run string
	// Files finds the input files, should they not lie where the manifest says. It is
	// called when they are needed.
	Files func(context.Context) ([]string, error)
	// Once ends Run when what is to be published now is published, or somebody else
	// does it.
	Once bool
	// Yield lets another producer of the run go first. Two do no harm, since they cut
	// the same shards and each is stored once, but they are in each other's way.
	Yield bool
	// Validated says that this process has validated the files. Otherwise the producer reads
	// them once before it publishes anything, and holds their SHA-256 against the manifest's.
	Validated bool
	Log       zerolog.Logger
}

// Producer publishes the shards of one run.
type Producer struct {
	cfg     Config
	runs    *bus.RunStore
	objects *bus.ObjectStore
	stats   Stats

	groupRequests, groupBytes int           // of a window
	noteEvery                 time.Duration // how often a point is written, at most
}

// Stats is what a producer has done so far. It may be read at any time.
type Stats struct {
	Shards atomic.Int64 // published by this process, stored or on their way
	Full   atomic.Bool  // the work stream is full and the producer waits
}

// New returns a producer.
func New(cfg Config) *Producer {
	return &Producer{
		cfg:           cfg,
		objects:       bus.New(cfg.JS).Objects(cfg.Run),
		groupRequests: groupRequests,
		groupBytes:    groupBytes,
		noteEvery:     time.Second,
	}
}

// Stats is what the producer has done so far.
func (p *Producer) Stats() *Stats { return &p.stats }

// Run publishes the run's input as its manifest says, from where an earlier producer
// left off, and then each further round of requests that the collector finds missing.
// It returns nil when the run has ended or is about to, and else the cause of ctx's end
// or what went wrong.
func (p *Producer) Run(ctx context.Context) error {
	err := p.publish(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errEnded) {
		return nil
	}

	return err
}

func (p *Producer) publish(ctx context.Context) (err error) {
	b, err := bus.Open(ctx, p.cfg.JS)
	if err != nil {
		return err
	}

	p.runs = b.Runs

	for {
		m, err := p.nextRound(ctx)
		if err == nil && p.cfg.Yield {
			round := m.Publish.Round
			m, err = p.yield(ctx)
			if err == nil && (m.Publish.Done || m.Publish.Round != round) {
				continue // somebody else has published it
			}
		}
		if err != nil {
			return fmt.Errorf("producer: %w", err)
		}

		err = p.whileWanted(ctx, m)
		switch {
		case errors.Is(err, errLostShards):
			p.cfg.Log.Warn().Err(err).Msg("publishing goes back to what the bus still has")
			if err := bus.Sleep(ctx, time.Second); err != nil {
				return err
			}
		case errors.Is(err, errNextRound) && p.cfg.Once:
			return nil // who began it publishes it
		case errors.Is(err, errNextRound):
		case errors.Is(err, ErrSecondProducer) && p.cfg.Yield:
		case errors.Is(err, ErrSecondProducer) && p.cfg.Once:
			return nil
		case err != nil:
			return fmt.Errorf("producer: round %d: %w", m.Publish.Round, err)
		case p.cfg.Once:
			return nil
		}
	}
}

// whileWanted publishes a round, and stops when the run ends meanwhile, or its collector
// begins another round.
func (p *Producer) whileWanted(ctx context.Context, m proto.Manifest) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	var watch sync.WaitGroup
	watch.Go(func() {
		stop(p.awaitEndOfRound(ctx, m))
	})

	err := p.round(ctx, m)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}

	stop(nil)
	watch.Wait()

	return err
}

// yieldTime is how long the work stream must stand still before a producer that yields
// believes that nobody else publishes.
const yieldTime = 2 * time.Second

// yield waits until nobody else publishes, and returns the manifest as it is then.
func (p *Producer) yield(ctx context.Context) (proto.Manifest, error) {
	for last := uint64(0); ; {
		stream, err := bus.FindStream(ctx, p.cfg.JS, proto.WorkStream(p.cfg.Run))
		if err == nil {
			now := stream.CachedInfo().State.LastSeq
			m, err := p.runs.Get(ctx, p.cfg.Run)
			if err == nil && (m.Publish.Done || last == now+1) {
				return m, nil
			}
			last = now + 1 // never 0, the mark of the first time
		}

		if err := bus.Sleep(ctx, yieldTime); err != nil {
			return proto.Manifest{}, err
		}
	}
}

var (
	errEnded     = errors.New("the run has ended")
	errNextRound = errors.New("the collector has begun another round")
)

// awaitEndOfRound watches the run until it has ended, or its collector has begun another round.
func (p *Producer) awaitEndOfRound(ctx context.Context, m proto.Manifest) error {
	for now, err := range p.runs.Watch(ctx, m.Run) {
		switch {
		case err != nil:
			return err
		case now.State != proto.StateInProgress && now.State != proto.StatePaused:
			return errEnded
		case now.Publish.Round > m.Publish.Round:
			return errNextRound
		}
	}

	return nil
}

// nextRound waits until the manifest asks for a round that is not published yet.
func (p *Producer) nextRound(ctx context.Context) (m proto.Manifest, err error) {
	for m, err = range p.runs.Watch(ctx, p.cfg.Run) {
		if err != nil {
			return m, err
		}

		switch m.State {
		case proto.StateInProgress:
			if !m.Publish.Done {
				return m, nil
			}
			if p.cfg.Once {
				return m, errEnded
			}
		case proto.StateValidating, proto.StatePaused:
		default:
			return m, errEnded
		}
	}

	return m, err
}

// round publishes what the round lacks in the work stream, and notes that it is done.
func (p *Producer) round(ctx context.Context, m proto.Manifest) error {
	stream, err := bus.FindStream(ctx, p.cfg.JS, proto.WorkStream(m.Run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return errLostShards // the collector makes it again, and begins a new round
	}
	if err != nil {
		return err
	}

	last := stream.CachedInfo().State.LastSeq
	if last < m.Publish.FirstSequence { // the stream was made anew, or lost its end
		err := p.runs.Update(ctx, m.Run, func(now *proto.Manifest) error {
			now.Publish.FirstSequence = last
			return nil
		})
		if err != nil {
			return err
		}

		m.Publish.FirstSequence = last
	}

	stored := last - m.Publish.FirstSequence // shards of this round that are stored already
	wanted, requests, err := p.wanted(ctx, m)
	if err != nil {
		return err
	}

	var files []string
	for _, f := range m.Input.Files {
		files = append(files, f.Path)
	}

	if p.cfg.Files != nil {
		if files, err = p.cfg.Files(ctx); err != nil {
			return err
		}
	}

	if err := p.checkInput(ctx, m.Input, files); err != nil {
		return err
	}

	in, err := newRunReader(files, m)
	if err != nil {
		return err
	}
	defer in.Close()

	r := &rounder{
		Producer: p,
		m:        m,
		in:       in,
		skip:     stored,
		wanted:   wanted,
		cut:      newCutter(m.Settings, m.Publish.Round, requests),
		pub: &publisher{
			js:      p.cfg.JS,
			stream:  proto.WorkStream(m.Run),
			log:     p.cfg.Log,
			last:    last,
			stalled: func(full bool) { p.stats.Full.Store(full) },
		},
		limit: p.cfg.JS.Conn().MaxPayload(),
		noted: time.Now(),
	}
	if m.Settings.GroupByPrefix {
		r.window = newWindow(p.groupRequests, p.groupBytes)
	}

	if point := m.Publish.Checkpoint; wanted == nil && point.Shard > 0 && point.Shard <= stored {
		if err := in.Seek(point); err != nil {
			return err
		}
		r.cut.index = point.Shard
		r.cut.left = requests - int(point.Index)
		r.digest = point.Digest
	}

	if err := r.publishAll(ctx); err != nil {
		return err
	}

	return p.runs.Update(ctx, m.Run, func(now *proto.Manifest) error {
		if now.Publish.Round != m.Publish.Round {
			return ErrSecondProducer
		}
		now.Publish.Done = true
		return nil
	})
}

// checkInput holds the files against what validation has read, once. Workers go on
// meanwhile with what is on the bus.
func (p *Producer) checkInput(ctx context.Context, in proto.Input, files []string) error {
	if p.cfg.Validated {
		return nil
	}

	if err := CheckInput(ctx, in, files); err != nil {
		return err
	}

	p.cfg.Validated = true

	return nil
}

// wanted is the set of requests that the round publishes, nil for all, and how many
// they are.
func (p *Producer) wanted(ctx context.Context, m proto.Manifest) (*roaring.Bitmap, int, error) {
	if m.Publish.Missing == "" {
		return nil, m.Input.Requests, nil
	}

	data, err := p.objects.Get(ctx, m.Publish.Missing)
	if err != nil {
		return nil, 0, err
	}

	set := roaring.New()
	if err := set.UnmarshalBinary(data); err != nil {
		return nil, 0, fmt.Errorf("object %s: %w", m.Publish.Missing, err)
	}

	if err := set.Validate(); err != nil && !set.IsEmpty() {
		return nil, 0, fmt.Errorf("object %s: %w", m.Publish.Missing, err)
	}

	if !set.IsEmpty() && int64(set.Maximum()) >= int64(m.Input.Requests) {
		return nil, 0, fmt.Errorf("object %s: %w: request %d of %d",
			m.Publish.Missing, proto.ErrFormat, set.Maximum(), m.Input.Requests)
	}

	return set, int(set.GetCardinality()), nil
}
