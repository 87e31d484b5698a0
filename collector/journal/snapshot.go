package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// errNoCounts reports a header that does not count the lines.
var errNoCounts = errors.New("it does not count the lines")

// errSizes reports a frame whose lines are not as long as its header says.
var errSizes = errors.New("the lines have another size than their header says")

// Snapshot has the frames that a journal has when it is opened. It takes no lock, so a run may
// be writing the journal, and it stays readable when the journal is removed. It is safe for concurrent
// use.
type Snapshot struct {
	file   *os.File
	frames *frameReader
	refs   []snapshotRef
	index  []SnapshotFrame // of refs
}

// SnapshotFrame describes the lines of a frame.
type SnapshotFrame struct {
	// Sizes are the bytes of the lines.
	Sizes Sizes
	// Done counts the lines, and Failed the lines of failed requests.
	Done, Failed int
}

// snapshotRef is the place of a frame in the file.
type snapshotRef struct {
	offset int64 // of the skippable frame
	packed int64 // offset of the zstd frame
}

// summary is the part of a frame's header that is read of every frame.
type summary struct {
	bytes, packed int64
	sizes         Sizes
	counts        struct {
		Done   int `json:"done"`
		Failed int `json:"failed"`
	}
}

// parseSummary reads the beginning of a header: an old run has thousands of frames, and most of
// a header are statistics.
func parseSummary(scan *jsonscan.Scanner, text []byte) (s summary, err error) {
	scan.Reset(text)
	for scan.Enter(); scan.Next(); {
		switch string(scan.Name()) {
		case "bytes":
			s.bytes = jsonscan.Count(scan.Value())
		case "packed":
			s.packed = jsonscan.Count(scan.Value())
		case "sizes":
			err = json.Unmarshal(scan.Value(), &s.sizes)
		case "counts": // follows the others
			return s, errors.Join(err, json.Unmarshal(scan.Value(), &s.counts), s.check())
		}
	}

	return s, errors.Join(scan.End(), errNoCounts)
}

// check returns an error for a header that no program has written.
func (s *summary) check() error {
	z, c := s.sizes, s.counts
	switch {
	case c.Failed < 0 || c.Done < c.Failed || s.bytes < int64(c.Done):
		return fmt.Errorf("%d failed of %d requests in %d bytes", c.Failed, c.Done, s.bytes)
	case z.OKPlain < 0 || z.FailedPlain < 0 || z.OK < z.OKPlain || z.Failed < z.FailedPlain ||
		s.bytes != z.OK+z.Failed || s.bytes > output.MaxFrame:
		return errSizes
	}

	return nil
}

// OpenSnapshot opens the journal at a path for reading. done bounds it: a frame belongs to the
// snapshot if the frames up to it have done lines at most, which are the lines that the
// collector has reported as synced. A frame that is being written does not belong to it
// either.
//
// The error wraps os.ErrNotExist if there is no journal. It is a [CorruptionError] if a frame
// is damaged and whole frames follow.
func OpenSnapshot(path string, done int) (*Snapshot, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}

	s := &Snapshot{file: file}
	if err := s.readIndex(path, done); err != nil {
		file.Close()
		return nil, err
	}

	return s, nil
}

// Close closes the file.
func (s *Snapshot) Close() error { return s.file.Close() }

// Frames returns the frames that have lines. The caller must not change them.
func (s *Snapshot) Frames() []SnapshotFrame { return s.index }

// readIndex reads the headers.
func (s *Snapshot) readIndex(path string, done int) error {
	info, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}

	s.frames = &frameReader{path: path, file: s.file, size: info.Size()}

	first, err := s.frames.firstFrame()
	if err != nil {
		return err
	}

	var (
		scan   jsonscan.Scanner
		offset = first
		total  = 0  // lines so far
		last   = -1 // place of the frame before offset; -1: it has no lines
	)
	for offset < s.frames.size {
		text, length, err := s.frames.readHeaderText(offset)
		if isCorruption(err) {
			return s.checkTail(offset, first)
		}
		if err != nil {
			return err
		}

		h, err := parseSummary(&scan, text)
		if err != nil {
			return s.frames.corruption(offset, fmt.Errorf("frame header: %w", err))
		}

		if total += h.counts.Done; total > done || !s.frames.fits(offset+length, h.packed) {
			return nil
		}

		last = -1
		if h.counts.Done > 0 {
			last = len(s.refs)
			s.refs = append(s.refs, snapshotRef{offset, offset + length})
			s.index = append(s.index, SnapshotFrame{h.sizes, h.counts.Done, h.counts.Failed})
		}

		offset += length + h.packed
	}

	return s.dropTornFrame(last)
}

