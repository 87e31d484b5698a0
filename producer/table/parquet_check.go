package table

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// The library decodes runs as long as they say they are, and allocates for them first; so a
// page of a few bytes could take all memory. The headers of the runs are checked here against
// the number of values.

var (
	errPageShort = errors.New("the page is too short")
	errPageRuns  = errors.New("the page has more values than its header says")
)

// checkPage checks the lengths in a page.
func checkPage(leaf *parquetNode, header *format.PageHeader, page []byte) error {
	physical := leaf.element.Type.V
	switch header.Type {
	case format.DataPage:
		v1 := &header.DataPageHeader.V
		present, data, err := checkLevelsV1(leaf, v1, page)
		if err != nil {
			return err
		}
		return checkValues(physical, v1.Encoding, data, present)
	case format.DataPageV2:
		v2 := &header.DataPageHeaderV2.V
		present, data, err := checkLevelsV2(leaf, v2, page)
		if err != nil {
			return err
		}
		return checkValues(physical, v2.Encoding, data, present)
	}

	// A value of a dictionary has a bit at least.
	values := int64(header.DictionaryPageHeader.V.NumValues)
	if values < 0 || values > 8*int64(len(page)) {
		return errPageRuns
	}

	return checkValues(physical, format.Plain, page, int(values))
}

// checkLevelsV1 checks the levels of a data page of the first version. It returns the number of
// values that are not null, and their bytes.
func checkLevelsV1(leaf *parquetNode, header *format.DataPageHeader, page []byte) (int, []byte, error) {
	present := int(header.NumValues)

	for _, levels := range []struct {
		highest  byte
		encoding format.Encoding
	}{
		{leaf.repetition, header.RepetitionLevelEncoding},
		{leaf.definition, header.DefinitionLevelEncoding},
	} {
		if levels.highest == 0 {
			continue
		}

		if levels.encoding != format.RLE {
			return 0, nil, errors.ErrUnsupported
		}

		if len(page) < 4 {
			return 0, nil, errPageShort
		}

		size := int64(binary.LittleEndian.Uint32(page))
		page = page[4:]
		if size > int64(len(page)) {
			return 0, nil, errPageShort
		}

		count, err := countRuns(page[:size], int(header.NumValues), levels.highest)
		if err != nil {
			return 0, nil, err
		}

		present = count
		page = page[size:]
	}

	if leaf.definition == 0 {
		present = int(header.NumValues)
	}

	return present, page, nil
}

// checkLevelsV2 is checkLevelsV1 for the second version.
func checkLevelsV2(leaf *parquetNode, header *format.DataPageHeaderV2, page []byte) (int, []byte, error) {
	values := int(header.NumValues)
	repetition, definition := int(header.RepetitionLevelsByteLength), int(header.DefinitionLevelsByteLength)
	present := values

	if repetition+definition > len(page) {
		return 0, nil, errPageShort
	}

	if leaf.repetition > 0 {
		if _, err := countRuns(page[:repetition], values, leaf.repetition); err != nil {
			return 0, nil, err
		}
	}

	if leaf.definition > 0 {
		count, err := countRuns(page[repetition:repetition+definition], values, leaf.definition)
		if err != nil {
			return 0, nil, err
		}
		present = count
	}

	if present != values-int(header.NumNulls) {
		return 0, nil, errPageRuns
	}

	return present, page[repetition+definition:], nil
}

// checkValues checks the values of a page.
func checkValues(physical format.Type, encoding format.Encoding, data []byte, present int) error {
	switch encoding {
	case format.PlainDictionary, format.RLEDictionary: //nolint:staticcheck // old files have it
		if len(data) == 0 && present == 0 {
			return nil
		}

		if len(data) == 0 || data[0] > 32 {
			return errPageShort
		}
		return checkRuns(data[1:], int(data[0]), present)
	case format.RLE:
		if len(data) < 4 {
			return errPageShort
		}

		size := int64(binary.LittleEndian.Uint32(data))
		if size > int64(len(data)-4) {
			return errPageShort
		}

		return checkRuns(data[4:4+size], 1, present)
	case format.DeltaBinaryPacked, format.DeltaLengthByteArray:
		_, err := skipDeltas(data, present)
		return err
	case format.DeltaByteArray:
		return checkPrefixes(data, present)
	case format.Plain:
		if physical == format.ByteArray {
			return checkByteArrays(data, present)
		}
	}

	return nil
}

// checkByteArrays checks the lengths of plain byte arrays.
func checkByteArrays(data []byte, count int) error {
	for range count {
		if len(data) < 4 {
			return errPageShort
		}

		size := int64(binary.LittleEndian.Uint32(data)) + 4
		if size > int64(len(data)) {
			return errPageShort
		}

		data = data[size:]
	}

	if len(data) > 0 {
		return errPageRuns
	}

	return nil
}

