package table

import (
	"reflect"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/deprecated"
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

	if _, ok := node.element.LogicalType.Value.(*format.Float16Type); ok {
		f.typ = float16Type{f.typ}
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

// float16Type is the type of numbers of 16 bits, which the library reads as bytes.
type float16Type struct{ parquet.Type }

// LogicalType implements parquet.Type.
func (float16Type) LogicalType() *format.LogicalType {
	return &format.LogicalType{Value: new(format.Float16Type)}
}

// ConvertedType implements parquet.Type.
func (float16Type) ConvertedType() *deprecated.ConvertedType { return nil }

// HasOrder reports whether the library compares the values of a leaf as the format orders them; if not, its
// smallest and largest values must not be written.
func HasOrder(leaf parquet.Node) bool {
	_, isFloat16 := leaf.Type().(float16Type)
	return !isFloat16
}
