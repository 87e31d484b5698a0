package table

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

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

// IsEmpty reports whether there is no value, or only white space.
func (v Value) IsEmpty() bool {
	switch v.Kind {
	case KindNull:
		return true
	case KindText:
		return len(bytes.TrimSpace(v.Text)) == 0
	case KindBytes:
		return len(v.Text) == 0
	}

	return false
}

// AppendText appends the value as a template prints it: text and JSON as they are, numbers in their
// shortest decimal form, or NaN, Infinity and -Infinity, bytes that are not UTF-8 in base64, and nothing for null.
func (v Value) AppendText(dst []byte) []byte {
	switch v.Kind {
	case KindText, KindNumber, KindTime, KindJSON:
		return append(dst, v.Text...)
	case KindBytes:
		if utf8.Valid(v.Text) {
			return append(dst, v.Text...)
		}
		return base64.StdEncoding.AppendEncode(dst, v.Text)
	case KindInt:
		return strconv.AppendInt(dst, int64(v.Bits), 10)
	case KindUint:
		return strconv.AppendUint(dst, v.Bits, 10)
	case KindFloat:
		return appendShortest(dst, v.float(), 64)
	case KindFloat32:
		return appendShortest(dst, v.float(), 32)
	case KindBool:
		return strconv.AppendBool(dst, v.Bits != 0)
	}

	return dst
}

// AppendJSON appends the value as JSON. Bytes are a string of base64, times are strings, and so are NaN,
// Infinity and -Infinity, which JSON does not have as numbers, also in a list or an object.
func (v Value) AppendJSON(dst []byte) []byte {
	switch v.Kind {
	case KindNull:
		return append(dst, "null"...)
	case KindText, KindTime:
		return appendQuoted(dst, v.Text)
	case KindBytes:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v.Text)
		return append(dst, '"')
	case KindNumber:
		if jsontext.Value(v.Text).Kind() != '0' || !jsontext.Value(v.Text).IsValid() {
			return appendQuoted(dst, v.Text)
		}
	case KindFloat, KindFloat32:
		if f := v.float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return append(appendShortest(append(dst, '"'), f, 64), '"')
		}
	}

	return v.AppendText(dst)
}

// Any returns the value as a template of text/template takes it: a string, an int64, a uint64,
// a float64, a bool, a [json.Number] for digits, a []any or a map[string]any for JSON, or nil.
// Bytes are the string that [Value.AppendText] appends.
func (v Value) Any() any {
	switch v.Kind {
	case KindNull:
		return nil
	case KindInt:
		return int64(v.Bits)
	case KindUint:
		return v.Bits
	case KindFloat, KindFloat32:
		return v.float()
	case KindBool:
		return v.Bits != 0
	case KindNumber:
		return json.Number(v.Text)
	case KindJSON:
		if value, ok := decodeJSON(v.Text); ok {
			return value
		}
	}

	return string(v.AppendText(nil))
}

// float returns the number of a [KindFloat] or [KindFloat32]. The latter is the nearest to the
// shortest decimal form, so that 0.1 stays 0.1.
func (v Value) float() float64 {
	if v.Kind == KindFloat {
		return math.Float64frombits(v.Bits)
	}

	f := float64(math.Float32frombits(uint32(v.Bits)))
	if short, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', -1, 32), 64); err == nil {
		return short
	}

	return f
}

// appendShortest appends the shortest decimal form of a number, with an exponent only if it is
// very large or very small, as JavaScript and encoding/json have it.
func appendShortest(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}

	format := byte('f')
	if size := math.Abs(f); size != 0 && (size < 1e-6 || size >= 1e21) {
		format = 'e'
	}

	return strconv.AppendFloat(dst, f, format, -1, bits)
}

// appendQuoted appends a text as a JSON string.
func appendQuoted(dst, text []byte) []byte {
	dst, _ = jsontext.AppendQuote(dst, text) // its only error is invalid UTF-8, which it has replaced
	return dst
}

// decodeJSON returns the value of a JSON text. Its numbers keep their digits.
func decodeJSON(text []byte) (value any, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	err := dec.Decode(&value)

	return value, err == nil
}
