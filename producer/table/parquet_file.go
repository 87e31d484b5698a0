package table

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

const (
	parquetMagic          = "PAR1"
	parquetEncryptedMagic = "PARE"
	// parquetTail is the length of the footer's length and the magic bytes, which end a file.
	parquetTail = 8
	// footerGuess is the number of bytes that are read at first from the end of a file: most
	// footers fit.
	footerGuess = 64 << 10
)

// parquetFile is an open Parquet file: its schema, and where its columns are.
type parquetFile struct {
	file inputfile.File
	path string
	root *parquetNode
	// leaves are the leaves of the schema, in the order of the file.
	leaves []*parquetNode
	groups []parquetGroup
	rows   int64
	// metadata are the keys and values of the footer.
	metadata map[string]string
	// chunks are a column chunk of each leaf, which decodes the pages of all row groups.
	chunks []*parquet.FileColumnChunk
	// fields are the columns as fields of a schema.
	fields []parquet.Field
}

// parquetGroup is a row group.
type parquetGroup struct {
	// first counts the rows of the file before those of the group.
	first int64
	rows  int64
	// chunks are the places of the leaves' values.
	chunks []parquetChunk
}

// parquetChunk is the place of a leaf's values of a row group.
type parquetChunk struct {
	start, end int64
	codec      format.CompressionCodec
	// values counts the values, nulls included.
	values int64
}

// damageError is the error of a file that is damaged, or that has something that is not supported.
type damageError struct{ message string }

// Error implements error.
func (e *damageError) Error() string { return e.message }

// damage returns a damageError.
func damage(text string, args ...any) error { return &damageError{fmt.Sprintf(text, args...)} }

// catchPanic turns a panic into the error of a damaged file. The library and the assembly of
// rows rely on lengths and levels that fit each other; where a file breaks that, they index out
// of range. The file comes from outside, so it must not end the process.
func catchPanic(err *error, what string) {
	if p := recover(); p != nil {
		*err = damage("%s cannot be decoded; the file is damaged", what)
	}
}

// openParquetFile opens a Parquet file and reads its footer.
func openParquetFile(ctx context.Context, opener inputfile.Opener, file proto.File) (*parquetFile, error) {
	f, err := opener.Open(ctx, file)
	if err != nil {
		return nil, err
	}

	p := &parquetFile{
		file: f,
		path: file.Path,
	}

	if err := p.readFooter(); err != nil {
		f.Close()
		return nil, p.describeError(err)
	}

	return p, nil
}

// describeError names the file in an error.
func (p *parquetFile) describeError(err error) error {
	if d, ok := errors.AsType[*damageError](err); ok {
		return &FileError{
			File:    p.path,
			Message: d.message,
		}
	}

	if strings.Contains(err.Error(), p.path) {
		return err // a store names the file itself
	}

	return fmt.Errorf("read %s: %w", p.path, err)
}

func (p *parquetFile) readFooter() (err error) {
	defer catchPanic(&err, "its footer")

	footer, err := p.readFooterBytes()
	if err != nil {
		return err
	}

	if _, err := measureThriftStruct(footer); err != nil {
		return damage("its footer is damaged")
	}

	var meta format.FileMetaData
	compact := thrift.CompactProtocol{}
	if err := thrift.NewDecoder(compact.NewReader(bytes.NewReader(footer))).Decode(&meta); err != nil {
		return damage("its footer is damaged")
	}

	if meta.EncryptionAlgorithm.Value != nil {
		return errParquetEncrypted
	}

	if p.root, p.leaves, err = readParquetSchema(meta.Schema); err != nil {
		return err
	}

	if err := p.readGroups(&meta); err != nil {
		return err
	}

	p.metadata = make(map[string]string, len(meta.KeyValueMetadata))
	for _, kv := range meta.KeyValueMetadata {
		p.metadata[kv.Key] = kv.Value
	}

	return p.openColumns(meta.Schema)
}

// errParquetEncrypted is the error of an encrypted file.
var errParquetEncrypted = damage("it is encrypted; write it again without encryption")

// readFooterBytes reads the footer, without its length.
func (p *parquetFile) readFooterBytes() ([]byte, error) {
	size := p.file.Size()
	if size < int64(len(parquetMagic)+parquetTail) {
		return nil, damage("it has %d bytes, too few for a Parquet file", size)
	}

	end, err := p.readBytes(max(0, size-footerGuess), min(size, footerGuess))
	if err != nil {
		return nil, err
	}

	tail := end[len(end)-parquetTail:]
	end = end[:len(end)-parquetTail]

	switch string(tail[4:]) {
	case parquetMagic:
	case parquetEncryptedMagic:
		return nil, errParquetEncrypted
	default:
		return nil, damage("it does not end as a Parquet file does: it is cut off, or another format")
	}

	length := int64(binary.LittleEndian.Uint32(tail))
	if length > size-int64(len(parquetMagic)+parquetTail) {
		return nil, damage("its footer says that it is longer than the file; the file is cut off or damaged")
	}

	if length <= int64(len(end)) {
		return end[int64(len(end))-length:], nil
	}

	return p.readBytes(size-parquetTail-length, length)
}

// readBytes reads a part of the file.
func (p *parquetFile) readBytes(at, size int64) ([]byte, error) {
	b := make([]byte, size)
	n, err := p.file.ReadAt(b, at)
	switch {
	case int64(n) == size:
		return b, nil
	case err == nil, errors.Is(err, io.EOF):
		return nil, damage("it has become shorter")
	}

	return nil, err
}

