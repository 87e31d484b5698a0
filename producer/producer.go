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

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Config configures a [Producer].
type Config struct {
	// JS is the bus. Required.
	JS jetstream.JetStream
	// Run is the id of the run, whose manifest is on the bus. Required.
	Run string
	// Files returns the paths of the input files. It is called when they are needed. Defaults to
	// the paths that the manifest names.
	Files func(context.Context) ([]string, error)
	// Opener opens the files. Defaults to [inputfile.Local].
	Opener inputfile.Opener
	// Once ends [Producer.Run] when the current round is published, by this producer or another.
	// Defaults to false: Run waits for further rounds until the run ends.
	Once bool
	// Yield lets another producer of the run go first. Running two is safe, since shards are
	// deterministic and stored once, but wasteful.
	Yield bool
	// Validated reports that this process has validated the files. Otherwise the producer reads
	// them once before it publishes anything, and compares their SHA-256 with the manifest's.
	Validated bool
	// Log gets warnings; it should name the run. Defaults to none.
	Log zerolog.Logger
}

// validate returns an error that names the first field that is missing or wrong.
func (c Config) validate() error {
	if c.JS == nil {
		return errors.New("producer: Config.JS is required")
	}

	if err := proto.CheckRunID(c.Run); err != nil {
		return fmt.Errorf("producer: Config.Run: %w", err)
	}

	return nil
}

// Producer publishes the shards of one run.
type Producer struct {
	cfg     Config
	runs    *bus.RunStore
	objects *bus.ObjectStore
	stats   Stats

	validated                   bool
	windowRequests, windowBytes int
	// checkpointEvery is the least time between two saved checkpoints.
	checkpointEvery time.Duration
}

// Stats counts the work of a producer. It may be read at any time.
type Stats struct {
	// Shards counts the shards that this process published, stored or on their way.
	Shards atomic.Int64
	// Full is true while the work stream is full and the producer waits.
	Full atomic.Bool
}

// New returns a producer. It fails if the configuration lacks a field.
func New(cfg Config) (*Producer, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}

	b := bus.New(cfg.JS)

	return &Producer{
		cfg:             cfg,
		runs:            b.Runs,
		objects:         b.Objects(cfg.Run),
		validated:       cfg.Validated,
		windowRequests:  windowRequests,
		windowBytes:     windowBytes,
		checkpointEvery: time.Second,
	}, nil
}

// Stats returns the counts of the producer's work.
func (p *Producer) Stats() *Stats { return &p.stats }

var (
	errEnded     = errors.New("the run has ended")
	errNextRound = errors.New("the collector has begun another round")
)

// Run publishes the run's input by its manifest, from the place where an earlier producer
// stopped, and then each further round of requests that the collector finds missing.
// It returns nil when the run has ended or is about to, and else the cause of ctx's end
// or the error that stopped it.
func (p *Producer) Run(ctx context.Context) error {
	err := p.publishRounds(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errEnded) {
		return nil
	}

	return err
}

// publishRounds publishes round after round.
func (p *Producer) publishRounds(ctx context.Context) error {
	if _, err := bus.Open(ctx, p.cfg.JS); err != nil {
		return err
	}

	for {
		m, err := p.awaitRound(ctx)
		if err == nil && p.cfg.Yield {
			round := m.Publish.Round

			m, err = p.awaitOthers(ctx)
			if err == nil && (m.Publish.Done || m.Publish.Round != round) {
				continue // another producer has published it
			}
		}
		if err != nil {
			return fmt.Errorf("producer: %w", err)
		}

		err = p.publishUnlessEnded(ctx, m)
		switch {
		case errors.Is(err, errLostShards):
			p.cfg.Log.Warn().Err(err).Msg("the bus lost shards; publishing them again")
			if err := bus.Sleep(ctx, time.Second); err != nil {
				return err
			}
		case errors.Is(err, errNextRound) && p.cfg.Once:
			return nil // the process that began it publishes it
		case errors.Is(err, errNextRound):
		case errors.Is(err, ErrSecondProducer) && p.cfg.Yield:
		case errors.Is(err, ErrSecondProducer) && p.cfg.Once:
			return nil
		case errors.Is(err, proto.ErrInputChanged):
			return err
		case err != nil:
			return fmt.Errorf("producer: round %d: %w", m.Publish.Round, err)
		case p.cfg.Once:
			return nil
		}
	}
}

