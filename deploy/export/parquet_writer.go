package export

import (
	"io"

	"cmp"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"

	"github.com/parquet-go/parquet-go"

	"github.com/promptmill/promptmill/producer/table"
)

const (
	// rowGroupBytes and rowGroupRows are the size of a row group before compression, and the
	// most rows of one. The writer holds a row group in memory, compressed.
	rowGroupBytes = 32 << 20
	rowGroupRows  = 1 << 20
	// pageBytes is the size of a page before compression, and of a dictionary.
	pageBytes = 1 << 20
	// runKey is the key of the run's id in the footer.
	runKey = "promptmill.run"
)

// foreignKeys are the keys in the footers of other writers that describe the columns of a file,
// and so do not hold for a table with more of them. Without them, readers take the types from
// the schema.
var foreignKeys = []string{
	"pandas",
	"ARROW:schema",
	"huggingface",
	"org.apache.spark.sql.parquet.row.metadata",
	"parquet.avro.schema",
	"avro.schema",
	"duckdb.interval_bloom_filter",
}

// parquetWriter writes Parquet. It gathers the rows of a batch while the batch before is encoded.
type parquetWriter struct {
	w       *parquet.GenericWriter[any]
	columns []parquetColumn
	row     parquet.Row
	// batch gathers rows, and spare is being encoded or is empty.
	batch, spare *parquetBatch
	// encoded gets the error of encoding spare. Nil: no encoding was started.
	encoded chan error
	// bytes and rows are the size of the row group so far.
	bytes, rows int
}

// parquetColumn is a column of a table that is being written.
type parquetColumn struct {
	table.Column

	// field is the column in the schema.
	field parquet.Field
	// first is the number of its first leaf, and leaves the number of its leaves.
	first, leaves int
}

// newParquetWriter begins a Parquet file. A column of a Parquet file keeps its exact type;
// others are optional, and have the type of their kind.
func newParquetWriter(file io.Writer, columns []table.Column, run string) (rowWriter, error) {
	p := &parquetWriter{}
	root := &orderedGroup{}
	metadata := map[string]string{}

	// The library looks at the size of a dictionary when a page of indexes is full, so one of
	// long texts would hold a row group of them. Snappy finds the repetitions in a page as
	// well.
	options := []parquet.WriterOption{
		parquet.Compression(&parquet.Snappy), // all readers have it, and it takes a third of the time of Zstandard
		parquet.DefaultEncoding(&parquet.RLEDictionary),
		parquet.DefaultEncodingFor(parquet.Boolean, &parquet.Plain),
		parquet.DefaultEncodingFor(parquet.ByteArray, &parquet.Plain),
		parquet.DictionaryMaxBytes(pageBytes),
		parquet.PageBufferSize(pageBytes),
		parquet.DataPageVersion(1), // all readers have it
		parquet.DataPageStatistics(false),
	}

	leaves := 0
	for _, c := range columns {
		column := parquetColumn{
			Column: c,
			field:  newField(c),
			first:  leaves,
		}

		column.leaves = countLeaves(column.field)
		leaves += column.leaves

		p.columns = append(p.columns, column)
		root.fields = append(root.fields, column.field)

		if c.Parquet == nil {
			continue
		}

		maps.Copy(metadata, c.Parquet.Metadata())
		for _, path := range c.Parquet.Unordered() {
			options = append(options, parquet.SkipPageBounds(path...))
		}
	}

	metadata[runKey] = run
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		if !slices.Contains(foreignKeys, key) {
			options = append(options, parquet.KeyValueMetadata(key, metadata[key]))
		}
	}

	config, err := parquet.NewWriterConfig(append(options, parquet.NewSchema("schema", root))...)
	if err != nil {
		return nil, fmt.Errorf("begin a Parquet file: %w", err)
	}

	p.w = parquet.NewGenericWriter[any](file, config)
	p.batch, p.spare = newParquetBatch(leaves), newParquetBatch(leaves)

	return p, nil
}

// writeRow implements rowWriter. Its error can be of an earlier row.
func (p *parquetWriter) writeRow(_ []table.Column, values []table.Value) (err error) {
	p.row = p.row[:0]

	for i := range p.columns {
		if p.row, err = p.columns[i].appendValue(p.row, values[i]); err != nil {
			return err
		}
	}

	if p.batch.addRow(p.row); !p.batch.isFull() {
		return nil
	}

	if err := p.awaitEncoding(); err != nil {
		return err
	}

	p.batch, p.spare = p.spare, p.batch

	p.encoded = make(chan error, 1)
	go func() { p.encoded <- p.encodeBatch(p.spare) }()

	return nil
}

