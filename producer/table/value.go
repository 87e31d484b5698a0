package table

// Kind is the kind of a [Value].
type Kind uint8

// The kinds of values.
const (
	// KindNull is no value.
	KindNull Kind = iota
	// KindText is text in UTF-8.
	KindText
	// KindBytes are bytes that need not be text, such as an image.
	KindBytes
	// KindInt is an integer of 64 bits, KindUint one without a sign.
	KindInt
	KindUint
	// KindFloat is a floating-point number of 64 bits, KindFloat32 one of 32.
	KindFloat
	KindFloat32
	// KindBool is true or false.
	KindBool
	// KindNumber is a number in decimal digits of any length, such as one of JSON or a decimal.
	KindNumber
	// KindTime is a date or a time, as a text of RFC 3339 or a part of one.
	KindTime
	// KindJSON is a list or an object, as JSON text.
	KindJSON
)

// Value is a value of a row. Texts are valid as long as their row.
type Value struct {
	// Kind is the kind of the value.
	Kind Kind
	// Text has the text, the bytes, the digits or the JSON text.
	Text []byte
	// Bits has the integer, the bits of the number, or 1 for true.
	Bits uint64
	// Parquet is the column of a Parquet file that has the value with its exact type, else nil.
	Parquet *ParquetColumn
}

// IsNull reports whether there is no value.
func (v Value) IsNull() bool { return v.Kind == KindNull }
