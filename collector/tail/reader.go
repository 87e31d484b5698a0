package tail

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// ErrReaderInUse is returned when another process reads under the same name.
var ErrReaderInUse = errors.New("another reader uses this name")

// Config configures a reader.
type Config struct {
	// JS is the connection to the bus, with the role of a reader or more. Required.
	JS jetstream.JetStream
	// Run is the id of the run. Required.
	Run string
	// Name is the name under which the reader's position is stored. Defaults to none: a
	// reader without a name begins with the oldest result on the bus.
	Name string
	// New begins with the results that come from now on, unless a position is stored.
	New bool
	// Log gets warnings about the bus and about results that do not fit the run. Defaults
	// to no log.
	Log zerolog.Logger
}

// Reader reads the results of a run downstream. It serves one call of Run.
type Reader struct {
	cfg    Config
	runs   *bus.RunStore
	store  *store
	run    proto.Manifest // as it was read last
	cursor cursor
	scan   jsonscan.Scanner

	located bool // the cursor is in the stream that exists now
	dirty   bool // the cursor has changed since it was stored
	dropped proto.DropCounter
}

// New returns a reader. It returns an error that names the field if the configuration lacks
// one.
func New(cfg Config) (*Reader, error) {
	switch {
	case cfg.JS == nil:
		return nil, errors.New("tail: Config.JS is required")
	case cfg.Run == "":
		return nil, errors.New("tail: Config.Run is required")
	}
	return &Reader{cfg: cfg}, nil
}

// Dropped returns how many messages of results, or lines of them, did not fit the run.
func (r *Reader) Dropped() int64 { return r.dropped.Count() }

// Run gives the lines to write, many at a time, each with its line feed, until the run has
// ended and all its results were given. Lines count as read when write returns nil. Run
// returns the requests whose lines had left the bus before they could be read, and the
// run's manifest, which says where they are.
//
// When ctx ends, Run returns its cause; when write fails, its error. In both cases the
// position is stored. Run also returns an error that wraps proto.ErrNoRun if there is no
// such run, or no longer, and [ErrReaderInUse] if another process reads under the name.
func (r *Reader) Run(
	ctx context.Context, write func(lines []byte) error,
) (missed *roaring.Bitmap, run proto.Manifest, err error) {
	if err := r.loadRun(ctx); err != nil {
		return nil, r.run, err
	}

	missed, err = r.readAll(ctx, write)

	return missed, r.run, err
}

// loadRun loads the manifest and the cursor.
func (r *Reader) loadRun(ctx context.Context) error {
	b, err := bus.Open(ctx, r.cfg.JS)
	if err != nil {
		return err
	}

	r.runs = b.Runs
	if r.run, err = r.runs.Get(ctx, r.cfg.Run); err != nil {
		return err
	}

	if r.store, err = openStore(ctx, r.cfg, r.run); err != nil {
		return err
	}

	r.cursor, err = r.store.loadCursor(ctx, r.run.Input.Requests)

	return err
}

// readAll reads until the run has ended.
func (r *Reader) readAll(ctx context.Context, write func([]byte) error) (missed *roaring.Bitmap, err error) {
	asked := time.Now()
	for {
		n, err := r.readBatch(ctx, write)
		if ctx.Err() != nil {
			return nil, errors.Join(context.Cause(ctx), r.saveCursor(context.WithoutCancel(ctx), true))
		}

		if w, ok := errors.AsType[writeError](err); ok {
			return nil, errors.Join(w.error, r.saveCursor(ctx, true))
		}

		if err != nil {
			r.cfg.Log.Warn().Err(err).Str("run", r.cfg.Run).Msg("failed to read results; retrying")
		}

		if err := r.saveCursor(ctx, n == 0); err != nil {
			return nil, err
		}

		if n > 0 {
			continue
		}

		if r.run.State.Ended() && err == nil {
			return r.missedRequests(), nil
		}

		if err := bus.Sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}

		if time.Since(asked) < time.Second && !r.run.State.Ended() {
			continue
		}

		asked = time.Now()

		// The results that a run has when it has ended are read in one more round.
		err = r.refreshManifest(ctx)
		if errors.Is(err, proto.ErrNoRun) || err != nil && r.cfg.JS.Conn().IsClosed() {
			return nil, err
		}
		if err != nil {
			r.cfg.Log.Warn().Err(err).Str("run", r.cfg.Run).Msg("failed to read the run's state; retrying")
		}
	}
}