// readGroups checks where the values of the row groups are.
func (p *parquetFile) readGroups(meta *format.FileMetaData) error {
	p.groups = make([]parquetGroup, 0, len(meta.RowGroups))

	for i := range meta.RowGroups {
		from := &meta.RowGroups[i]
		if from.NumRows < 0 || from.NumRows > math.MaxInt64-p.rows {
			return damage("row group %d has %d rows; the footer is damaged", i+1, from.NumRows)
		}

		if len(from.Columns) != len(p.leaves) {
			return damage("row group %d has %d columns, and the schema has %d; the footer is damaged", i+1,
				len(from.Columns), len(p.leaves))
		}

		group := parquetGroup{
			first:  p.rows,
			rows:   from.NumRows,
			chunks: make([]parquetChunk, len(p.leaves)),
		}
		for j := range from.Columns {
			chunk, err := p.readChunk(&from.Columns[j], p.leaves[j])
			if err != nil {
				return err
			}

			if p.leaves[j].repetition == 0 && chunk.values != group.rows {
				return damage("column %q has %d values in row group %d, which has %d rows; the footer is damaged",
					p.leaves[j].path, chunk.values, i+1, group.rows)
			}

			group.chunks[j] = chunk
		}

		p.groups = append(p.groups, group)
		p.rows += group.rows
	}

	if p.rows != meta.NumRows {
		return damage("its row groups have %d rows, and its footer says %d; the footer is damaged", p.rows,
			meta.NumRows)
	}

	return nil
}

func (p *parquetFile) readChunk(from *format.ColumnChunk, leaf *parquetNode) (parquetChunk, error) {
	name := leaf.path
	meta := &from.MetaData
	switch {
	case from.CryptoMetadata.Value != nil || len(from.EncryptedColumnMetadata) > 0:
		return parquetChunk{}, errParquetEncrypted
	case from.FilePath != "":
		return parquetChunk{}, damage("it has no rows of its own, but the places of those in other files; name these")
	case meta.Type != leaf.element.Type.V:
		return parquetChunk{}, damage("column %q has another type in a row group than in the schema", name)
	case !isParquetCodec(meta.Codec):
		return parquetChunk{}, damage("column %q is compressed with %s, which is not supported; "+
			"write it with zstd, snappy, gzip, brotli or lz4_raw", name, codecName(meta.Codec))
	case meta.NumValues < 0:
		return parquetChunk{}, damage("column %q has %d values; the footer is damaged", name, meta.NumValues)
	}

	start := meta.DataPageOffset
	if d := meta.DictionaryPageOffset; d > 0 && d < start {
		start = d
	}

	size := p.file.Size()
	if start < 0 || meta.TotalCompressedSize < 0 || start > size || meta.TotalCompressedSize > size-start {
		return parquetChunk{}, damage("column %q lies beyond the end; the file is cut off or damaged", name)
	}

	return parquetChunk{
		start:  start,
		end:    start + meta.TotalCompressedSize,
		codec:  meta.Codec,
		values: meta.NumValues,
	}, nil
}

// openColumns makes the library's columns of a schema.
//
// The library cannot decode pages without a file. It gets one of a single row group, without
// rows, whose columns are not compressed: [pageStream] reads, checks and decompresses the
// pages, so that each row group can have its own compression and a small page cannot become a
// huge one. And so the library never sees the row groups of the file, its statistics and its
// indexes.
func (p *parquetFile) openColumns(schema []format.SchemaElement) error {
	group := format.RowGroup{Columns: make([]format.ColumnChunk, len(p.leaves))}
	for i, leaf := range p.leaves {
		group.Columns[i] = format.ColumnChunk{
			MetaData: format.ColumnMetaData{
				Type:                leaf.element.Type.V,
				Encoding:            []format.Encoding{format.Plain},
				PathInSchema:        []string{leaf.element.Name},
				Codec:               format.Uncompressed,
				DataPageOffset:      int64(len(parquetMagic)),
				TotalCompressedSize: math.MaxInt64 / 2,
			},
		}
	}

	file, err := openSyntheticFile(&format.FileMetaData{
		Version:   1,
		Schema:    schema,
		RowGroups: []format.RowGroup{group},
	})
	if err != nil {
		return damage("its schema is not supported")
	}

	for i, chunk := range file.RowGroups()[0].ColumnChunks() {
		c, ok := chunk.(*parquet.FileColumnChunk)
		if !ok || i >= len(p.leaves) {
			return damage("its schema is not supported")
		}
		p.chunks = append(p.chunks, c)
	}

	for i, column := range file.Root().Columns() {
		p.fields = append(p.fields, newExactField(column, p.root.children[i]))
	}

	return nil
}

// openSyntheticFile opens a file that has only a footer.
func openSyntheticFile(meta *format.FileMetaData) (*parquet.File, error) {
	footer, err := thrift.Marshal(&thrift.CompactProtocol{}, meta)
	if err != nil {
		return nil, err
	}

	b := append([]byte(parquetMagic), footer...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(footer)))
	b = append(b, parquetMagic...)

	return parquet.OpenFile(bytes.NewReader(b), int64(len(b)), parquet.SkipPageIndex(true),
		parquet.SkipBloomFilters(true), parquet.ReadBufferSize(pageHeaderSize))
}
