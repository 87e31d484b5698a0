package tail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// cursor is a reader's position in the results stream.
type cursor struct {
	// created is the creation time of the results stream that sequence belongs to; zero:
	// none was read.
	created time.Time
	// sequence is the last message that was read, and time when the stream stored it.
	sequence uint64
	time     time.Time

	seen   *roaring.Bitmap // requests whose line was given out
	failed *roaring.Bitmap // requests among them whose line is of a failure
}

func newCursor() cursor { return cursor{seen: roaring.New(), failed: roaring.New()} }

// savedCursor is a cursor as it is stored. The bitmaps are in Roaring's portable format.
type savedCursor struct {
	Created  time.Time `json:"created"`
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	// RunCreated is the run's creation time: another run may have its id later.
	RunCreated time.Time `json:"run_created"`
	Seen       []byte    `json:"seen"`
	Failed     []byte    `json:"failed"`
}

// decodeCursor reads a stored cursor, and when its run was created.
func decodeCursor(data []byte) (c cursor, runCreated time.Time, err error) {
	var saved savedCursor
	if err := json.Unmarshal(data, &saved); err != nil {
		return c, runCreated, fmt.Errorf("%w: %w", proto.ErrFormat, err)
	}

	c = newCursor()
	c.created, c.sequence, c.time = saved.Created, saved.Sequence, saved.Time

	for _, set := range []struct {
		into *roaring.Bitmap
		data []byte
	}{{c.seen, saved.Seen}, {c.failed, saved.Failed}} {
		err := set.into.UnmarshalBinary(set.data)
		if err == nil && !set.into.IsEmpty() {
			err = set.into.Validate()
		}
		if err != nil {
			return c, runCreated, fmt.Errorf("%w: %w", proto.ErrFormat, err)
		}
	}

	return c, saved.RunCreated, nil
}

// encode returns the cursor as it is stored.
func (c *cursor) encode(runCreated time.Time) ([]byte, error) {
	c.seen.RunOptimize()
	c.failed.RunOptimize()

	saved := savedCursor{
		Created:    c.created,
		Sequence:   c.sequence,
		Time:       c.time,
		RunCreated: runCreated,
	}

	var err error
	if saved.Seen, err = c.seen.ToBytes(); err != nil {
		return nil, err
	}

	if saved.Failed, err = c.failed.ToBytes(); err != nil {
		return nil, err
	}

	return json.Marshal(saved)
}

// checkRequests compares a cursor with the number of its run's requests. A cursor that cannot be
// the run's would hide lines.
func (c *cursor) checkRequests(requests int) error {
	if !c.seen.IsEmpty() && int64(c.seen.Maximum()) >= int64(requests) {
		return fmt.Errorf("%w: it has request %d of %d", proto.ErrFormat, c.seen.Maximum(), requests)
	}
	if c.failed.AndCardinality(c.seen) != c.failed.GetCardinality() {
		return fmt.Errorf("%w: it has failed requests that it has not seen", proto.ErrFormat)
	}
	return nil
}

// store keeps the cursor of a reader with a name on the bus.
type store struct {
	kv         jetstream.KeyValue // nil without a name
	key        string
	revision   uint64    // of the stored cursor
	runCreated time.Time // when the run was created
	saved      time.Time // when the cursor was stored last
}

// openStore returns the store of a reader.
func openStore(ctx context.Context, cfg Config, run proto.Manifest) (*store, error) {
	if cfg.Name == "" {
		return &store{}, nil
	}

	kv, err := cfg.JS.KeyValue(ctx, proto.ReadersBucket)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", proto.ReadersBucket, err)
	}

	return &store{kv: kv, key: cfg.Run + "." + cfg.Name, runCreated: run.CreatedAt}, nil
}

// loadCursor returns the stored cursor, or an empty one if there is none of this run.
func (s *store) loadCursor(ctx context.Context, requests int) (cursor, error) {
	if s.kv == nil {
		return newCursor(), nil
	}

	entry, err := s.kv.Get(ctx, s.key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return newCursor(), nil
	}
	if err != nil {
		return cursor{}, fmt.Errorf("load the position of reader %s: %w", s.key, err)
	}

	c, runCreated, err := decodeCursor(entry.Value())
	if err == nil && !runCreated.Equal(s.runCreated) {
		c = newCursor()
	}
	if err == nil {
		err = c.checkRequests(requests)
	}
	if err != nil {
		return cursor{}, fmt.Errorf("load the position of reader %s: %w", s.key, err)
	}

	s.revision = entry.Revision()

	return c, nil
}

// saveCursor stores a cursor. It returns an error that wraps [ErrReaderInUse] if another
// process has stored one meanwhile.
func (s *store) saveCursor(ctx context.Context, c *cursor) error {
	s.saved = time.Now()

	data, err := c.encode(s.runCreated)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	revision, err := s.kv.Update(ctx, s.key, data, s.revision)
	if bus.IsWrongSequence(err) {
		return fmt.Errorf("reader %s: %w", s.key, ErrReaderInUse)
	}
	if err != nil {
		return err
	}

	s.revision = revision

	return nil
}