// runSlack is the largest number of values that runs have beyond those of the page. DuckDB
// fills its last run up to 256.
const runSlack = 1 << 16

// runReader reads runs of the hybrid of RLE and bit-packing.
type runReader struct {
	data  []byte
	width int
	// left counts the values that may follow.
	left int64
}

// next returns the number of values of the next run, and their bits: of one value that repeats,
// or of all.
func (r *runReader) next() (count int64, isPacked bool, values []byte, err error) {
	head, n := binary.Uvarint(r.data)
	if n <= 0 {
		return 0, false, nil, errPageShort
	}

	r.data = r.data[n:]

	size := int64(r.width+7) / 8
	isPacked = head&1 != 0
	switch {
	case head>>1 > uint64(r.left):
		return 0, false, nil, errPageRuns
	case isPacked:
		size = int64(head>>1) * int64(r.width)
		count = int64(head>>1) * 8
	default:
		count = int64(head >> 1)
	}

	switch {
	case count > r.left:
		return 0, false, nil, errPageRuns
	case size > int64(len(r.data)):
		return 0, false, nil, errPageShort
	}

	values, r.data = r.data[:size], r.data[size:]
	r.left -= count

	return count, isPacked, values, nil
}

// checkRuns checks that runs have at least a number of values, and not many more.
func checkRuns(data []byte, width, count int) error {
	r := runReader{
		data:  data,
		width: width,
		left:  int64(count) + runSlack,
	}

	for len(r.data) > 0 {
		if _, _, _, err := r.next(); err != nil {
			return err
		}
	}

	if r.left > runSlack {
		return errPageShort
	}

	return nil
}

// countRuns checks runs of levels, and counts those of the first count that have the highest level.
func countRuns(data []byte, count int, highest byte) (int, error) {
	r := runReader{
		data:  data,
		width: bits.Len8(highest),
		left:  int64(count) + runSlack,
	}

	left, found := count, 0

	for len(r.data) > 0 {
		run, isPacked, values, err := r.next()
		if err != nil {
			return 0, err
		}

		n := min(int(run), left)
		left -= n

		switch {
		case isPacked:
			found += countPacked(values, n, r.width, highest)
		case values[0] == highest:
			found += n
		}
	}

	if left > 0 {
		return 0, errPageShort
	}

	return found, nil
}

// countPacked counts the levels among the first n that are the highest.
func countPacked(packed []byte, n, width int, highest byte) int {
	found := 0

	if width == 1 {
		for len(packed) >= 8 && n >= 64 {
			found += bits.OnesCount64(binary.LittleEndian.Uint64(packed))
			packed, n = packed[8:], n-64
		}
	}

	for i := range n {
		at := i * width
		level := uint(packed[at/8])
		if at/8+1 < len(packed) {
			level |= uint(packed[at/8+1]) << 8
		}

		if level>>(at%8)&(1<<width-1) == uint(highest) {
			found++
		}
	}

	return found
}

// skipDeltas checks the integers of DELTA_BINARY_PACKED at the start of data, and returns the rest.
func skipDeltas(data []byte, values int) ([]byte, error) {
	var head [4]uint64 // block size, miniblocks in a block, values, first value
	for i := range head {
		v, n := binary.Uvarint(data)
		if n <= 0 {
			return nil, errPageShort
		}
		head[i], data = v, data[n:]
	}

	block, miniblocks, count := head[0], head[1], head[2]
	if count != uint64(values) {
		return nil, errPageRuns
	}

	if miniblocks == 0 || block == 0 || block > 1<<20 || miniblocks > block || block/miniblocks%32 != 0 {
		return nil, errPageShort
	}

	for left := int64(count) - 1; left > 0; {
		_, n := binary.Uvarint(data) // the smallest delta
		if n <= 0 || uint64(len(data)-n) < miniblocks {
			return nil, errPageShort
		}

		widths := data[n : n+int(miniblocks)]
		data = data[n+int(miniblocks):]

		for _, width := range widths {
			if left <= 0 {
				break
			}

			size := int(block/miniblocks) * int(width) / 8
			if width > 64 || size > len(data) {
				return nil, errPageShort
			}

			data = data[size:]
			left -= int64(block / miniblocks)
		}
	}

	return data, nil
}

// checkPrefixes checks the values of DELTA_BYTE_ARRAY, each of which begins as the one before:
// so a few bytes can stand for many.
func checkPrefixes(data []byte, values int) error {
	suffixes, err := skipDeltas(data, values)
	if err != nil {
		return err
	}

	if _, err := skipDeltas(suffixes, values); err != nil {
		return err
	}

	prefixes, err := parquet.DeltaBinaryPacked.DecodeInt32(nil, data)
	if err != nil {
		return err
	}

	total := int64(0)
	for _, n := range prefixes {
		total += int64(n)
	}

	if total > maxPageSize {
		return errPageRuns
	}

	return nil
}
