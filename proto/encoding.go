package proto

import (
	"cmp"
	"slices"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Encoding is the form of a shard's payload, as [HeaderEncoding] names it.
type Encoding string

// The encodings of a shard. The empty Encoding is Snappy.
const (
	// Snappy is one block in the raw format. Libraries for Go, Java and C++ read it.
	Snappy Encoding = "snappy"
	// Zstd is one zstd frame.
	Zstd Encoding = "zstd"
	// Plain is the text itself.
	Plain Encoding = "none"
)

// Encodings returns all encodings.
func Encodings() []Encoding { return []Encoding{Snappy, Zstd, Plain} }

// isKnown reports whether e is an encoding, or empty.
func (e Encoding) isKnown() bool { return e == "" || slices.Contains(Encodings(), e) }

// maxShard is the largest unpacked shard, in bytes, so that a damaged or hostile message cannot
// take all memory.
const maxShard = 256 << 20

// zstdEncoder returns the encoder of shards, which has no state between calls.
var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithZeroFrames(true),
		zstd.WithSingleSegment(true)) // its header has the size, which readers of a whole frame need
	if err != nil {
		panic(err) // the options are constant
	}
	return e
})

// zstdDecoder returns the decoder of shards, which has no state between calls.
var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxShard))
	if err != nil {
		panic(err) // the options are constant
	}
	return d
})

// pack returns the payload of a shard's lines, in the memory of dst if it fits.
func (e Encoding) pack(dst, lines []byte) []byte {
	switch e {
	case Zstd:
		return zstdEncoder().EncodeAll(lines, dst[:0])
	case Plain:
		return append(dst[:0], lines...)
	}
	return s2.EncodeSnappy(dst, lines)
}

// unpack returns the lines of a shard's payload.
func (e Encoding) unpack(payload []byte) ([]byte, error) {
	switch e {
	case Zstd:
		return zstdDecoder().DecodeAll(payload, nil)
	case Plain:
		if len(payload) > maxShard {
			return nil, zstd.ErrDecoderSizeExceeded
		}
		return payload, nil
	}

	if n, err := s2.DecodedLen(payload); err != nil || n > maxShard {
		return nil, cmp.Or(err, s2.ErrTooLarge)
	}

	return s2.Decode(nil, payload)
}
