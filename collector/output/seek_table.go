package output

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// errSeekTable reports a file that ends as one with a seek table does, but has no valid one.
var errSeekTable = errors.New("the seek table at its end does not fit the file")

// errFrameSize reports a frame that is not as long as the seek table says.
var errFrameSize = errors.New("a frame has another size than the seek table says")

// Sizes in the seekable format, in bytes.
const (
	seekTableHeader = 8 // of the skippable frame
	seekTableFooter = 9
	seekTableEntry  = 8
)

// SeekFrame is a frame of a file in the zstd seekable format.
type SeekFrame struct {
	// Offset and Packed are the place and the size of the frame in the file, in bytes.
	Offset, Packed int64
	// Size is the size of its content, in bytes.
	Size int64
}

// ReadSeekTable returns the frames of a file of size bytes, or nil if the file is not in the
// zstd seekable format. It returns an error if the file ends like such a file, and its table
// does not fit it.
func ReadSeekTable(file io.ReaderAt, size int64) ([]SeekFrame, error) {
	if size < seekTableHeader+seekTableFooter {
		return nil, nil
	}

	var footer [seekTableFooter]byte
	if _, err := file.ReadAt(footer[:], size-seekTableFooter); err != nil {
		return nil, fmt.Errorf("read the seek table: %w", err)
	}

	if binary.LittleEndian.Uint32(footer[5:]) != seekableMagic {
		return nil, nil
	}

	count := int64(binary.LittleEndian.Uint32(footer[:]))
	table := size - seekTableFooter - count*seekTableEntry
	if footer[4] != 0 || table < seekTableHeader {
		return nil, errSeekTable
	}

	data := make([]byte, seekTableHeader+count*seekTableEntry)
	if _, err := file.ReadAt(data, table-seekTableHeader); err != nil {
		return nil, fmt.Errorf("read the seek table: %w", err)
	}

	if binary.LittleEndian.Uint32(data) != seekTableMagic ||
		int64(binary.LittleEndian.Uint32(data[4:])) != count*seekTableEntry+seekTableFooter {
		return nil, errSeekTable
	}

	frames := make([]SeekFrame, count)
	offset := int64(0)
	for i := range frames {
		entry := data[seekTableHeader+i*seekTableEntry:]
		packed, size := binary.LittleEndian.Uint32(entry), binary.LittleEndian.Uint32(entry[4:])
		frames[i] = SeekFrame{offset, int64(packed), int64(size)}
		offset += int64(packed)
	}

	if offset != table-seekTableHeader {
		return nil, errSeekTable
	}

	return frames, nil
}

// ReadSeekFrame returns the content of a frame of a file, valid until the next call.
func (d *FrameDecoder) ReadSeekFrame(file io.ReaderAt, f SeekFrame) ([]byte, error) {
	if _, err := file.ReadAt(d.Packed(f.Packed), f.Offset); err != nil {
		return nil, fmt.Errorf("read a frame: %w", err)
	}

	text, err := d.Unpack(f.Size)
	if err == nil && int64(len(text)) != f.Size {
		err = errFrameSize
	}

	return text, err
}
