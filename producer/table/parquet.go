package table

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"

	"github.com/promptmill/promptmill/proto"
)

const (
	// largestBlock and smallestBlock are the sizes in which column chunks are read: from an
	// object store, a block is a request. Many columns share blockMemory.
	largestBlock  = 4 << 20
	smallestBlock = 256 << 10
	blockMemory   = 64 << 20
)

// openParquet opens a file of Parquet.
func openParquet(ctx context.Context, cfg Config) (Reader, error) {
	r, err := OpenParquet(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// ParquetReader is the [Reader] of a Parquet file. It holds a page and a block of each column
// that it reads, whatever the size of the row groups: at most 1 GiB of pages and 64 MiB of blocks
// (or 256 KiB a column, if there are many).
//
// The columns and values that it returns have a [ParquetColumn], with the exact types.
type ParquetReader struct {
	file    *parquetFile
	columns []Column
	// nodes are the columns' nodes, and isRead says which are read.
	nodes  []*parquetNode
	isRead []bool
	// readers are the readers of the leaves; nil for those that are not read.
	readers []*columnReader
	// checksText reports that a text that is not UTF-8 is an error.
	checksText bool
	// group is the next row group, left counts the rows left of the one before.
	group int
	left  int64
	// row counts the rows before the next one.
	row int64
	// values are the values of the row, one for each column. text has their texts.
	values []Value
	text   []byte
	// leafValues has the values of the row of each leaf; walk is the place in them.
	leafValues [][]parquet.Value
	walk       rowWalk
	// page is the memory for a page. The readers share it.
	page []byte
	// pageMemory counts the bytes of the pages that the readers hold.
	pageMemory int64
	// err is the error that ended the rows.
	err error
}

// OpenParquet opens a Parquet file. The error is a [FileError] if the file cannot be used.
func OpenParquet(ctx context.Context, cfg Config) (*ParquetReader, error) {
	file, err := openParquetFile(ctx, cfg.Opener, cfg.File)
	if err != nil {
		return nil, err
	}

	r := &ParquetReader{
		file:       file,
		readers:    make([]*columnReader, len(file.leaves)),
		leafValues: make([][]parquet.Value, len(file.leaves)),
		walk:       rowWalk{values: make([][]parquet.Value, len(file.leaves))},
	}

	for i, column := range file.root.children {
		name := column.element.Name
		isRead := len(cfg.Only) == 0 || slices.Contains(cfg.Only, name)

		r.nodes = append(r.nodes, column)
		r.isRead = append(r.isRead, isRead)

		first := column.leaves[0].leaf
		exact := &ParquetColumn{
			field:  file.fields[i],
			node:   column,
			file:   file,
			leaves: r.leafValues[first : first+len(column.leaves)],
		}

		r.columns = append(r.columns, Column{
			Name:    name,
			Kind:    column.columnKind(),
			Parquet: exact,
		})

		if isRead {
			for _, leaf := range column.leaves {
				r.readers[leaf.leaf] = &columnReader{leaf: leaf}
			}
		}
	}

	r.values = make([]Value, len(r.columns))
	r.checksText = len(cfg.Only) > 0

	if err := r.seek(int64(cfg.From.Row)); err != nil {
		file.file.Close()
		return nil, file.describeError(err)
	}

	return r, nil
}

// columnKind returns the kind of a column's values.
func (n *parquetNode) columnKind() Kind {
	if n.isScalar() {
		return n.kind
	}
	return KindJSON
}

// Format implements Reader.
func (r *ParquetReader) Format() string { return proto.FormatParquet }

// Delimiter implements Reader.
func (r *ParquetReader) Delimiter() string { return "" }

// Columns implements Reader.
func (r *ParquetReader) Columns() []Column { return r.columns }

// Rows returns the number of rows of the file.
func (r *ParquetReader) Rows() int { return int(r.file.rows) }

// Metadata returns the keys and values of the file's footer.
func (r *ParquetReader) Metadata() map[string]string { return maps.Clone(r.file.metadata) }

// Position implements Reader.
func (r *ParquetReader) Position() Position { return Position{Row: int(r.row)} }

// Close implements Reader.
func (r *ParquetReader) Close() error {
	for _, c := range r.readers {
		if c != nil {
			c.close()
		}
	}

	return r.file.file.Close()
}

// Next implements Reader.
func (r *ParquetReader) Next() (Row, error) {
	if err := r.advance(); err != nil {
		return Row{}, err
	}

	if err := r.setValues(); err != nil {
		return Row{}, r.fail(r.row, err)
	}

	if err := r.checkText(); err != nil {
		return Row{}, err
	}

	return Row{
		Number:  int(r.row),
		Columns: r.columns,
		Values:  r.values,
	}, nil
}

// checkText checks the texts of the row. If only some columns are read, the one that asks for
// them needs their texts; else a text that is not UTF-8 becomes bytes, so that the row can
// still be read.
func (r *ParquetReader) checkText() error {
	for i := range r.values {
		v := &r.values[i]
		if v.Kind != KindText || utf8.Valid(v.Text) {
			continue
		}

		if r.checksText {
			return &RowError{
				Number:  int(r.row),
				Message: fmt.Sprintf("column %q has text that is not UTF-8", r.columns[i].Name),
			}
		}

		v.Kind = KindBytes
	}

	return nil
}

// seek moves to the row behind n rows.
func (r *ParquetReader) seek(n int64) error {
	if n < 0 || n > r.file.rows {
		return damage("it has %d rows, and row %d is asked for; the file has changed", r.file.rows, n+1)
	}

	r.row = n

	for r.group < len(r.file.groups) {
		group := &r.file.groups[r.group]
		if n < group.first+group.rows {
			break
		}
		r.group++
	}

	if r.group == len(r.file.groups) {
		return nil
	}

	return r.openGroup(n - r.file.groups[r.group].first)
}

// openGroup begins with the next row group, without its first rows.
func (r *ParquetReader) openGroup(skip int64) (err error) {
	defer catchPanic(&err, fmt.Sprintf("row group %d", r.group+1))

	group := &r.file.groups[r.group]
	r.group++

	count := 0
	for _, c := range r.readers {
		if c != nil {
			count++
		}
	}

	block := largestBlock
	if count > 0 {
		block = min(largestBlock, max(smallestBlock, blockMemory/count))
	}

	r.pageMemory = 0
	for i, c := range r.readers {
		if c == nil {
			continue
		}

		chunk := group.chunks[i]
		stream := &pageStream{
			in: chunkReader{
				file:  r.file.file,
				next:  chunk.start,
				end:   chunk.end,
				block: block,
			},
			leaf:   c.leaf,
			codec:  chunk.codec,
			values: chunk.values,
			skip:   skip,
			body:   &r.page,
			memory: &r.pageMemory,
		}
		if c.stream != nil {
			stream.in.buf = c.stream.in.buf[:0]
		}

		if err := c.open(r.file.chunks[i], stream); err != nil {
			return endsEarly(c, err)
		}
	}

	r.left = group.rows - skip

	return nil
}

// endsEarly returns the error of a column that has too few values.
func endsEarly(c *columnReader, err error) error {
	if errors.Is(err, io.EOF) {
		return c.stream.damage("it has fewer rows than its row group; the file is damaged")
	}
	return err
}

// advance reads the values of the next row.
func (r *ParquetReader) advance() error {
	if r.err != nil {
		return r.err
	}

	for r.left == 0 {
		if r.group == len(r.file.groups) {
			r.err = io.EOF
			return r.err
		}

		if err := r.openGroup(0); err != nil {
			return r.fail(r.row+1, err)
		}
	}

	if err := r.readLeaves(); err != nil {
		return r.fail(r.row+1, err)
	}

	r.left--
	r.row++

	return nil
}

// fail ends the rows with an error of a row.
func (r *ParquetReader) fail(row int64, err error) error {
	r.err = r.file.describeError(err)
	if fault, ok := errors.AsType[*FileError](r.err); ok {
		fault.Number = int(row)
	}

	return r.err
}

// readLeaves reads the values of the next row of each leaf.
func (r *ParquetReader) readLeaves() (err error) {
	defer catchPanic(&err, "it")

	for i, c := range r.readers {
		if c == nil {
			continue
		}

		if r.leafValues[i], err = c.next(); err != nil {
			return endsEarly(c, err)
		}
	}

	return nil
}

// setValues makes the values of the row from those of the leaves.
func (r *ParquetReader) setValues() (err error) {
	defer catchPanic(&err, "it")

	r.text = r.text[:0]
	copy(r.walk.values, r.leafValues)

	for i, node := range r.nodes {
		switch {
		case !r.isRead[i]:
			continue
		case node.isScalar():
			r.text = node.setScalar(&r.values[i], r.leafValues[node.leaf][0], r.text)
		default:
			r.values[i] = Value{}
			if !node.isRepeated() && !r.walk.has(node) {
				break
			}

			start := len(r.text)
			r.text = r.walk.appendNode(r.text, node)
			r.values[i] = Value{
				Kind: KindJSON,
				Text: r.text[start:len(r.text):len(r.text)],
			}
		}

		r.values[i].Parquet = r.columns[i].Parquet
	}

	return nil
}
