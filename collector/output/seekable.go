package output

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Constants of the zstd seekable format, version 0.1.0 (facebook/zstd,
// contrib/seekable_format/zstd_seekable_compression_format.md).
const (
	seekTableMagic = 0x184D2A5E
	seekableMagic  = 0x8F92EAB1
)

// seekFrameTarget is about the size of a frame's content, in bytes.
const seekFrameTarget = 4 << 20

// seekableWriter writes independent zstd frames, cut between writes, and at the end a
// table of their sizes in a skippable frame.
type seekableWriter struct {
	w      io.Writer
	enc    *zstd.Encoder
	frame  []byte       // content of the frame that is being filled
	packed bytes.Buffer // the frame before, compressed
	table  []byte       // entries so far
	count  uint32       // frames so far
}

func newSeekableWriter(w io.Writer) (*seekableWriter, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, fmt.Errorf("zstd encoder: %w", err)
	}
	return &seekableWriter{w: w, enc: enc}, nil
}

func (s *seekableWriter) Write(p []byte) (int, error) {
	s.frame = append(s.frame, p...)
	if len(s.frame) < seekFrameTarget {
		return len(p), nil
	}
	return len(p), s.flushFrame(false)
}

// flushFrame writes a frame. Only a frame that has all of the content states its size: a
// reader that takes the first frame's size for the size of the whole file (python-zstandard's
// decompress) must fail, instead of leaving out the others.
func (s *seekableWriter) flushFrame(whole bool) error {
	s.packed.Reset()

	if whole {
		s.enc.ResetContentSize(&s.packed, int64(len(s.frame)))
	} else {
		s.enc.Reset(&s.packed)
	}

	if _, err := s.enc.Write(s.frame); err != nil {
		return err
	}

	if err := s.enc.Close(); err != nil {
		return err
	}

	packed := s.packed.Bytes()
	s.table = binary.LittleEndian.AppendUint32(s.table, uint32(len(packed)))
	s.table = binary.LittleEndian.AppendUint32(s.table, uint32(len(s.frame)))
	s.count++
	s.frame = s.frame[:0]

	_, err := s.w.Write(packed)

	return err
}

// Close writes the last frame and the table.
func (s *seekableWriter) Close() error {
	if len(s.frame) > 0 || s.count == 0 {
		if err := s.flushFrame(s.count == 0); err != nil {
			return err
		}
	}

	out := binary.LittleEndian.AppendUint32(nil, seekTableMagic)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(s.table)+9))
	out = append(out, s.table...)
	out = binary.LittleEndian.AppendUint32(out, s.count)
	out = append(out, 0) // no checksums in the table: the frames have their own
	out = binary.LittleEndian.AppendUint32(out, seekableMagic)

	_, err := s.w.Write(out)

	return err
}
