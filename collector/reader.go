package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// ReaderConfig is what a reader needs. JS and Run are required.
type ReaderConfig struct {
	JS   jetstream.JetStream
	Run  string
	Name string // under which its position is remembered; empty: it is not
	New  bool   // begin with what comes from now on
	Log  zerolog.Logger
}

// Reader reads the results of a run downstream, each request's line once, while they
// come. It asks for stored messages and has no consumer: whatever it does, or does
// not, the run does not notice.
type Reader struct {
	cfg      ReaderConfig
	runs     *bus.RunStore
	kv       jetstream.KeyValue // nil without a name
	revision uint64             // of the remembered position
	of       time.Time          // when the run was made
	spot     spot
	settled  bool // the spot is in the stream that is there
	saved    time.Time
	dirty    bool
	scan     jsonscan.Scanner
	dropped  proto.DropCounter
}

// spot is how far a reader has come.
type spot struct {
	journal.Position
	seen   *roaring.Bitmap // requests whose line was given out
	failed *roaring.Bitmap // those of them whose line is of a failure
}

// memory is a spot as it is remembered. The bitmaps are in Roaring's portable format.
type memory struct {
	journal.Position
	Of     time.Time `json:"of"` // when the run was made: another may have its id later
	Seen   []byte    `json:"seen"`
	Failed []byte    `json:"failed"`
}

// ErrReader is returned when another process reads under the same name.
var ErrReader = errors.New("another reader uses this name")

// NewReader returns a reader.
func NewReader(cfg ReaderConfig) *Reader {
	return &Reader{cfg: cfg, spot: spot{seen: roaring.New(), failed: roaring.New()}}
}

// Run gives the lines to write, many at a time, each with its line feed, until the run
// has ended and all its results were given. What write has taken without an error
// counts as read. It returns the requests whose lines it could not give, since they
// had left the bus before it came, and the run's manifest, which says where they are.
func (r *Reader) Run(
	ctx context.Context, write func([]byte) error,
) (missed *roaring.Bitmap, m proto.Manifest, err error) {
	b, err := bus.Open(ctx, r.cfg.JS)
	if err != nil {
		return nil, m, err
	}

	r.runs = b.Runs

	if m, err = r.runs.Get(ctx, r.cfg.Run); err != nil {
		return nil, m, err
	}

	r.of = m.CreatedAt
	if err := r.recall(ctx, m); err != nil {
		return nil, m, err
	}

	asked := time.Now()
	for {
		n, err := r.batch(ctx, m, write)
		if ctx.Err() != nil {
			return nil, m, errors.Join(context.Cause(ctx), r.remember(context.WithoutCancel(ctx), true))
		}

		if w, ok := errors.AsType[writeError](err); ok {
			return nil, m, errors.Join(w.error, r.remember(ctx, true))
		}

		if err != nil {
			r.cfg.Log.Warn().Err(err).Msg("read results; trying on")
		}

		if err := r.remember(ctx, n == 0); err != nil {
			return nil, m, err
		}

		if n > 0 {
			continue
		}

		if m.State.Ended() && err == nil {
			if r.cfg.New {
				return roaring.New(), m, nil
			}
			return Missing(r.spot.seen, m.Input.Requests), m, nil
		}

		if err := bus.Sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, m, err
		}

		if time.Since(asked) < time.Second && !m.State.Ended() {
			continue
		}

		asked = time.Now()
		switch now, err := r.runs.Get(ctx, r.cfg.Run); {
		case err == nil:
			m = now // what it has when it has ended is read in one more turn
		case errors.Is(err, proto.ErrNoRun), r.cfg.JS.Conn().IsClosed():
			return nil, m, err
		default:
			r.cfg.Log.Warn().Err(err).Msg("look at the run; trying on")
		}
	}
}

// writeError is an error of who takes the lines.
type writeError struct{ error }

// batch gives out the next messages and returns how many there were.
func (r *Reader) batch(ctx context.Context, m proto.Manifest, write func([]byte) error) (n int, err error) {
	asking, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	stream := proto.ResultsStream(r.cfg.Run)
	if !r.settled {
		if err := r.settle(asking); err != nil {
			return 0, err
		}
	}

	messages, err := jetstreamext.GetBatch(asking, r.cfg.JS, stream, 512,
		jetstreamext.GetBatchSeq(r.spot.Sequence+1), jetstreamext.GetBatchMaxBytes(8<<20))
	if err != nil {
		return 0, fmt.Errorf("read stream %s: %w", stream, err)
	}

	var out taken
	for msg, err := range messages {
		if err != nil || len(msg.Header[jetstream.SequenceHeader]) != 1 {
			break // the end, or a message that was published with the headers of an answer
		}

		bus.StripServerHeaders(msg.Header)
		if err := r.give(asking, m, msg, &out, write); err != nil {
			return n, err
		}

		n++
	}

	if n > 0 {
		return n, nil
	}

	return r.single(asking, m, &out, write)
}

