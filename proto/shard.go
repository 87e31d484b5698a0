package proto

import (
	"bytes"
	"fmt"

	"github.com/nats-io/nats.go"
)

// MaxShardSize is the most requests that a shard may hold.
const MaxShardSize = 4096

// Shard is the unit of work: requests for one model that travel, are acknowledged
// and are delivered again together.
type Shard struct {
	ID       string
	Requests []Request // in ascending order of Seq
}

// EncodeShard makes the message of a shard: zstd-compressed request lines under the
// numbers in its header.
func (c *Codec) EncodeShard(run, model string, s Shard) *nats.Msg {
	size := 0
	for _, r := range s.Requests {
		size += len(r.CustomID) + len(r.Body) + 128
	}
	lines := make([]byte, 0, size)
	seqs := make([]uint32, len(s.Requests))
	for i, r := range s.Requests {
		lines = AppendRequest(lines, r)
		seqs[i] = r.Seq
	}
	msg := nats.NewMsg(WorkSubject(run, model, s.ID))
	msg.Header.Set(HeaderVersion, Version)
	msg.Header.Set(HeaderShard, s.ID)
	msg.Header.Set(HeaderSeqs, FormatSeqs(seqs))
	msg.Data = c.enc.EncodeAll(lines, make([]byte, 0, len(lines)/3))
	return msg
}

// DecodeShard reads a shard from a message's header and payload; the payload is
// given apart, since it may have come from the object store. It returns an error
// that wraps [ErrFormat] when it cannot.
func (c *Codec) DecodeShard(h nats.Header, payload []byte) (Shard, error) {
	id, seqs, err := batchHeader(h, MaxShardSize)
	if err != nil {
		return Shard{}, fmt.Errorf("shard: %w", err)
	}
	lines, err := c.dec.DecodeAll(payload, nil)
	if err != nil {
		return Shard{}, fmt.Errorf("shard %s: unpack: %w: %w", id, ErrFormat, err)
	}
	s := Shard{ID: id, Requests: make([]Request, 0, len(seqs))}
	var scan Scanner
	for line := range bytes.Lines(lines) {
		if len(s.Requests) == len(seqs) {
			return Shard{}, fmt.Errorf("shard %s: %w: more lines than numbers", id, ErrFormat)
		}
		r, err := ParseRequest(&scan, line)
		if err != nil {
			return Shard{}, fmt.Errorf("shard %s: line %d: %w: %w", id, len(s.Requests)+1, ErrFormat, err)
		}
		r.Seq = seqs[len(s.Requests)]
		s.Requests = append(s.Requests, r)
	}
	if len(s.Requests) != len(seqs) {
		return Shard{}, fmt.Errorf("shard %s: %w: %d lines for %d numbers", id, ErrFormat, len(s.Requests), len(seqs))
	}
	return s, nil
}

// batchHeader reads the headers that shard and result messages share.
func batchHeader(h nats.Header, limit int) (id string, seqs []uint32, err error) {
	if v := h.Get(HeaderVersion); v != Version {
		return "", nil, fmt.Errorf("%w: message version %q, this program reads %q", ErrFormat, v, Version)
	}
	id = h.Get(HeaderShard)
	if id == "" {
		return "", nil, fmt.Errorf("%w: no %s header", ErrFormat, HeaderShard)
	}
	seqs, err = ParseSeqs(h.Get(HeaderSeqs), limit)
	if err != nil {
		return "", nil, fmt.Errorf("%s of shard %s: %w: %w", HeaderSeqs, id, ErrFormat, err)
	}
	return id, seqs, nil
}
