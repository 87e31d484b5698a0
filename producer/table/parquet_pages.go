package table

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/promptmill/promptmill/producer/inputfile"
)

const (
	// pageHeaderSize is as much as most headers of pages have.
	pageHeaderSize = 4 << 10
	// maxPageHeader is the largest header of a page. It has two values of the page as statistics.
	maxPageHeader = 16 << 20
	// maxPageSize is the largest page after decompression. Writers make pages of about 1 MiB,
	// unless one value is larger, such as an image.
	maxPageSize = 1 << 30
	// maxPageMemory is the most memory for the pages of all columns that are read together.
	maxPageMemory = 1 << 30
	// maxUncheckedPage is the largest page whose decompression is not compared with its
	// compressed size.
	maxUncheckedPage = 64 << 20
	// maxPageRatio is the largest ratio of the sizes of a page that is larger than
	// maxUncheckedPage.
	maxPageRatio = 1 << 11
	// maxPageValues is the largest number of values in a page. A page of nulls alone can have
	// all those of its row group, and the largest row group that writers make by default has
	// 2^20 rows.
	maxPageValues = 1 << 26
)

// pageStream reads the pages of a column chunk, checks and decompresses them. It gives them to
// the library as the bytes of a column chunk that is not compressed, one after the other.
type pageStream struct {
	in   chunkReader
	leaf *parquetNode
	// codec is the compression of the pages.
	codec format.CompressionCodec
	// values counts the values that are left, nulls included.
	values int64
	// skip counts the rows to leave out before the first one. Pages of a column that does not
	// repeat are skipped without decompression.
	skip int64
	// hasDictionary is true behind the page of the dictionary.
	hasDictionary bool
	// body is the memory for a page, shared with the streams of other columns: the library
	// copies each page before the next one is read.
	body *[]byte
	// memory is the memory that the pages of all columns hold. held is the part of this one:
	// dictionary for its dictionary, and the rest for a page.
	memory           *int64
	held, dictionary int64
	// segment and next are the parts of the page that the library has not read.
	segment, next []byte
	// err is the error that ended the pages; the library hides it.
	err error
}

// ReadAt implements io.ReaderAt for the library, which reads from the beginning to the end: the
// offset is always that behind the last read.
func (s *pageStream) ReadAt(b []byte, _ int64) (int, error) {
	if len(s.segment) == 0 {
		s.segment, s.next = s.next, nil
	}

	if len(s.segment) == 0 {
		if s.err == nil {
			s.err = s.readPage()
		}
		if s.err != nil {
			return 0, s.err
		}
	}

	n := copy(b, s.segment)
	s.segment = s.segment[n:]

	return n, nil
}

// readPage reads the next page that has rows to read, or the dictionary. The error is io.EOF
// behind the last one.
func (s *pageStream) readPage() error {
	for {
		if s.values == 0 {
			return io.EOF
		}

		header, err := s.readHeader()
		if err != nil {
			return err
		}

		size := int(header.CompressedPageSize)
		switch header.Type {
		case format.DictionaryPage:
			if s.hasDictionary || !header.DictionaryPageHeader.Valid {
				return s.damage("a page of it is damaged")
			}
			s.hasDictionary = true
		case format.DataPage, format.DataPageV2:
			values, rows, err := s.countValues(header)
			if err != nil {
				return err
			}

			s.values -= values

			if rows >= 0 && rows <= s.skip {
				s.skip -= rows
				s.in.skip(size)
				continue
			}
		default: // of an index, which no writer makes
			s.in.skip(size)
			continue
		}

		return s.readBody(header, size)
	}
}

// readHeader reads the header of a page, and checks its sizes.
func (s *pageStream) readHeader() (*format.PageHeader, error) {
	var head []byte

	for size := pageHeaderSize; ; size *= 4 {
		b, err := s.in.peek(size)
		if err != nil {
			return nil, err
		}

		n, err := measureThriftStruct(b)
		if errors.Is(err, errThriftShort) && len(b) >= size && size < maxPageHeader {
			continue
		}
		if err != nil {
			return nil, s.damage("a page of it is cut off or damaged")
		}

		head = b[:n]

		break
	}

	header := new(format.PageHeader)
	compact := thrift.CompactProtocol{}
	if err := thrift.NewDecoder(compact.NewReader(bytes.NewReader(head))).Decode(header); err != nil {
		return nil, s.damage("a page of it is damaged")
	}

	s.in.skip(len(head))

	compressed, size := int64(header.CompressedPageSize), int64(header.UncompressedPageSize)
	switch {
	case compressed < 0 || size < 0 || compressed > s.in.left():
		return nil, s.damage("a page of it is cut off or damaged")
	case size > maxPageSize:
		return nil, s.damage("a page of it has %d bytes, and at most %d are supported; "+
			"write the file again with smaller pages", size, int64(maxPageSize))
	case size > maxUncheckedPage && size/maxPageRatio > compressed:
		return nil, s.damage("a page of %d bytes says that it has %d when decompressed; the file is damaged",
			compressed, size)
	}

	return header, nil
}