// single gives out the next message, where the library tells of none: one that was
// published with the headers of a server's answer is the end of the stream for it.
func (r *Reader) single(
	ctx context.Context, m proto.Manifest, out *taken, write func([]byte) error,
) (n int, err error) {
	stream := proto.ResultsStream(r.cfg.Run)
	msg, err := bus.NextMessage(ctx, r.cfg.JS, stream, r.spot.Sequence+1, proto.ResultsSubject(r.cfg.Run, "*"))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, r.settle(ctx) // the next turn reads the stream that is there now
	}
	if err != nil {
		return 0, fmt.Errorf("read stream %s: %w", stream, err)
	}

	if err := r.give(ctx, m, msg, out, write); err != nil {
		return 0, err
	}

	return 1, nil
}

// give gives out what a message has that was not given out yet.
func (r *Reader) give(
	ctx context.Context, m proto.Manifest, msg *jetstream.RawStreamMsg, out *taken, write func([]byte) error,
) error {
	if err := r.take(ctx, m, msg, out); err != nil {
		return err
	}

	if len(out.lines) > 0 {
		if err := write(out.lines); err != nil {
			return writeError{err} // and these count as not read
		}
	}

	r.spot.seen.AddMany(out.answered)
	r.spot.seen.AddMany(out.failed)
	r.spot.failed.AddMany(out.failed)

	for _, seq := range out.answered {
		r.spot.failed.Remove(seq)
	}

	r.spot.Sequence, r.spot.Time, r.dirty = msg.Sequence, msg.Time, true

	return nil
}

// settle finds out whether the stream is still the one that the position is in. It
// begins anew, with what it has given out in mind, when it is another.
func (r *Reader) settle(ctx context.Context) error {
	stream, err := bus.FindStream(ctx, r.cfg.JS, proto.ResultsStream(r.cfg.Run))
	if err != nil {
		return err
	}

	info := stream.CachedInfo()
	if r.spot.Created.IsZero() && r.cfg.New {
		r.spot.Sequence = info.State.LastSeq
	} else if !info.Created.Equal(r.spot.Created) || info.State.LastSeq < r.spot.Sequence {
		r.spot.Sequence = 0
	}

	r.spot.Created, r.settled = info.Created, true

	return nil
}

// taken are the lines of a message that were not given out yet, and whose they are.
type taken struct {
	lines            []byte
	answered, failed []uint32
}

// take puts into out what a message has that was not given out yet. What the collector
// drops is dropped here too.
func (r *Reader) take(ctx context.Context, m proto.Manifest, msg *jetstream.RawStreamMsg, out *taken) error {
	out.lines, out.answered, out.failed = out.lines[:0], out.answered[:0], out.failed[:0]
	if proto.IsDeliveryNote(msg.Header) {
		return nil // for workers
	}

	batch, lines, err := r.open(ctx, m, msg)
	if bus.IsUnrecoverable(err) {
		r.drop(msg.Subject, nil, err)
		return nil
	}
	if err != nil {
		return err
	}

	for i, seq := range batch.Indexes {
		info, err := batch.ParseLine(&r.scan, i, lines[i])
		if err != nil {
			r.drop(msg.Subject, info.Worker, err)
			continue
		}

		if r.spot.seen.Contains(seq) {
			// A request that failed has another line after a retry, which may just have begun.
			again := info.OK && r.spot.failed.Contains(seq)
			if again && m.Retries == 0 {
				if m, err = r.runs.Get(ctx, r.cfg.Run); err != nil {
					return err
				}
			}

			if !again || m.Retries == 0 {
				continue
			}
		}

		if info.OK {
			out.answered = append(out.answered, seq)
		} else {
			out.failed = append(out.failed, seq)
		}

		out.lines = append(out.lines, lines[i]...)
	}

	return nil
}

// open reads a message of results, as far as its lines.
func (r *Reader) open(
	ctx context.Context, m proto.Manifest, msg *jetstream.RawStreamMsg,
) (batch proto.Batch, lines [][]byte, err error) {
	batch, err = m.Bounds().ParseBatch(msg.Subject, msg.Header)
	if err != nil {
		return batch, nil, err
	}

	if batch.Ending && !endsEarly(m) { // it may do so since a moment
		if m, err = r.runs.Get(ctx, r.cfg.Run); err != nil {
			return batch, nil, err
		}

		if !endsEarly(m) {
			return batch, nil, &proto.FieldError{
				Field: proto.HeaderShard,
				Why:   batch.Shard + " of a run that is not ending",
			}
		}
	}

	payload := msg.Data
	if batch.Object != "" {
		if payload, err = bus.New(r.cfg.JS).Answers(r.cfg.Run).Payload(ctx, msg.Header, msg.Data); err != nil {
			return batch, nil, err
		}
	}

	lines, err = batch.SplitLines(payload)

	return batch, lines, err
}

