package collector

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
	seekTableMagic  = 0x184D2A5E
	seekableMagic   = 0x8F92EAB1
	seekFrameTarget = 4 << 20 // of content, about
)

// seekableWriter writes independent zstd frames, cut between writes, and at the end a
// table of their sizes in a skippable frame.
type seekableWriter struct {
	w      io.Writer
	enc    *zstd.Encoder
	frame  []byte
	packed bytes.Buffer
	table  []byte
	count  uint32
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
	return len(p), s.flush(false)
}

// flush writes a frame. Only one that has all of the content says its size: a reader that
// asks the first frame how large all is (python-zstandard's decompress) is to fail, instead of
// leaving out the others.
func (s *seekableWriter) flush(whole bool) error {
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

// Close writes the rest and the table.
func (s *seekableWriter) Close() error {
	if len(s.frame) > 0 || s.count == 0 {
		if err := s.flush(s.count == 0); err != nil {
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
