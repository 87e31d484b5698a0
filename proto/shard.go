package proto

import (
	"bytes"
	"cmp"
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// MaxShardSize is the most requests that a shard may hold.
const MaxShardSize = 4096

// Shard is the unit of work: requests for one model that travel, are acknowledged and are
// redelivered together.
type Shard struct {
	ID string
	// Encoding is the form of the message. Defaults to [Snappy].
	Encoding Encoding
	// Requests are in ascending order of Index.
	Requests []Request
}

// EncodeShard makes the message of a shard: request lines in its encoding, under the indexes in its
// header.
func EncodeShard(run, model string, s Shard) *nats.Msg {
	b := buffers.Get().(*packing)
	defer buffers.Put(b)

	b.lines = b.lines[:0]
	indexes := make([]uint32, len(s.Requests))
	for i, r := range s.Requests {
		b.lines = AppendRequest(b.lines, r)
		indexes[i] = r.Index
	}

	msg := nats.NewMsg(WorkSubject(run, model, s.ID))
	msg.Header.Set(HeaderVersion, Version)
	msg.Header.Set(HeaderShard, s.ID)
	msg.Header.Set(HeaderIndexes, FormatIndexes(indexes))
	if cmp.Or(s.Encoding, Snappy) != Snappy {
		msg.Header.Set(HeaderEncoding, string(s.Encoding))
	}

	b.packed = s.Encoding.pack(b.packed, b.lines)
	msg.Data = bytes.Clone(b.packed)

	return msg
}

// packing has the memory for packing a shard.
type packing struct{ lines, packed []byte }

var buffers = sync.Pool{New: func() any { return new(packing) }}

// DecodeShard reads a shard from a message's header and payload; the payload is
// given apart, since it may have come from the object store. It returns an error
// that wraps [ErrFormat] when it cannot.
func DecodeShard(h nats.Header, payload []byte) (Shard, error) {
	id, indexes, err := batchHeader(h, MaxShardSize)
	if err != nil {
		return Shard{}, err
	}

	encoding := Encoding(h.Get(HeaderEncoding))
	if !encoding.isKnown() {
		return Shard{}, NewFieldError(HeaderEncoding, "%q is no encoding that this program reads",
			Excerpt(string(encoding)))
	}

	lines, err := encoding.unpack(payload)
	if err != nil {
		return Shard{}, fmt.Errorf("shard %s: unpack: %w: %w", id, ErrFormat, err)
	}

	s := Shard{ID: id, Encoding: encoding, Requests: make([]Request, 0, len(indexes))}
	var scan jsonscan.Scanner
	for line := range bytes.Lines(lines) {
		if len(s.Requests) == len(indexes) {
			return Shard{}, fmt.Errorf("shard %s: %w: more lines than indexes", id, ErrFormat)
		}

		r, err := ParseRequest(&scan, line)
		if err != nil {
			return Shard{}, fmt.Errorf("shard %s: line %d: %w: %w", id, len(s.Requests)+1, ErrFormat, err)
		}

		r.Index = indexes[len(s.Requests)]
		s.Requests = append(s.Requests, r)
	}

	if len(s.Requests) != len(indexes) {
		return Shard{}, fmt.Errorf("shard %s: %w: %d lines for %d indexes",
			id, ErrFormat, len(s.Requests), len(indexes))
	}

	return s, nil
}

// ParseShard reads a shard for a model, as [DecodeShard] does, and holds it against the run.
// Its error is of the type [FieldError] where the shard does not fit.
func (b Bounds) ParseShard(model, subject string, h nats.Header, payload []byte) (Shard, error) {
	id := h.Get(HeaderShard)
	if err := b.checkShard(WorkSubject(b.Run, model, id), subject, h); err != nil {
		return Shard{}, err
	}

	if !isShardID(id) {
		return Shard{}, NewFieldError(HeaderShard, "%q is no shard's id", Excerpt(id))
	}

	if name := h.Get(HeaderObject); name != "" && name != ShardObject(id) {
		return Shard{}, NewFieldError(HeaderObject, "%q is not the object of shard %s", Excerpt(name), id)
	}

	s, err := DecodeShard(h, payload)
	if err != nil {
		return Shard{}, err
	}

	if len(s.Requests) == 0 {
		return Shard{}, NewFieldError(HeaderIndexes, "shard %s names no request", id)
	}

	if last := s.Requests[len(s.Requests)-1].Index; int64(last) >= int64(b.Requests) {
		return Shard{}, NewFieldError(HeaderIndexes, "request %d of %d", last, b.Requests)
	}

	return s, nil
}

// batchHeader reads the headers that shard and result messages share. Its error is of the type
// [FieldError].
func batchHeader(h nats.Header, limit int) (id string, indexes []uint32, err error) {
	if v := h.Get(HeaderVersion); v != Version {
		return "", nil, NewFieldError(HeaderVersion, "%s, and this program reads %q", describeHeader(v), Version)
	}

	id = h.Get(HeaderShard)
	if id == "" {
		return "", nil, NewFieldError(HeaderShard, "the header is missing")
	}

	indexes, err = ParseIndexes(h.Get(HeaderIndexes), limit)
	if err != nil {
		return "", nil, NewFieldError(HeaderIndexes, "%v, of shard %s", err, Excerpt(id))
	}

	return id, indexes, nil
}

// describeHeader quotes the value of a header that must be there.
func describeHeader(value string) string {
	if value == "" {
		return "the header is missing"
	}
	return strconv.Quote(Excerpt(value))
}
