package table

import (
	"bytes"
	"math"
	"reflect"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/format"
)

// ParquetColumn is a column of a Parquet file with its exact type. A [Value] of the column has
// the values of the column's leaves, so that they can be written again without any loss.
type ParquetColumn struct {
	field parquet.Field
	node  *parquetNode
	file  *parquetFile
	// leaves has the values of the latest row, for each leaf.
	leaves [][]parquet.Value
}

// Field returns the column as a field of a schema: with its name and its type, and without an
// encoding and a compression.
func (c *ParquetColumn) Field() parquet.Field { return c.field }

// Leaves returns the values of the latest row: for each leaf of the column, in the order of the
// schema, one or more with their levels. They are valid until the next row is read.
func (c *ParquetColumn) Leaves() [][]parquet.Value { return c.leaves }

// Metadata returns the keys and values in the footer of the file. The map must not be changed.
func (c *ParquetColumn) Metadata() map[string]string { return c.file.metadata }

// IsRequired reports whether no row is without a value.
func (c *ParquetColumn) IsRequired() bool { return c.node.definition == 0 }

// SameType reports whether the values of two columns can be written into one column.
func (c *ParquetColumn) SameType(other *ParquetColumn) bool {
	return c == other || sameParquetType(c.node, other.node)
}

// Unordered returns the paths of the leaves whose values the library does not order as the
// format does. Their smallest and largest values must not be written: readers would skip rows
// by them.
func (c *ParquetColumn) Unordered() [][]string {
	return appendUnordered(nil, nil, c.field)
}

func appendUnordered(paths [][]string, parent []string, field parquet.Field) [][]string {
	path := append(slices.Clip(parent), field.Name())

	if field.Leaf() {
		if _, ok := field.Type().(unorderedType); ok {
			paths = append(paths, path)
		}
		return paths
	}

	for _, child := range field.Fields() {
		paths = appendUnordered(paths, path, child)
	}

	return paths
}

// sameParquetType reports whether two nodes have the same types, names and repetition.
func sameParquetType(a, b *parquetNode) bool {
	x, y := *a.element, *b.element
	x.FieldID, y.FieldID = 0, 0 // writers number the fields as they like

	if !reflect.DeepEqual(x, y) || len(a.children) != len(b.children) {
		return false
	}

	for i := range a.children {
		if !sameParquetType(a.children[i], b.children[i]) {
			return false
		}
	}

	return true
}

// exactField is a field of a schema as it is in a file. The library sorts the fields of groups
// that are made with it; those of a file keep their order.
type exactField struct {
	*parquet.Column

	typ    parquet.Type
	fields []parquet.Field
}

// newExactField returns the field of a node and of the library's column.
func newExactField(column *parquet.Column, node *parquetNode) *exactField {
	f := &exactField{
		Column: column,
		typ:    column.Type(),
	}

	for i, child := range column.Columns() {
		f.fields = append(f.fields, newExactField(child, node.children[i]))
	}

	if node.isLeaf() {
		f.typ = newExactType(f.typ, node)
	}

	return f
}

// Type implements parquet.Node.
func (f *exactField) Type() parquet.Type { return f.typ }

// Fields implements parquet.Node.
func (f *exactField) Fields() []parquet.Field { return f.fields }

// Encoding implements parquet.Node.
func (f *exactField) Encoding() encoding.Encoding { return nil }

// Compression implements parquet.Node.
func (f *exactField) Compression() compress.Codec { return nil }

// exactType is a type with the annotations that it has in the file.
type exactType struct {
	parquet.Type

	logical   *format.LogicalType
	converted *deprecated.ConvertedType
}

// LogicalType implements parquet.Type.
func (t exactType) LogicalType() *format.LogicalType { return t.logical }

// ConvertedType implements parquet.Type.
func (t exactType) ConvertedType() *deprecated.ConvertedType { return t.converted }

