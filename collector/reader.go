package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/promptmill/promptmill/proto"
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
	runs     *proto.Runs
	kv       jetstream.KeyValue // nil without a name
	revision uint64             // of the remembered position
	of       time.Time          // when the run was made
	spot     spot
	settled  bool // the spot is in the stream that is there
	saved    time.Time
	dirty    bool
	scan     proto.Scanner
}

// spot is how far a reader has come.
type spot struct {
	Position
	seen   *roaring.Bitmap // requests whose line was given out
	failed *roaring.Bitmap // those of them whose line is of a failure
}

// memory is a spot as it is remembered. The bitmaps are in Roaring's portable format.
type memory struct {
	Position
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
func (r *Reader) Run(ctx context.Context, write func([]byte) error) (missed *roaring.Bitmap, m proto.Manifest, err error) {
	if r.runs, err = proto.OpenRuns(ctx, r.cfg.JS); err != nil {
		return nil, m, err
	}
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
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
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
		jetstreamext.GetBatchSeq(r.spot.Seq+1), jetstreamext.GetBatchMaxBytes(8<<20))
	if err != nil {
		return 0, fmt.Errorf("read stream %s: %w", stream, err)
	}
	var out taken
	for msg, err := range messages {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			before := r.spot.Position
			if err := r.settle(asking); err != nil || r.spot.Position == before {
				return 0, err
			}
			return r.batch(ctx, m, write) // in the stream that is there now
		}
		if err != nil {
			return n, fmt.Errorf("read stream %s: %w", stream, err)
		}
		if err = r.take(asking, m, msg, &out); err != nil {
			return n, err
		}
		if len(out.lines) > 0 {
			if err := write(out.lines); err != nil {
				return n, writeError{err} // and these count as not read
			}
		}
		r.spot.seen.AddMany(out.answered)
		r.spot.seen.AddMany(out.failed)
		r.spot.failed.AddMany(out.failed)
		for _, seq := range out.answered {
			r.spot.failed.Remove(seq)
		}
		r.spot.Seq, r.spot.Time, r.dirty = msg.Sequence, msg.Time, true
		n++
	}
	if n == 0 { // the library says nothing of a time-out
		return 0, fmt.Errorf("read stream %s: no answer", stream)
	}
	return n, nil
}

// settle finds out whether the stream is still the one that the position is in. It
// begins anew, with what it has given out in mind, when it is another.
func (r *Reader) settle(ctx context.Context) error {
	stream, err := r.cfg.JS.Stream(ctx, proto.ResultsStream(r.cfg.Run))
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", proto.ResultsStream(r.cfg.Run), err)
	}
	info := stream.CachedInfo()
	if r.spot.Created.IsZero() && r.cfg.New {
		r.spot.Seq = info.State.LastSeq
	} else if !info.Created.Equal(r.spot.Created) || info.State.LastSeq < r.spot.Seq {
		r.spot.Seq = 0
	}
	r.spot.Created, r.settled = info.Created, true
	return nil
}

// taken are the lines of a message that were not given out yet, and whose they are.
type taken struct {
	lines            []byte
	answered, failed []uint32
}

// take puts into out what a message has that was not given out yet.
func (r *Reader) take(ctx context.Context, m proto.Manifest, msg *jetstream.RawStreamMsg, out *taken) error {
	out.lines, out.answered, out.failed = out.lines[:0], out.answered[:0], out.failed[:0]
	seqs, err := proto.ResultSeqs(msg.Header)
	if err != nil {
		return nil // the collector drops it too
	}
	payload, err := proto.NewObjects(r.cfg.JS, r.cfg.Run).Payload(ctx, msg.Header, msg.Data)
	if proto.Lost(err) {
		return nil
	}
	if err != nil {
		return err
	}
	lines, err := proto.SplitLines(payload, len(seqs))
	if err != nil {
		return nil
	}
	for i, seq := range seqs {
		info, err := proto.ParseLine(&r.scan, lines[i])
		if err != nil || int(seq) >= m.Input.Requests {
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
	var m memory
	if err := json.Unmarshal(entry.Value(), &m); err != nil {
		return fmt.Errorf("recall where reader %s was: %w: %w", r.cfg.Name, proto.ErrFormat, err)
	}
	r.revision = entry.Revision()
	was := spot{Position: m.Position, seen: roaring.New(), failed: roaring.New()}
	if err := errors.Join(was.seen.UnmarshalBinary(m.Seen), was.failed.UnmarshalBinary(m.Failed)); err != nil {
		return fmt.Errorf("recall where reader %s was: %w: %w", r.cfg.Name, proto.ErrFormat, err)
	}
	if m.Of.Equal(run.CreatedAt) {
		r.spot = was
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
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && strings.Contains(api.Description, "wrong last sequence") {
		return fmt.Errorf("reader %s: %w", r.cfg.Name, ErrReader)
	}
	if err != nil {
		r.cfg.Log.Warn().Err(err).Msg("remember where the reader is; trying on")
		return nil
	}
	r.revision, r.dirty = revision, false
	return nil
}
