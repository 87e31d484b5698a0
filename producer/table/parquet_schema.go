package table

import (
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/format"
)

const (
	// maxParquetColumns is the largest number of columns, nested ones included. The library
	// counts them in 16 bits.
	maxParquetColumns = 1 << 15
	// maxParquetDepth is the deepest nesting of a column. The library counts levels in 8 bits,
	// and a list of lists has 3 a level.
	maxParquetDepth = 60
)

// parquetNode is a node of the schema of a Parquet file.
type parquetNode struct {
	element *format.SchemaElement
	// path names the node in errors: the names from its column down, with dots between them.
	path string
	// children are the nodes in a group, in the order of the file.
	children []*parquetNode
	// leaves are the leaves below the node, or the node itself.
	leaves []*parquetNode
	// leaf is the number of a leaf among those of the file.
	leaf int
	// repetition and definition are the levels at which a value of the node repeats and is defined.
	repetition, definition byte
	// kind is the kind of a leaf's values.
	kind Kind
	// shape says how a group is written as JSON.
	shape parquetShape
	// write appends a leaf's value as text, if its kind has one. Such a text is also the number
	// in JSON.
	write func(dst []byte, v parquet.Value) []byte
}

// parquetShape says how a group is written as JSON.
type parquetShape uint8

const (
	// shapeObject has a member for each child.
	shapeObject parquetShape = iota
	// shapeList is a list: its child repeats, and the elements are element's.
	shapeList
	// shapeMap is a map: its child repeats, and has keys and values.
	shapeMap
)

// isRepeated reports whether a value of the parent has a list of the node's.
func (n *parquetNode) isRepeated() bool {
	return n.element.RepetitionType.Valid && n.element.RepetitionType.V == format.Repeated
}

// isOptional reports whether a value of the parent may have none of the node's.
func (n *parquetNode) isOptional() bool {
	return n.element.RepetitionType.Valid && n.element.RepetitionType.V == format.Optional
}

// isLeaf reports whether the node has values.
func (n *parquetNode) isLeaf() bool { return n.element.Type.Valid }

// isScalar reports whether a row has one value of the node, or none.
func (n *parquetNode) isScalar() bool { return n.isLeaf() && !n.isRepeated() }

// schemaReader makes nodes of the elements of a schema.
type schemaReader struct {
	elements []format.SchemaElement
	leaves   []*parquetNode
}

// readParquetSchema makes the nodes of a schema. It returns the root and the leaves.
func readParquetSchema(elements []format.SchemaElement) (*parquetNode, []*parquetNode, error) {
	if len(elements) == 0 {
		return nil, nil, damage("its schema is empty")
	}

	if len(elements) > maxParquetColumns {
		return nil, nil, damage("its schema has %d columns, and at most %d are supported",
			len(elements), maxParquetColumns)
	}

	r := &schemaReader{elements: elements}

	root, err := r.readNode(nil, 0)
	switch {
	case err != nil:
		return nil, nil, err
	case len(r.elements) > 0:
		return nil, nil, damage("its schema has columns outside its root")
	case root.isLeaf() || root.isRepeated():
		return nil, nil, damage("the root of its schema is not a group")
	case len(r.leaves) == 0:
		return nil, nil, damage("its schema has no columns")
	}

	names := map[string]bool{}
	for _, column := range root.children {
		if names[column.element.Name] {
			return nil, nil, damage("it has two columns %q; rename one of them", column.element.Name)
		}
		names[column.element.Name] = true
	}

	return root, r.leaves, nil
}

func (r *schemaReader) readNode(parent *parquetNode, depth int) (*parquetNode, error) {
	if depth > maxParquetDepth {
		return nil, damage("its schema is nested deeper than %d levels", maxParquetDepth)
	}

	if len(r.elements) == 0 {
		return nil, damage("its schema ends too early")
	}

	n := &parquetNode{element: &r.elements[0]}
	r.elements = r.elements[1:]

	if !utf8.ValidString(n.element.Name) {
		return nil, damage("the name of column %q is not UTF-8", n.element.Name)
	}

	if parent != nil {
		n.path = n.element.Name
		if parent.path != "" {
			n.path = parent.path + "." + n.path
		}

		n.repetition, n.definition = parent.repetition, parent.definition
		if n.isRepeated() {
			n.repetition++
		}
		if n.isRepeated() || n.isOptional() {
			n.definition++
		}
	}

	if n.isLeaf() {
		if n.element.NumChildren.Valid && n.element.NumChildren.V != 0 {
			return nil, damage("column %q has both a type and columns of its own", n.path)
		}

		n.leaf = len(r.leaves)
		n.leaves = []*parquetNode{n}
		r.leaves = append(r.leaves, n)

		return n, n.setKind()
	}

	count := 0
	if n.element.NumChildren.Valid {
		count = int(n.element.NumChildren.V)
	}

	if count < 0 || count > len(r.elements) {
		return nil, damage("column %q has more columns than the schema", n.path)
	}

	if count == 0 && parent != nil {
		return nil, damage("column %q is a group without columns", n.path)
	}

	for range count {
		child, err := r.readNode(n, depth+1)
		if err != nil {
			return nil, err
		}
		n.children = append(n.children, child)
		n.leaves = append(n.leaves, child.leaves...)
	}

	n.setShape()

	return n, nil
}