// awaitEncoding waits until no batch is being encoded.
func (p *parquetWriter) awaitEncoding() error {
	if p.encoded == nil {
		return nil
	}

	err := <-p.encoded
	p.encoded = nil

	return err
}

// encodeBatch writes the rows of a batch and makes it empty. A row group that is large enough ends.
func (p *parquetWriter) encodeBatch(batch *parquetBatch) error {
	for i, w := range p.w.ColumnWriters() {
		if _, err := w.WriteRowValues(batch.leaves[i]); err != nil {
			return err
		}
	}

	p.bytes += batch.bytes
	p.rows += batch.rows
	batch.reset()

	if p.bytes < rowGroupBytes && p.rows < rowGroupRows {
		return nil
	}

	p.bytes, p.rows = 0, 0

	return p.w.Flush()
}

// close implements rowWriter.
func (p *parquetWriter) close(err error) error {
	if err := cmp.Or(err, p.awaitEncoding()); err != nil {
		return err
	}

	if err := p.encodeBatch(p.batch); err != nil {
		return err
	}

	return p.w.Close()
}

// appendValue appends the values of the column's leaves.
func (c *parquetColumn) appendValue(row parquet.Row, v table.Value) (parquet.Row, error) {
	if c.Parquet == nil {
		if v.Kind != c.Kind && v.Kind != table.KindNull {
			return row, fmt.Errorf("column %q has values of several kinds", c.Name)
		}
		return append(row, newParquetValue(v, c.first)), nil
	}

	if v.Parquet != nil {
		for i, values := range v.Parquet.Leaves() {
			for _, leaf := range values {
				row = append(row, leaf.Level(leaf.RepetitionLevel(), leaf.DefinitionLevel(), c.first+i))
			}
		}
		return row, nil
	}

	if !v.IsNull() || c.Parquet.IsRequired() {
		return row, fmt.Errorf("column %q has a value of another type than in the first file", c.Name)
	}

	for i := range c.leaves {
		row = append(row, parquet.Value{}.Level(0, 0, c.first+i))
	}

	return row, nil
}

// newParquetValue returns a value of an optional leaf.
func newParquetValue(v table.Value, leaf int) parquet.Value {
	var value parquet.Value
	switch v.Kind {
	case table.KindNull:
		return value.Level(0, 0, leaf)
	case table.KindInt, table.KindUint:
		value = parquet.Int64Value(int64(v.Bits))
	case table.KindFloat:
		value = parquet.DoubleValue(math.Float64frombits(v.Bits))
	case table.KindFloat32:
		value = parquet.FloatValue(math.Float32frombits(uint32(v.Bits)))
	case table.KindBool:
		value = parquet.BooleanValue(v.Bits != 0)
	default:
		value = parquet.ByteArrayValue(v.Text)
	}

	return value.Level(0, 1, leaf)
}

// newField returns a column as a field of a schema. Digits that no type of Parquet is sure to
// hold, and times in text, are text.
func newField(c table.Column) parquet.Field {
	if c.Parquet != nil {
		return c.Parquet.Field()
	}

	node := parquet.String()
	switch c.Kind {
	case table.KindBytes:
		node = parquet.Leaf(parquet.ByteArrayType)
	case table.KindInt:
		node = parquet.Leaf(parquet.Int64Type)
	case table.KindUint:
		node = parquet.Uint(64)
	case table.KindFloat:
		node = parquet.Leaf(parquet.DoubleType)
	case table.KindFloat32:
		node = parquet.Leaf(parquet.FloatType)
	case table.KindBool:
		node = parquet.Leaf(parquet.BooleanType)
	case table.KindJSON:
		node = parquet.JSON()
	}

	return &namedField{
		Node: parquet.Optional(node),
		name: c.Name,
	}
}

// countLeaves returns the number of leaves of a field.
func countLeaves(field parquet.Field) int {
	if field.Leaf() {
		return 1
	}

	leaves := 0
	for _, child := range field.Fields() {
		leaves += countLeaves(child)
	}

	return leaves
}

// orderedGroup is a group whose fields keep their order; the library's are sorted.
type orderedGroup struct {
	parquet.Group

	fields []parquet.Field
}

// Fields implements parquet.Node.
func (g *orderedGroup) Fields() []parquet.Field { return g.fields }

// namedField is a field of an orderedGroup.
type namedField struct {
	parquet.Node

	name string
}

// Name implements parquet.Field.
func (f *namedField) Name() string { return f.name }

// Value implements parquet.Field. Rows are written as values of leaves, so there is no Go value.
func (f *namedField) Value(reflect.Value) reflect.Value { return reflect.Value{} }