// newExactType returns the type of a leaf, of which the library has typ.
func newExactType(typ parquet.Type, n *parquetNode) parquet.Type {
	e := n.element

	if n.kind == KindNull { // the library writes no type for it
		typ = physicalType(e)
	}

	t := exactType{Type: typ}
	if e.LogicalType.Value != nil {
		t.logical = &e.LogicalType
	}
	if e.ConvertedType.Valid {
		t.converted = &e.ConvertedType.V
	}
	if n.kind == KindNumber { // it writes the precision and the scale of a logical type alone
		t.logical = typ.LogicalType()
	}

	smallest, largest := unorderedBounds(n)
	if largest.IsNull() {
		return t
	}

	return unorderedType{
		exactType: t,
		min:       smallest,
		max:       largest,
	}
}

// physicalType returns the type of values without an annotation.
func physicalType(e *format.SchemaElement) parquet.Type {
	switch e.Type.V {
	case format.Boolean:
		return parquet.BooleanType
	case format.Int32:
		return parquet.Int32Type
	case format.Int64:
		return parquet.Int64Type
	case format.Int96:
		return parquet.Int96Type
	case format.Float:
		return parquet.FloatType
	case format.Double:
		return parquet.DoubleType
	case format.FixedLenByteArray:
		return parquet.FixedLenByteArrayType(int(e.TypeLength.V))
	}

	return parquet.ByteArrayType
}

// unorderedBounds returns bounds of all values of a leaf whose values the library does not
// order as the format does, else null: it orders numbers in bytes without their sign, and NaN
// spoils the bounds of the numbers beside it.
func unorderedBounds(n *parquetNode) (smallest, largest parquet.Value) {
	e := n.element
	size := int(e.TypeLength.V)
	switch {
	case e.Type.V == format.Float:
		return parquet.FloatValue(float32(math.Inf(-1))), parquet.FloatValue(float32(math.Inf(1)))
	case e.Type.V == format.Double:
		return parquet.DoubleValue(math.Inf(-1)), parquet.DoubleValue(math.Inf(1))
	case n.kind == KindFloat32: // half precision
		return parquet.FixedLenByteArrayValue([]byte{0x00, 0xfc}), parquet.FixedLenByteArrayValue([]byte{0x00, 0x7c})
	case n.kind != KindNumber || e.Type.V < format.ByteArray:
		return parquet.Value{}, parquet.Value{}
	case e.Type.V == format.ByteArray:
		size = 64 // for 154 digits; the format's implementations have at most 76
	}

	return parquet.FixedLenByteArrayValue(append([]byte{0x80}, make([]byte, size-1)...)),
		parquet.FixedLenByteArrayValue(append([]byte{0x7f}, bytes.Repeat([]byte{0xff}, size-1)...))
}

// unorderedType is a type of such values. The index of the pages has bounds that hold for all
// of them.
type unorderedType struct {
	exactType

	min, max parquet.Value
}

// NewColumnIndexer implements parquet.Type.
func (t unorderedType) NewColumnIndexer(limit int) parquet.ColumnIndexer {
	if k := t.max.Kind(); k == parquet.ByteArray || k == parquet.FixedLenByteArray {
		limit = len(t.max.ByteArray()) // they must not be cut off
	}

	return unorderedIndexer{
		ColumnIndexer: t.exactType.NewColumnIndexer(limit),
		min:           t.min,
		max:           t.max,
	}
}

// unorderedIndexer indexes pages without regard to their values.
type unorderedIndexer struct {
	parquet.ColumnIndexer

	min, max parquet.Value
}

// IndexPage implements parquet.ColumnIndexer.
func (i unorderedIndexer) IndexPage(numValues, numNulls int64, _, _ parquet.Value) {
	if numValues == numNulls {
		i.ColumnIndexer.IndexPage(numValues, numNulls, parquet.Value{}, parquet.Value{})
		return
	}
	i.ColumnIndexer.IndexPage(numValues, numNulls, i.min, i.max)
}