// setShape finds lists and maps, by the rules of the format's LogicalTypes.md.
func (n *parquetNode) setShape() {
	isList, isMap := false, false

	switch n.element.LogicalType.Value.(type) {
	case *format.ListType:
		isList = true
	case *format.MapType:
		isMap = true
	case nil:
		if c := n.element.ConvertedType; c.Valid {
			isList = c.V == deprecated.List
			isMap = c.V == deprecated.Map || c.V == deprecated.MapKeyValue
		}
	}

	if len(n.children) != 1 || !n.children[0].isRepeated() {
		return
	}

	switch entries := n.children[0]; {
	case isList:
		n.shape = shapeList
	case isMap && len(entries.children) == 2 && entries.children[0].isScalar(),
		isMap && len(entries.children) == 1 && entries.children[0].isScalar():
		n.shape = shapeMap
	}
}

// listElement returns the node of a list's elements: the repeated child itself, or the only one
// in it.
func (n *parquetNode) listElement() *parquetNode {
	repeated := n.children[0]
	name := repeated.element.Name
	if repeated.isLeaf() || len(repeated.children) != 1 || repeated.shape != shapeObject ||
		name == "array" || name == n.element.Name+"_tuple" || repeated.children[0].isRepeated() {
		return repeated
	}

	return repeated.children[0]
}

// setKind finds the kind of a leaf's values, and checks that its type can have its annotation.
func (n *parquetNode) setKind() error {
	e := n.element
	physical := e.Type.V
	if physical < format.Boolean || physical > format.FixedLenByteArray {
		return damage("column %q has the unknown type %d", n.path, int(physical))
	}

	if physical == format.FixedLenByteArray && (!e.TypeLength.Valid || e.TypeLength.V <= 0 ||
		e.TypeLength.V > maxFixedLength) {
		return damage("column %q has values of %d bytes, and at most %d are supported", n.path,
			e.TypeLength.V, maxFixedLength)
	}

	types, known := n.setAnnotatedKind()
	if !known {
		n.setPhysicalKind()
		return nil
	}

	for _, t := range types {
		if t == physical {
			return nil
		}
	}

	return damage("column %q says that it has %s, and stores another type", n.path, n.annotation())
}

// maxFixedLength is the largest size of a value of a fixed length.
const maxFixedLength = encoding.MaxFixedLenByteArraySize

// annotation names the annotation of a leaf.
func (n *parquetNode) annotation() string {
	if n.element.LogicalType.Value != nil {
		return n.element.LogicalType.String()
	}
	return fmt.Sprint(n.element.ConvertedType.V)
}

// setPhysicalKind sets the kind of values without an annotation.
func (n *parquetNode) setPhysicalKind() {
	switch n.element.Type.V {
	case format.Boolean:
		n.kind, n.write = KindBool, appendParquetBool
	case format.Int32:
		n.kind, n.write = KindInt, appendParquetInt32
	case format.Int64:
		n.kind, n.write = KindInt, appendParquetInt64
	case format.Int96:
		n.kind, n.write = KindTime, appendInt96
	case format.Float:
		n.kind, n.write = KindFloat32, appendParquetFloat
	case format.Double:
		n.kind, n.write = KindFloat, appendParquetDouble
	default:
		n.kind = KindBytes
	}
}