// awaitRound waits until the manifest asks for a round that is not published yet.
func (p *Producer) awaitRound(ctx context.Context) (m proto.Manifest, err error) {
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

// othersTime is the time that the work stream must stand still before a producer that yields
// assumes that no other publishes.
const othersTime = 2 * time.Second

// awaitOthers waits until no other producer publishes, and returns the manifest as it is then.
func (p *Producer) awaitOthers(ctx context.Context) (proto.Manifest, error) {
	for last, looked := uint64(0), false; ; {
		stream, err := bus.FindStream(ctx, p.cfg.JS, proto.WorkStream(p.cfg.Run))
		if err == nil {
			now := stream.CachedInfo().State.LastSeq

			m, err := p.runs.Get(ctx, p.cfg.Run)
			if err == nil && (m.Publish.Done || looked && last == now) {
				return m, nil
			}

			last, looked = now, true
		}

		if err := bus.Sleep(ctx, othersTime); err != nil {
			return proto.Manifest{}, err
		}
	}
}

// publishUnlessEnded publishes a round, and stops when the run ends meanwhile, or its collector
// begins another round.
func (p *Producer) publishUnlessEnded(ctx context.Context, m proto.Manifest) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	var watch sync.WaitGroup
	watch.Go(func() { stop(p.awaitEndOfRound(ctx, m)) })

	err := p.publishRound(ctx, m)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}

	stop(nil)
	watch.Wait()

	return err
}

// awaitEndOfRound waits until the run has ended, or its collector has begun another round.
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

// publishRound publishes the shards of a round that the work stream lacks, and saves that it is
// done.
func (p *Producer) publishRound(ctx context.Context, m proto.Manifest) error {
	last, err := p.findLastShard(ctx, &m)
	if err != nil {
		return err
	}

	wanted, requests, err := p.loadWanted(ctx, m)
	if err != nil {
		return err
	}

	in, err := p.openInput(ctx, m)
	if err != nil {
		return err
	}
	defer in.Close()

	r := &roundPublisher{
		manifest: m,
		runs:     p.runs,
		objects:  p.objects,
		conn:     p.cfg.JS.Conn(),
		log:      p.cfg.Log,
		stats:    &p.stats,

		in:     in,
		wanted: wanted,
		cutter: newCutter(m.Settings, m.Publish.Round, requests),
		shards: &shardPublisher{
			js:      p.cfg.JS,
			stream:  proto.WorkStream(m.Run),
			log:     p.cfg.Log,
			setFull: p.stats.Full.Store,
			last:    last,
		},
		stored: last - m.Publish.FirstSequence,

		checkpointEvery: p.checkpointEvery,
		checkpointSaved: time.Now(),
	}
	if m.Settings.GroupByPrefix {
		r.window = newWindow(p.windowRequests, p.windowBytes)
	}

	if at := m.Publish.Checkpoint; wanted == nil && at.Shard > 0 && at.Shard <= r.stored {
		if err := in.Seek(at); err != nil {
			return err
		}

		r.cutter.index = at.Shard
		r.cutter.left = requests - int(at.Index)
		r.digest = at.Digest
	}

	if err := r.run(ctx); err != nil {
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

// findLastShard returns the sequence of the work stream. If that is before the round's first, the
// stream was made again, or lost its end, and the round starts there.
func (p *Producer) findLastShard(ctx context.Context, m *proto.Manifest) (uint64, error) {
	stream, err := bus.FindStream(ctx, p.cfg.JS, proto.WorkStream(m.Run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, errLostShards // the collector makes it again, and begins a new round
	}
	if err != nil {
		return 0, err
	}

	last := stream.CachedInfo().State.LastSeq
	if last >= m.Publish.FirstSequence {
		return last, nil
	}

	err = p.runs.Update(ctx, m.Run, func(now *proto.Manifest) error {
		now.Publish.FirstSequence = last
		return nil
	})
	if err != nil {
		return 0, err
	}

	m.Publish.FirstSequence = last

	return last, nil
}

// openInput opens the input files, and fails if they are not the validated ones.
func (p *Producer) openInput(ctx context.Context, m proto.Manifest) (*Reader, error) {
	var files []string
	for _, f := range m.Input.Files {
		files = append(files, f.Path)
	}

	if p.cfg.Files != nil {
		var err error
		if files, err = p.cfg.Files(ctx); err != nil {
			return nil, err
		}
	}

	source := SourceOf(m.Input, files, p.cfg.Opener)

	// Workers continue meanwhile with the shards that are on the bus.
	if !p.validated {
		if err := CheckInput(ctx, m.Input, m.Settings, source); err != nil {
			return nil, err
		}
		p.validated = true
	}

	return NewRunReader(ctx, source, m)
}

// loadWanted returns the set of requests that the round publishes, nil for all, and how many
// they are.
func (p *Producer) loadWanted(ctx context.Context, m proto.Manifest) (*roaring.Bitmap, int, error) {
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
