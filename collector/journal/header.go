package journal

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// A journal is fileStart and then a sequence of pairs: a zstd skippable frame with our
// header, and an ordinary zstd frame with output lines.
//
//	skippable frame: magic (4 bytes), length of the rest (4), "pmj1" (4),
//	                 CRC-32C of the header (4), header (JSON)
//	zstd frame:      header.Packed bytes; absent where that is 0
//
// All numbers are little-endian. (RFC 8878, 3.1.2, for skippable frames.)
//
// fileStart is an ordinary zstd frame (RFC 8878, 3.1.1) of no content that does not state its
// content's size: magic, frame header descriptor, window of 1 KiB, last block, raw, 0
// bytes. Readers of streams pass over it. A reader that takes the first frame's size for
// the size of the whole file (python-zstandard's decompress) fails, instead of taking the
// skippable frame for an empty file.
const fileStart = "\x28\xb5\x2f\xfd\x00\x00\x01\x00\x00"

const (
	frameMagic = 0x184D2A57 // one of the sixteen magic numbers of skippable frames
	frameTag   = "pmj1"
	fixedSize  = 16       // bytes before the header's JSON
	maxHeader  = 64 << 20 // bytes of JSON
)

// header describes the zstd frame behind it, and the state that the journal saved with it.
type header struct {
	Run string `json:"run"`
	// Manifest is set in the first frame of each session, which holds no lines.
	Manifest *proto.Manifest `json:"manifest,omitempty"`
	// Indexes are the requests of the lines, in their order (proto.FormatIndexes).
	Indexes string `json:"indexes,omitempty"`
	// Failed are the requests among them that failed.
	Failed string `json:"failed,omitempty"`
	// Bytes is the size of the lines.
	Bytes int64 `json:"bytes"`
	// Packed is the size of the zstd frame in bytes, and CRC its CRC-32C.
	Packed int64  `json:"packed"`
	CRC    uint32 `json:"crc"`
	// Sizes, Counts, Digest and Stats are of this frame's lines alone.
	Sizes  Sizes        `json:"sizes"`
	Counts proto.Counts `json:"counts"`
	Digest proto.Digest `json:"digest"`
	// Stats is nil in a frame of lines that a program wrote which did not count so.
	Stats *FrameStats `json:"stats,omitempty"`
	// WorkerSessions are the sessions that are new or have changed since the frames before.
	WorkerSessions []WorkerSession `json:"worker_sessions,omitempty"`
	// Position is the last message of the results stream that was read.
	Position Position `json:"position"`
	// Series has the events of the run by the times of the result messages.
	Series *metadata.Series `json:"series,omitempty"`
	// Latencies are those of the answered requests by the same times.
	Latencies *Latencies `json:"latencies,omitempty"`
	// At is the time at which the frame was closed.
	At time.Time `json:"at"`
	// Worked, Idle and Lost are parts of the time since the frame before, in milliseconds:
	// the run was worked on, it was not, and it was not collected. One is negative where
	// results show that a time of earlier frames was spent in another way.
	Worked int64 `json:"worked_ms"`
	Idle   int64 `json:"idle_ms,omitempty"`
	Lost   int64 `json:"lost_ms,omitempty"`
	// AccountedTo is the time until which the parts of all frames account for the time; zero: At.
	AccountedTo time.Time `json:"accounted_to,omitzero"`
	// Interruption is the time without a collector before the frame, which is the first of a session.
	Interruption *metadata.Interruption `json:"interruption,omitempty"`
	// EarlierInterruptions are those of the run before this journal.
	EarlierInterruptions []metadata.Interruption `json:"earlier_interruptions,omitempty"`
	// Stops are the limits of the policy that stopped the run since the frame before.
	Stops []proto.ReachedLimit `json:"stops,omitempty"`
	// EarlierSessions counts the sessions of the run before this journal.
	EarlierSessions int `json:"earlier_sessions,omitempty"`
}

// Sizes are the bytes of output lines, unpacked: the contents of the output files, with our
// extras and without. A zstd frame states its size at its beginning, so the sizes must be
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

// Of returns the bytes of the lines of the failed or of the answered requests, with our extras
// or plain.
func (s Sizes) Of(failed, plain bool) int64 {
	switch {
	case failed && plain:
		return s.FailedPlain
	case failed:
		return s.Failed
	case plain:
		return s.OKPlain
	}

	return s.OK
}

// Position is a message of the results stream. A sequence alone would not do: a stream that
// lost its end, or was created again, has other messages under the same sequences.
type Position struct {
	// Created is the stream's creation time.
	Created time.Time `json:"created"`
	// Sequence is the message's sequence; 0: nothing was read.
	Sequence uint64 `json:"sequence"`
	// Time is the time at which the stream stored the message.
	Time time.Time `json:"time"`
}

var crcTable = crc32.MakeTable(crc32.Castagnoli)

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