// countValues returns the number of values in a data page, and of rows; -1 if the header does
// not say.
func (s *pageStream) countValues(header *format.PageHeader) (values, rows int64, err error) {
	rows = -1
	switch {
	case header.Type == format.DataPage && header.DataPageHeader.Valid:
		values = int64(header.DataPageHeader.V.NumValues)
	case header.Type == format.DataPageV2 && header.DataPageHeaderV2.Valid:
		v2 := &header.DataPageHeaderV2.V
		values, rows = int64(v2.NumValues), int64(v2.NumRows)
		if rows < 0 || rows > values || v2.NumNulls < 0 || int64(v2.NumNulls) > values {
			return 0, 0, s.damage("a page of it is damaged")
		}
	default:
		return 0, 0, s.damage("a page of it is damaged")
	}

	if s.leaf.repetition == 0 {
		rows = values
	}

	switch {
	case values < 0 || values > s.values:
		return 0, 0, s.damage("its pages have more values than its footer says; the file is damaged")
	case values > maxPageValues:
		return 0, 0, s.damage("a page of it has %d values, and at most %d are supported; "+
			"write the file again with smaller pages", values, maxPageValues)
	}

	return values, rows, nil
}

// reserveMemory counts the memory for a page in place of that for the page before. The error is
// that of too much for all columns.
func (s *pageStream) reserveMemory(header *format.PageHeader, size int) error {
	packed := int64(max(size, cap(s.in.buf)) - s.in.block) // beyond what each column has anyway
	page := int64(header.UncompressedPageSize) + max(0, packed)
	held := s.dictionary + page

	if *s.memory += held - s.held; *s.memory > maxPageMemory {
		return damage("the pages of its columns have %d MiB together, and at most %d are "+
			"supported; write the file again with smaller pages", *s.memory>>20, maxPageMemory>>20)
	}

	s.held = held
	if header.Type == format.DictionaryPage {
		s.dictionary = held
	}

	return nil
}

// readBody reads the body of a page.
func (s *pageStream) readBody(header *format.PageHeader, size int) error {
	if err := s.reserveMemory(header, size); err != nil {
		return err
	}

	raw, err := s.in.peek(size)
	if err != nil {
		return err
	}

	if len(raw) < size {
		return s.damage("a page of it is cut off")
	}

	raw = raw[:size]
	s.in.skip(size) // the bytes stay until the next peek

	if header.CRC != 0 && crc32.ChecksumIEEE(raw) != uint32(header.CRC) {
		return s.damage("the checksum of a page is wrong; the file is damaged")
	}

	page, err := s.decompressPage(header, raw)
	if err != nil {
		return err
	}

	if err := checkPage(s.leaf, header, page); err != nil {
		return s.damage("a page of it is damaged")
	}

	header.UncompressedPageSize = int32(len(page))
	header.CompressedPageSize = int32(len(page))
	header.CRC = 0
	header.DataPageHeader.V.Statistics = format.Statistics{}
	header.DataPageHeaderV2.V.Statistics = format.Statistics{}

	if s.segment, err = thrift.Marshal(&thrift.CompactProtocol{}, header); err != nil {
		return s.damage("a page of it is damaged")
	}

	s.next = page

	return nil
}

// decompressPage decompresses the body of a page.
func (s *pageStream) decompressPage(header *format.PageHeader, raw []byte) ([]byte, error) {
	size := int(header.UncompressedPageSize)
	levels := 0 // in the second version of data pages, the levels are not compressed

	if header.Type == format.DataPageV2 {
		v2 := &header.DataPageHeaderV2.V
		repetition, definition := int64(v2.RepetitionLevelsByteLength), int64(v2.DefinitionLevelsByteLength)
		if repetition < 0 || definition < 0 || repetition+definition > int64(min(len(raw), size)) {
			return nil, s.damage("a page of it is damaged")
		}

		if v2.IsCompressed.Valid && !v2.IsCompressed.V {
			return raw, nil
		}

		levels = int(repetition + definition)
	}

	if s.codec == format.Uncompressed {
		return raw, nil
	}

	if cap(*s.body) < size {
		*s.body = make([]byte, size)
	}

	page := (*s.body)[:size]
	copy(page, raw[:levels])

	if err := decompressParquet(s.codec, page[levels:], raw[levels:]); err != nil {
		return nil, s.damage("a page of it cannot be decompressed; the file is damaged")
	}

	return page, nil
}

// damage returns an error about the column.
func (s *pageStream) damage(text string, args ...any) error {
	return damage("column %q: %s", s.leaf.path, fmt.Sprintf(text, args...))
}

// chunkReader reads a part of a file in blocks.
type chunkReader struct {
	file inputfile.File
	// next is the offset of the next block, end that of the end of the part.
	next, end int64
	// block is the size of a block.
	block int
	// buf has the bytes that are read and not skipped, in buf[start:].
	buf   []byte
	start int
}

// left returns the number of bytes that are not skipped.
func (r *chunkReader) left() int64 { return r.end - r.next + int64(len(r.buf)-r.start) }

// peek returns n bytes or more, or fewer at the end. They are valid until the next peek.
func (r *chunkReader) peek(n int) ([]byte, error) {
	rest := r.buf[r.start:]
	if len(rest) >= n || r.next == r.end {
		return rest, nil
	}

	want := int(min(int64(max(n-len(rest), r.block)), r.end-r.next))
	if cap(r.buf) < len(rest)+want {
		buf := make([]byte, 0, len(rest)+want)
		r.buf = append(buf, rest...)
	} else {
		r.buf = r.buf[:copy(r.buf[:len(rest)], rest)]
	}

	r.start = 0

	at := len(r.buf)
	got, err := r.file.ReadAt(r.buf[at:at+want], r.next)
	r.buf = r.buf[:at+got]
	r.next += int64(got)

	switch {
	case got == want:
		return r.buf, nil
	case err == nil, errors.Is(err, io.EOF):
		return nil, damage("it has become shorter")
	}

	return nil, err
}

// skip leaves out n bytes, which are there.
func (r *chunkReader) skip(n int) {
	if have := len(r.buf) - r.start; n > have {
		r.next += int64(n - have)
		n = have
	}
	r.start += n
}
