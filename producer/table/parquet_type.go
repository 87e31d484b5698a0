package table

import (
	"bytes"
	"reflect"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/format"
)

// ParquetColumn is a column of a Parquet file with its exact type. A [Value] of the column has the values
// of the column's leaves, so that they can be written again without any loss.
type ParquetColumn struct {
	field parquet.Field
	node  *parquetNode
	file  *parquetFile
	// leaves has the values of the latest row, for each leaf.
	leaves [][]parquet.Value
}

// Field returns the column as a field of a schema: with its name and its type, and without an encoding and
// a compression.
func (c *ParquetColumn) Field() parquet.Field { return c.field }

// Leaves returns the values of the latest row: for each leaf of the column, in the order of the schema, one
// or more with their levels. They are valid until the next row is read.
func (c *ParquetColumn) Leaves() [][]parquet.Value { return c.leaves }

// Metadata returns the keys and values in the footer of the file. The map must not be changed.
func (c *ParquetColumn) Metadata() map[string]string { return c.file.metadata }

// IsRequired reports whether no row is without a value.
func (c *ParquetColumn) IsRequired() bool { return c.node.definition == 0 }

// SameType reports whether the values of two columns can be written into one column.
func (c *ParquetColumn) SameType(other *ParquetColumn) bool {
	return c == other || sameParquetType(c.node, other.node)
}

// Unordered returns the paths of the leaves whose values the library does not order as the format does.
// Their smallest and largest values must not be written: readers would skip rows by them.
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

// exactField is a field of a schema as it is in a file. The library sorts the fields of groups that are
// made with it; those of a file keep their order.
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

	switch {
	case !node.isLeaf():
	case isFloat16(node):
		f.typ = unorderedType{
			Type:    f.typ,
			logical: &format.LogicalType{Value: new(format.Float16Type)},
			min:     []byte{0x00, 0xfc}, // the infinities
			max:     []byte{0x00, 0x7c},
		}
	case isBinaryDecimal(node):
		size := int(node.element.TypeLength.V)
		if node.element.Type.V == format.ByteArray {
			size = 64
		}
		f.typ = unorderedType{
			Type:    f.typ,
			logical: f.typ.LogicalType(),
			min:     append([]byte{0x80}, make([]byte, size-1)...),
			max:     append([]byte{0x7f}, bytes.Repeat([]byte{0xff}, size-1)...),
		}
	}

	return f
}

// isFloat16 reports whether a leaf has numbers of 16 bits, which the library orders as bytes.
func isFloat16(n *parquetNode) bool {
	_, ok := n.element.LogicalType.Value.(*format.Float16Type)
	return ok
}

// isBinaryDecimal reports whether a leaf has decimals as bytes. The library orders them without the sign.
func isBinaryDecimal(n *parquetNode) bool {
	return n.kind == KindNumber && n.element.Type.V >= format.ByteArray
}

// Type implements parquet.Node.
func (f *exactField) Type() parquet.Type { return f.typ }

// Fields implements parquet.Node.
func (f *exactField) Fields() []parquet.Field { return f.fields }

// Encoding implements parquet.Node.
func (f *exactField) Encoding() encoding.Encoding { return nil }

// Compression implements parquet.Node.
func (f *exactField) Compression() compress.Codec { return nil }

// unorderedType is a type whose values the library does not order as the format does. The index of the
// pages has bounds that hold for all values.
type unorderedType struct {
	parquet.Type

	logical  *format.LogicalType
	min, max []byte
}

// LogicalType implements parquet.Type.
func (t unorderedType) LogicalType() *format.LogicalType { return t.logical }

// NewColumnIndexer implements parquet.Type.
func (t unorderedType) NewColumnIndexer(int) parquet.ColumnIndexer {
	return unorderedIndexer{
		ColumnIndexer: t.Type.NewColumnIndexer(len(t.max)),
		min:           parquet.FixedLenByteArrayValue(t.min),
		max:           parquet.FixedLenByteArrayValue(t.max),
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
