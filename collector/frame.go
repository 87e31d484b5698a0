package collector

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// The journal is journalStart and then a file of pairs: a zstd skippable frame with our
// header, and an ordinary zstd frame with output lines. So any zstd program reads the lines at any
// time, and we know what is in them without unpacking.
//
//	skippable frame: magic (4 bytes), length of the rest (4), "pmj1" (4),
//	                 CRC-32C of the header (4), header (JSON)
//	zstd frame:      header.packed bytes; absent where that is 0
//
// All numbers are little-endian. (RFC 8878, 3.1.2, for skippable frames.)
// journalStart is an ordinary zstd frame (RFC 8878, 3.1.1) of nothing, that does not say its
// content's size: magic, frame header descriptor, window of 1 KiB, last block, raw, 0 bytes.
// Readers of streams pass over it. One that asks the first frame how large all is
// (python-zstandard's decompress) fails, instead of taking the skippable frame for an empty
// file.
const journalStart = "\x28\xb5\x2f\xfd\x00\x00\x01\x00\x00"

const (
	frameMagic  = 0x184D2A57 // one of the sixteen magic numbers of skippable frames
	frameTag    = "pmj1"
	frameFixed  = 16
	maxHeader   = 64 << 20
	frameTarget = 4 << 20 // lines, in bytes; one longer line makes a longer frame
)

// header says what the zstd frame behind it holds.
type header struct {
	Run string `json:"run"`
	// Manifest is there in the first frame, which holds no lines.
	Manifest *proto.Manifest `json:"manifest,omitempty"`
	// Seqs are the requests of the lines, in their order (proto.FormatSeqs).
	Seqs string `json:"indexes,omitempty"`
	// Failed are those of them that failed.
	Failed string       `json:"failed,omitempty"`
	Bytes  int64        `json:"bytes"`  // of the lines
	Packed int64        `json:"packed"` // of the zstd frame
	CRC    uint32       `json:"crc"`    // CRC-32C of the zstd frame
	Sizes  Sizes        `json:"sizes"`
	Counts proto.Counts `json:"counts"` // of this frame
	Digest proto.Digest `json:"digest"` // of the requests that its lines answer
	// Tally is of this frame too. Frames of lines that have none are of a program that
	// did not count so.
	Tally *Tally `json:"tally,omitempty"`
	// Workers are the stints of which there is news since the frames before.
	Workers []WorkerSession `json:"workers,omitempty"`
	// Position is how far the results stream was read.
	Position Position `json:"position"`
	// Series is what happened when, as the messages of the results tell.
	Series *metadata.Series `json:"series,omitempty"`
	// At is when the frame was closed. The others are parts of the time since the frame
	// before, in milliseconds: in which somebody was at work for the run, in which nobody
	// was, and in which nobody collected. Lost is below 0 where results show that there
	// was work while nobody collected.
	At     time.Time `json:"at"`
	Worked int64     `json:"worked_ms"`
	Idle   int64     `json:"idle_ms,omitempty"`
	Lost   int64     `json:"lost_ms,omitempty"`
	// Sessions are those of the run before this journal.
	Sessions int `json:"sessions,omitempty"`
}

// Sizes are the bytes of output lines, unpacked: what the output files will hold, with
// our extras and without. A zstd frame tells its size at its beginning, so it must be
// known before the files are written.
type Sizes struct {
	OK          int64 `json:"ok"`
	Failed      int64 `json:"failed"`
	OKPlain     int64 `json:"ok_plain"`
	FailedPlain int64 `json:"failed_plain"`
}

func (s *Sizes) add(d Sizes) {
	s.OK += d.OK
	s.Failed += d.Failed
	s.OKPlain += d.OKPlain
	s.FailedPlain += d.FailedPlain
}

// Position is a message of the results stream. A number alone would not do: a stream
// that lost its end, or was made anew, has other messages under the same numbers.
type Position struct {
	Created time.Time `json:"created"`  // of the stream
	Seq     uint64    `json:"sequence"` // 0: nothing was read
	Time    time.Time `json:"time"`     // of the message
}

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// errTorn is returned for bytes that are no whole frame header.
var errTorn = errors.New("not a whole frame")

// appendHeader appends the skippable frame of a header.
func appendHeader(dst []byte, h header) ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("frame header: %w", err)
	}

	if len(text) > maxHeader {
		return nil, fmt.Errorf("frame header of %d bytes is too long", len(text))
	}

	dst = binary.LittleEndian.AppendUint32(dst, frameMagic)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(frameTag)+4+len(text)))
	dst = append(dst, frameTag...)
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(text, crcTable))

	return append(dst, text...), nil
}