// setAnnotatedKind sets the kind of values with an annotation that is known, and returns the
// types that can have it.
func (n *parquetNode) setAnnotatedKind() (types []format.Type, known bool) {
	e := n.element
	binary := []format.Type{format.ByteArray}
	blob := []format.Type{format.ByteArray, format.FixedLenByteArray}
	small := []format.Type{format.Int32}
	large := []format.Type{format.Int64}

	switch logical := e.LogicalType.Value.(type) {
	case *format.StringType, *format.EnumType:
		n.kind = KindText
		return blob, true
	case *format.JsonType:
		n.kind = KindJSON
		return binary, true
	case *format.BsonType, *format.GeometryType, *format.GeographyType:
		n.kind = KindBytes
		return binary, true
	case *format.UUIDType:
		n.kind, n.write = KindText, appendUUID
		if e.TypeLength.V != 16 {
			return nil, true
		}
		return []format.Type{format.FixedLenByteArray}, true
	case *format.Float16Type:
		n.kind, n.write = KindFloat32, appendFloat16
		if e.TypeLength.V != 2 {
			return nil, true
		}
		return []format.Type{format.FixedLenByteArray}, true
	case *format.NullType:
		n.kind = KindNull
		return []format.Type{e.Type.V}, true
	case *format.DecimalType:
		return n.setDecimal(logical.Scale), true
	case *format.DateType:
		n.kind, n.write = KindTime, appendDate
		return small, true
	case *format.TimeType:
		n.kind, n.write = KindTime, appendTimeOfDay(unitOf(logical.Unit))
		if unitOf(logical.Unit) == time.Millisecond {
			return small, true
		}
		return large, true
	case *format.TimestampType:
		n.kind, n.write = KindTime, appendTimestamp(unitOf(logical.Unit), logical.IsAdjustedToUTC)
		return large, true
	case *format.IntType:
		return n.setInteger(logical.IsSigned, logical.BitWidth), true
	}

	if !e.ConvertedType.Valid {
		return nil, false
	}

	switch e.ConvertedType.V {
	case deprecated.UTF8, deprecated.Enum:
		n.kind = KindText
		return blob, true
	case deprecated.Json:
		n.kind = KindJSON
		return binary, true
	case deprecated.Bson:
		n.kind = KindBytes
		return binary, true
	case deprecated.Decimal:
		return n.setDecimal(e.Scale.V), true
	case deprecated.Date:
		n.kind, n.write = KindTime, appendDate
		return small, true
	case deprecated.TimeMillis:
		n.kind, n.write = KindTime, appendTimeOfDay(time.Millisecond)
		return small, true
	case deprecated.TimeMicros:
		n.kind, n.write = KindTime, appendTimeOfDay(time.Microsecond)
		return large, true
	case deprecated.TimestampMillis:
		n.kind, n.write = KindTime, appendTimestamp(time.Millisecond, true)
		return large, true
	case deprecated.TimestampMicros:
		n.kind, n.write = KindTime, appendTimestamp(time.Microsecond, true)
		return large, true
	case deprecated.Uint8, deprecated.Uint16, deprecated.Uint32:
		return n.setInteger(false, 32), true
	case deprecated.Uint64:
		return n.setInteger(false, 64), true
	case deprecated.Int8, deprecated.Int16, deprecated.Int32:
		return n.setInteger(true, 32), true
	case deprecated.Int64:
		return n.setInteger(true, 64), true
	case deprecated.Interval:
		n.kind, n.write = KindText, appendInterval
		if e.TypeLength.V != 12 {
			return nil, true
		}
		return []format.Type{format.FixedLenByteArray}, true
	}

	return nil, false
}

// setInteger sets the kind of integers.
func (n *parquetNode) setInteger(signed bool, width int8) []format.Type {
	n.kind = KindInt
	if !signed {
		n.kind = KindUint
	}

	if width == 64 {
		n.write = appendParquetInt64
		if !signed {
			n.write = appendParquetUint64
		}
		return []format.Type{format.Int64}
	}

	n.write = appendParquetInt32
	if !signed {
		n.write = appendParquetUint32
	}

	return []format.Type{format.Int32}
}

// maxDecimalScale is the largest number of digits behind the point of a decimal.
const maxDecimalScale = 1 << 12

// setDecimal sets the kind of decimals.
func (n *parquetNode) setDecimal(scale int32) []format.Type {
	n.kind = KindNumber

	if scale < 0 || scale > maxDecimalScale {
		return nil
	}

	switch n.element.Type.V {
	case format.Int32:
		n.write = appendDecimal32(int(scale))
	case format.Int64:
		n.write = appendDecimal64(int(scale))
	default:
		n.write = appendDecimalBytes(int(scale))
	}

	return []format.Type{format.Int32, format.Int64, format.ByteArray, format.FixedLenByteArray}
}

// unitOf returns a unit of time. One that is not known counts as nanoseconds.
func unitOf(unit format.TimeUnit) time.Duration {
	if unit.Value == nil {
		return time.Nanosecond
	}
	return unit.Value.Duration()
}
