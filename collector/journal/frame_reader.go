package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
)

// errNoFrame reports that a part of a file is not a whole frame.
var errNoFrame = errors.New("not a whole frame")

// frameReader reads the frames of a journal. Damage is returned as a [CorruptionError].
type frameReader struct {
	path string
	file io.ReaderAt
	size int64 // of the file
}

// frameRef is a frame in the file.
type frameRef struct {
	header

	offset int64 // of the skippable frame
	packed int64 // offset of the zstd frame
	end    int64
}

// withoutPayload returns the reference without the fields that can be long: they can be
// read again.
func (f frameRef) withoutPayload() frameRef {
	f.Indexes, f.Failed, f.Manifest, f.Stats, f.Series, f.Latencies, f.WorkerSessions = "", "", nil, nil, nil, nil, nil
	return f
}

// corruption returns the error for a frame that begins at an offset.
func (r *frameReader) corruption(offset int64, err error) error {
	return &CorruptionError{Path: r.path, Offset: offset, Err: err}
}

// readAt fills p. It returns a CorruptionError where the file ends first.
func (r *frameReader) readAt(p []byte, offset int64) error {
	n, err := r.file.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}

	if errors.Is(err, io.EOF) {
		return r.corruption(offset, errNoFrame)
	}

	return fmt.Errorf("read %s at byte %d: %w", r.path, offset, err)
}

// firstFrame returns the offset of the first frame.
func (r *frameReader) firstFrame() (int64, error) {
	var start [len(fileStart)]byte

	err := r.readAt(start[:], 0)
	if isCorruption(err) || err == nil && string(start[:]) != fileStart {
		return 0, nil // the file is damaged, or no journal
	}

	return int64(len(fileStart)), err
}

// readHeader reads the header of the frame at an offset. length is the length of the
// skippable frame. It returns a CorruptionError if there is no whole frame.
func (r *frameReader) readHeader(offset int64) (h header, length int64, err error) {
	text, length, err := r.readHeaderText(offset)
	if err != nil {
		return header{}, 0, err
	}

	if err := json.Unmarshal(text, &h); err != nil {
		return header{}, 0, r.corruption(offset, fmt.Errorf("frame header: %w", err))
	}

	if !r.fits(offset+length, h.Packed) || h.Bytes < 0 {
		return header{}, 0, r.corruption(offset, errNoFrame)
	}

	return h, length, nil
}

// readHeaderText reads the JSON of the header of the frame at an offset, and checks its
// checksum. length is the length of the skippable frame.
func (r *frameReader) readHeaderText(offset int64) (text []byte, length int64, err error) {
	var fixed [fixedSize]byte
	if err := r.readAt(fixed[:], offset); err != nil {
		return nil, 0, err
	}

	n := int64(binary.LittleEndian.Uint32(fixed[4:]))
	if binary.LittleEndian.Uint32(fixed[:]) != frameMagic || string(fixed[8:12]) != frameTag || n < 8 ||
		n > maxHeader+8 {
		return nil, 0, r.corruption(offset, errNoFrame)
	}

	length = 8 + n
	if !r.fits(offset, length) {
		return nil, 0, r.corruption(offset, errNoFrame)
	}

	text = make([]byte, n-8)
	if err := r.readAt(text, offset+fixedSize); err != nil {
		return nil, 0, err
	}

	if crc32.Checksum(text, crcTable) != binary.LittleEndian.Uint32(fixed[12:]) {
		return nil, 0, r.corruption(offset, errNoFrame)
	}

	return text, length, nil
}

// fits reports whether the file has n bytes from an offset on.
func (r *frameReader) fits(offset, n int64) bool { return n >= 0 && n <= r.size-offset }

// nextHeader returns the offset of the first whole frame from an offset on, or -1.
func (r *frameReader) nextHeader(offset int64) (int64, error) {
	magic := binary.LittleEndian.AppendUint32(nil, frameMagic)
	buf := make([]byte, 1<<20)

	for at := offset; at+fixedSize <= r.size; {
		n, err := r.file.ReadAt(buf[:min(int64(len(buf)), r.size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return -1, fmt.Errorf("read %s at byte %d: %w", r.path, at, err)
		}

		for i := 0; ; i++ {
			j := bytes.Index(buf[i:n], magic)
			if j < 0 {
				break
			}

			i += j

			_, _, err := r.readHeader(at + int64(i))
			if err == nil {
				return at + int64(i), nil
			}
			if !isCorruption(err) {
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

// readFrames calls each with every whole frame, in order. It returns where the last one
// ends, and the offset of the first damage between whole frames, or -1. Damage is skipped.
func (r *frameReader) readFrames(each func(frameRef) error) (end, damage int64, err error) {
	damage = -1

	offset, err := r.firstFrame()
	if err != nil {
		return 0, damage, err
	}

	for offset < r.size {
		h, length, err := r.readHeader(offset)
		if isCorruption(err) {
			next, err := r.nextHeader(offset + 1)
			if err != nil {
				return end, damage, err
			}

			if next < 0 {
				break
			}

			if damage < 0 {
				damage = offset
			}

			offset = next

			continue
		}
		if err != nil {
			return end, damage, err
		}

		f := frameRef{
			header: h,
			offset: offset,
			packed: offset + length,
			end:    offset + length + h.Packed,
		}
		if err := each(f); err != nil {
			return end, damage, err
		}

		offset, end = f.end, f.end
	}

	return end, damage, nil
}

// parseIndexes returns the requests of a frame's lines.
func (r *frameReader) parseIndexes(f frameRef) ([]uint32, error) {
	indexes, err := proto.ParseIndexes(f.Indexes, f.Counts.Done)
	if err != nil {
		return nil, fmt.Errorf("%s: frame at byte %d: %w", r.path, f.offset, err)
	}
	return indexes, nil
}

// lineDecoder reads the lines of one frame after the other into the same memory.
type lineDecoder struct{ *output.FrameDecoder }

func newLineDecoder() (*lineDecoder, error) {
	dec, err := output.NewCheckedFrameDecoder()
	if err != nil {
		return nil, err
	}
	return &lineDecoder{dec}, nil
}

// decode returns the lines of a frame, valid until the next call. It returns a
// CorruptionError if they are not those that the header describes.
func (d *lineDecoder) decode(r *frameReader, f frameRef) ([]byte, error) {
	lines, err := d.unpack(r, f)
	if err != nil {
		return nil, err
	}

	if n := bytes.Count(lines, []byte{'\n'}); n != f.Counts.Done {
		return nil, r.corruption(f.offset, fmt.Errorf("%d lines for %d requests", n, f.Counts.Done))
	}

	return lines, nil
}

// unpack is decode without a look at the lines: their packed bytes are as they were written.
func (d *lineDecoder) unpack(r *frameReader, f frameRef) ([]byte, error) {
	packed := d.Packed(f.Packed)
	if err := r.readAt(packed, f.packed); err != nil {
		return nil, err
	}

	if crc32.Checksum(packed, crcTable) != f.CRC {
		return nil, r.corruption(f.offset, errors.New("the lines have another checksum"))
	}

	if f.Packed == 0 {
		return nil, nil
	}

	lines, err := d.Unpack(f.Bytes)
	if err != nil {
		return nil, r.corruption(f.offset, err)
	}

	return lines, nil
}