// missedRequests returns the requests whose lines were not given out.
func (r *Reader) missedRequests() *roaring.Bitmap {
	if r.cfg.New {
		return roaring.New() // left out on purpose
	}
	return roaring.Flip(r.cursor.seen, 0, uint64(r.run.Input.Requests))
}

// refreshManifest reads the run's manifest again.
func (r *Reader) refreshManifest(ctx context.Context) error {
	run, err := r.runs.Get(ctx, r.cfg.Run)
	if err == nil {
		r.run = run
	}
	return err
}

// saveCursor stores the cursor if it has changed: once a second at most, unless now is
// true.
func (r *Reader) saveCursor(ctx context.Context, now bool) error {
	if r.store.kv == nil || !r.dirty || !now && time.Since(r.store.saved) < time.Second {
		return nil
	}

	err := r.store.saveCursor(ctx, &r.cursor)
	if errors.Is(err, ErrReaderInUse) {
		return err
	}
	if err != nil {
		r.cfg.Log.Warn().Err(err).Str("run", r.cfg.Run).Msg("failed to store the reader's position; retrying")
		return nil
	}

	r.dirty = false

	return nil
}

// writeError is an error of the function that takes the lines.
type writeError struct{ error }

// readBatch gives out the next messages and returns how many there were.
func (r *Reader) readBatch(ctx context.Context, write func([]byte) error) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	if !r.located {
		if err := r.locateCursor(ctx); err != nil {
			return 0, err
		}
	}

	stream := proto.ResultsStream(r.cfg.Run)

	messages, err := jetstreamext.GetBatch(ctx, r.cfg.JS, stream, 512,
		jetstreamext.GetBatchSeq(r.cursor.sequence+1), jetstreamext.GetBatchMaxBytes(8<<20))
	if err != nil {
		return 0, fmt.Errorf("read stream %s: %w", stream, err)
	}

	var out newLines
	for msg, err := range messages {
		if err != nil || len(msg.Header[jetstream.SequenceHeader]) != 1 {
			break // the end, or a message that was published with the headers of an answer
		}

		bus.StripServerHeaders(msg.Header)

		if err := r.giveMessage(ctx, msg, &out, write); err != nil {
			return n, err
		}

		n++
	}

	if n > 0 {
		return n, nil
	}

	return r.readOne(ctx, &out, write)
}

// readOne gives out the next message where GetBatch returns none: a message that was
// published with the headers of a server's answer is the end of the stream for it.
func (r *Reader) readOne(ctx context.Context, out *newLines, write func([]byte) error) (n int, err error) {
	stream := proto.ResultsStream(r.cfg.Run)

	msg, err := bus.NextMessage(ctx, r.cfg.JS, stream, r.cursor.sequence+1, proto.ResultsSubject(r.cfg.Run, "*"))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, r.locateCursor(ctx) // the next round reads the stream that exists now
	}
	if err != nil {
		return 0, fmt.Errorf("read stream %s: %w", stream, err)
	}

	if err := r.giveMessage(ctx, msg, out, write); err != nil {
		return 0, err
	}

	return 1, nil
}

// locateCursor compares the stream with the one that the cursor is in. If it is another one,
// reading begins at its start, and the lines that were given out are left out.
func (r *Reader) locateCursor(ctx context.Context) error {
	stream, err := bus.FindStream(ctx, r.cfg.JS, proto.ResultsStream(r.cfg.Run))
	if err != nil {
		return err
	}

	info := stream.CachedInfo()
	if r.cursor.created.IsZero() && r.cfg.New {
		r.cursor.sequence = info.State.LastSeq
	} else if !info.Created.Equal(r.cursor.created) || info.State.LastSeq < r.cursor.sequence {
		r.cursor.sequence = 0
	}

	r.cursor.created, r.located = info.Created, true

	return nil
}