// firstFrame is the offset of a journal's first frame.
func firstFrame(r io.ReaderAt) (int64, error) {
	var start [len(journalStart)]byte
	err := readAt(r, start[:], 0)
	if errors.Is(err, errTorn) || err == nil && string(start[:]) != journalStart {
		return 0, nil // it is damaged, or no journal
	}

	return int64(len(journalStart)), err
}

// readHeader reads the header of the frame at an offset of a file of the given size.
// length is that of the skippable frame. The error is errTorn when there is no whole
// frame, and that of reading otherwise.
func readHeader(r io.ReaderAt, offset, size int64) (h header, length int64, err error) {
	var fixed [frameFixed]byte
	if err := readAt(r, fixed[:], offset); err != nil {
		return header{}, 0, err
	}

	n := int64(binary.LittleEndian.Uint32(fixed[4:]))
	if binary.LittleEndian.Uint32(fixed[:]) != frameMagic || string(fixed[8:12]) != frameTag || n < 8 ||
		n > maxHeader+8 {
		return header{}, 0, errTorn
	}

	length = 8 + n
	if offset+length > size {
		return header{}, 0, errTorn
	}

	text := make([]byte, n-8)
	if err := readAt(r, text, offset+frameFixed); err != nil {
		return header{}, 0, err
	}

	if crc32.Checksum(text, crcTable) != binary.LittleEndian.Uint32(fixed[12:]) {
		return header{}, 0, errTorn
	}

	if err := json.Unmarshal(text, &h); err != nil {
		return header{}, 0, fmt.Errorf("%w: %w", errTorn, err)
	}

	if h.Packed < 0 || h.Bytes < 0 || offset+length+h.Packed > size {
		return header{}, 0, errTorn
	}

	return h, length, nil
}

// unpacker reads the lines of one frame after the other into the same memory.
type unpacker struct {
	dec           *zstd.Decoder
	packed, lines []byte
}

func newUnpacker() (*unpacker, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}
	return &unpacker{dec: dec}, nil
}

func (u *unpacker) close() { u.dec.Close() }

// unpack returns the lines of a frame, valid until the next call, or errTorn if they are
// not what its header says.
func (u *unpacker) unpack(r io.ReaderAt, p place) ([]byte, error) {
	u.packed = slices.Grow(u.packed[:0], int(p.Packed))[:p.Packed]
	err := readAt(r, u.packed, p.packed)
	if err == nil && crc32.Checksum(u.packed, crcTable) != p.CRC {
		err = errTorn
	}
	if err != nil || p.Packed == 0 {
		return nil, err
	}

	u.lines, err = u.dec.DecodeAll(u.packed, slices.Grow(u.lines[:0], int(min(p.Bytes, maxHeader))))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTorn, err)
	}

	if n := bytes.Count(u.lines, []byte{'\n'}); n != p.Counts.Done {
		return nil, fmt.Errorf("%w: %d lines for %d requests", errTorn, n, p.Counts.Done)
	}

	return u.lines, nil
}

// readAt fills p, or returns errTorn where the file ends first.
func readAt(r io.ReaderAt, p []byte, offset int64) error {
	n, err := r.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}

	if err == io.EOF {
		return errTorn
	}

	return fmt.Errorf("read at byte %d: %w", offset, err)
}

// nextHeader finds the first whole frame behind an offset, or returns -1.
func nextHeader(r io.ReaderAt, offset, size int64) (int64, error) {
	magic := binary.LittleEndian.AppendUint32(nil, frameMagic)
	buf := make([]byte, 1<<20)
	for at := offset; at+frameFixed <= size; {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && err != io.EOF {
			return -1, fmt.Errorf("read at byte %d: %w", at, err)
		}

		for i := 0; ; i++ {
			j := bytes.Index(buf[i:n], magic)
			if j < 0 {
				break
			}

			i += j
			if _, _, err := readHeader(r, at+int64(i), size); err == nil {
				return at + int64(i), nil
			} else if !errors.Is(err, errTorn) {
				return -1, err
			}
		}

		if n <= len(magic) {
			break
		}

		at += int64(n - len(magic) + 1) // a magic number may lie across two reads
	}

	return -1, nil
}