// checkTail returns an error if the rest of the file from an offset on is not the beginning of
// a frame that is being written. Whole frames in it show that it is damaged.
func (s *Snapshot) checkTail(offset, first int64) error {
	next, err := s.frames.nextHeader(offset + 1)
	if err != nil {
		return err
	}

	if next >= 0 || offset == first && !s.frames.isPartialFirstFrame() {
		return s.frames.corruption(offset, errNoFrame)
	}

	return nil
}

// dropTornFrame takes the frame at the end of the file out if its lines are not whole, as
// [Open] does. last is its place, or -1 if it has no lines.
func (s *Snapshot) dropTornFrame(last int) error {
	if last < 0 {
		return nil
	}

	ref := s.refs[last]

	h, _, err := s.frames.readHeader(ref.offset)
	if err != nil {
		return err
	}

	sum := crc32.New(crcTable)
	if _, err := io.Copy(sum, io.NewSectionReader(s.file, ref.packed, h.Packed)); err != nil {
		return fmt.Errorf("read journal: %w", err)
	}

	if sum.Sum32() != h.CRC {
		s.refs, s.index = s.refs[:last], s.index[:last]
	}

	return nil
}

// ReadText returns the lines of the failed or of the answered requests of a frame as
// [Journal.Rewrite] writes them, with the extras or plain. They are valid until the next use
// of dec, a decoder of [output.NewCheckedFrameDecoder]. The error is a [CorruptionError] if the
// lines are not those that the header describes.
func (s *Snapshot) ReadText(i int, failed, plain bool, dec *output.FrameDecoder) ([]byte, error) {
	ref, of := s.refs[i], s.index[i]
	size := of.Sizes.Of(failed, plain)
	if size == 0 {
		return nil, nil
	}

	h, _, err := s.frames.readHeader(ref.offset)
	if err != nil {
		return nil, err
	}

	lines := lineDecoder{dec}

	text, err := lines.unpack(s.frames, frameRef{header: h, offset: ref.offset, packed: ref.packed})
	if err != nil {
		return nil, err
	}

	if plain || of.Failed > 0 && of.Failed < of.Done {
		if text, err = selectLines(text, h, failed, plain); err != nil {
			return nil, s.frames.corruption(ref.offset, err)
		}
	}

	if int64(len(text)) != size {
		return nil, s.frames.corruption(ref.offset, errSizes)
	}

	return text, nil
}

// selectLines moves the lines of the failed or of the answered requests to the front of text,
// and returns them.
func selectLines(text []byte, h header, failed, plain bool) ([]byte, error) {
	indexes, err := proto.ParseIndexes(h.Indexes, h.Counts.Done)
	if err != nil {
		return nil, err
	}

	failures, err := proto.ParseIndexes(h.Failed, h.Counts.Done)
	if err != nil {
		return nil, err
	}

	if len(indexes) != h.Counts.Done {
		return nil, fmt.Errorf("%d indexes for %d requests", len(indexes), h.Counts.Done)
	}

	kept := text[:0]
	for _, index := range indexes {
		end := bytes.IndexByte(text, '\n') + 1
		line := text[:end]
		text = text[end:]

		isFailed := len(failures) > 0 && failures[0] == index
		if isFailed {
			failures = failures[1:]
		}

		if isFailed != failed {
			continue
		}

		if plain {
			kept = proto.AppendPlain(kept, line)
		} else {
			kept = append(kept, line...)
		}
	}

	return kept, nil
}