// giveMessage gives out the lines of a message that were not given out yet.
func (r *Reader) giveMessage(
	ctx context.Context, msg *jetstream.RawStreamMsg, out *newLines, write func([]byte) error,
) error {
	if err := r.selectLines(ctx, msg, out); err != nil {
		return err
	}

	if len(out.lines) > 0 {
		if err := write(out.lines); err != nil {
			return writeError{err} // and these lines count as not read
		}
	}

	c := &r.cursor
	c.seen.AddMany(out.answered)
	c.seen.AddMany(out.failed)
	c.failed.AddMany(out.failed)

	for _, index := range out.answered {
		c.failed.Remove(index)
	}

	c.sequence, c.time, r.dirty = msg.Sequence, msg.Time, true

	return nil
}

// newLines are the lines of a message that were not given out yet, and their requests.
type newLines struct {
	lines            []byte
	answered, failed []uint32
}

// selectLines puts the lines of a message that were not given out yet into out. It drops
// what the collector drops.
func (r *Reader) selectLines(ctx context.Context, msg *jetstream.RawStreamMsg, out *newLines) error {
	out.lines, out.answered, out.failed = out.lines[:0], out.answered[:0], out.failed[:0]
	if proto.IsDeliveryNote(msg.Header) {
		return nil // for workers
	}

	batch, lines, err := r.decodeMessage(ctx, msg)
	if bus.IsUnrecoverable(err) {
		r.dropResult(msg.Subject, nil, err)
		return nil
	}
	if err != nil {
		return err
	}

	for i, index := range batch.Indexes {
		info, err := batch.ParseLine(&r.scan, i, lines[i])
		if err != nil {
			r.dropResult(msg.Subject, info.Worker, err)
			continue
		}

		wanted, err := r.isWanted(ctx, index, info.OK)
		if err != nil {
			return err
		}

		if !wanted {
			continue
		}

		if info.OK {
			out.answered = append(out.answered, index)
		} else {
			out.failed = append(out.failed, index)
		}

		out.lines = append(out.lines, lines[i]...)
	}

	return nil
}

// isWanted reports whether a line of a request is given out: the first one is, and after a
// retry the answer to a request that had failed.
func (r *Reader) isWanted(ctx context.Context, index uint32, answered bool) (bool, error) {
	if !r.cursor.seen.Contains(index) {
		return true, nil
	}

	if !answered || !r.cursor.failed.Contains(index) {
		return false, nil
	}

	if r.run.Retries == 0 { // the retry may just have begun
		if err := r.refreshManifest(ctx); err != nil {
			return false, err
		}
	}

	return r.run.Retries > 0, nil
}

// decodeMessage reads a message of results up to its lines.
func (r *Reader) decodeMessage(
	ctx context.Context, msg *jetstream.RawStreamMsg,
) (batch proto.Batch, lines [][]byte, err error) {
	batch, err = r.run.Bounds().ParseBatch(msg.Subject, msg.Header)
	if err != nil {
		return batch, nil, err
	}

	if batch.Ending && !mayEndEarly(r.run) { // the run may have been cancelled a moment ago
		if err = r.refreshManifest(ctx); err != nil {
			return batch, nil, err
		}

		if !mayEndEarly(r.run) {
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

// mayEndEarly reports whether the run may have lines of requests that were not executed: it
// ends early, or did before a retry.
func mayEndEarly(run proto.Manifest) bool {
	switch run.State {
	case proto.StateValidating, proto.StateInProgress, proto.StatePaused:
		return run.Retries > 0
	}
	return true
}

// dropResult counts a result that does not fit the run, and logs the first of each kind and worker.
func (r *Reader) dropResult(subject string, worker []byte, err error) {
	if !r.dropped.Add(proto.ErrorField(err), string(worker)) {
		return
	}

	r.cfg.Log.Warn().Err(err).Str("run", r.cfg.Run).Str("subject", subject).Str("worker", string(worker)).
		Msg("left out results that do not fit the run; more of this kind are only counted")
}
