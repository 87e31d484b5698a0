package output

import (
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// mostPreallocated bounds the memory that is allocated because a file says so, in bytes.
const mostPreallocated = 64 << 20

// MaxFrame is the largest content of one frame that is unpacked, in bytes. A frame has 4 MiB of
// lines, or one longer line, and an answer has 256 MiB at most.
const MaxFrame = 1 << 30

// FrameDecoder unpacks one zstd frame after the other into the same memory. It is not safe for
// concurrent use.
type FrameDecoder struct {
	dec          *zstd.Decoder
	packed, text []byte
}

// NewFrameDecoder returns a decoder of frames of MaxFrame bytes at most. The caller closes it.
func NewFrameDecoder() (*FrameDecoder, error) { return newFrameDecoder() }

// NewCheckedFrameDecoder returns a decoder for frames whose packed bytes have been compared with
// a checksum. It does not compare their content with another one, which takes a tenth of the
// time.
func NewCheckedFrameDecoder() (*FrameDecoder, error) {
	return newFrameDecoder(zstd.IgnoreChecksum(true))
}

func newFrameDecoder(options ...zstd.DOption) (*FrameDecoder, error) {
	options = append(options, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxFrame))

	dec, err := zstd.NewReader(nil, options...)
	if err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}

	return &FrameDecoder{dec: dec}, nil
}

// Close releases the decoder.
func (d *FrameDecoder) Close() { d.dec.Close() }

// Packed returns n bytes to fill with a packed frame, valid until the next call.
func (d *FrameDecoder) Packed(n int64) []byte {
	d.packed = slices.Grow(d.packed[:0], int(n))[:n]
	return d.packed
}

// Unpack returns the content of the frame in Packed, valid until the next call. size is its
// expected size in bytes.
func (d *FrameDecoder) Unpack(size int64) (text []byte, err error) {
	d.text, err = d.dec.DecodeAll(d.packed, slices.Grow(d.text[:0], int(min(size, mostPreallocated))))
	return d.text, err
}

// Capacity returns the size of the memory that the decoder keeps, in bytes.
func (d *FrameDecoder) Capacity() int { return cap(d.packed) + cap(d.text) }