// endsEarly reports whether the run may have lines of requests that were not executed: it
// ends early, or did before a retry.
func endsEarly(m proto.Manifest) bool {
	switch m.State {
	case proto.StateValidating, proto.StateInProgress, proto.StatePaused:
		return m.Retries > 0
	}
	return true
}

// drop counts what does not fit the run, and logs the first of a kind and a worker.
func (r *Reader) drop(subject string, worker []byte, err error) {
	if r.dropped.Add(proto.ErrorField(err), string(worker)) {
		r.cfg.Log.Warn().Err(err).Str("subject", subject).Str("worker", string(worker)).
			Msg("left out results that do not fit the run; more of this kind are only counted")
	}
}

// Dropped is how many messages of results, or lines of them, did not fit the run.
func (r *Reader) Dropped() int64 { return r.dropped.Count() }

func (r *Reader) key() string { return r.cfg.Run + "." + r.cfg.Name }

// recall looks up the remembered position.
func (r *Reader) recall(ctx context.Context, run proto.Manifest) error {
	if r.cfg.Name == "" {
		return nil
	}

	var err error
	if r.kv, err = r.cfg.JS.KeyValue(ctx, proto.ReadersBucket); err != nil {
		return fmt.Errorf("open bucket %s: %w", proto.ReadersBucket, err)
	}

	entry, err := r.kv.Get(ctx, r.key())
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("recall where reader %s was: %w", r.cfg.Name, err)
	}

	was, of, err := readMemory(entry.Value())
	if err == nil && of.Equal(run.CreatedAt) {
		if err = was.check(run.Input.Requests); err == nil {
			r.spot = was
		}
	}
	if err != nil {
		return fmt.Errorf("recall where reader %s was: %w", r.cfg.Name, err)
	}

	r.revision = entry.Revision()

	return nil
}

// readMemory reads a remembered spot, and when the run was made that it is of.
func readMemory(data []byte) (s spot, of time.Time, err error) {
	var m memory
	if err := json.Unmarshal(data, &m); err != nil {
		return s, of, fmt.Errorf("%w: %w", proto.ErrFormat, err)
	}

	s = spot{Position: m.Position, seen: roaring.New(), failed: roaring.New()}
	for _, set := range []struct {
		into *roaring.Bitmap
		data []byte
	}{{s.seen, m.Seen}, {s.failed, m.Failed}} {
		err := set.into.UnmarshalBinary(set.data)
		if err == nil && !set.into.IsEmpty() {
			err = set.into.Validate()
		}
		if err != nil {
			return s, of, fmt.Errorf("%w: %w", proto.ErrFormat, err)
		}
	}

	return s, m.Of, nil
}

// check holds a remembered spot against a run of so many requests. One that cannot be
// would hide lines.
func (s spot) check(total int) error {
	if !s.seen.IsEmpty() && int64(s.seen.Maximum()) >= int64(total) {
		return fmt.Errorf("%w: it has request %d of %d", proto.ErrFormat, s.seen.Maximum(), total)
	}
	if s.failed.AndCardinality(s.seen) != s.failed.GetCardinality() {
		return fmt.Errorf("%w: it has failed requests that it has not seen", proto.ErrFormat)
	}
	return nil
}

// remember stores the position, once a second at most unless now is true.
func (r *Reader) remember(ctx context.Context, now bool) error {
	if r.kv == nil || !r.dirty || !now && time.Since(r.saved) < time.Second {
		return nil
	}

	r.saved = time.Now()
	r.spot.seen.RunOptimize()
	r.spot.failed.RunOptimize()
	m := memory{Position: r.spot.Position, Of: r.of}
	var err error
	if m.Seen, err = r.spot.seen.ToBytes(); err != nil {
		return err
	}

	if m.Failed, err = r.spot.failed.ToBytes(); err != nil {
		return err
	}

	data, err := json.Marshal(m)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	revision, err := r.kv.Update(ctx, r.key(), data, r.revision)
	if bus.IsWrongSequence(err) {
		return fmt.Errorf("reader %s: %w", r.cfg.Name, ErrReader)
	}

	if err != nil {
		r.cfg.Log.Warn().Err(err).Msg("remember where the reader is; trying on")
		return nil
	}

	r.revision, r.dirty = revision, false

	return nil
}
