package table

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/big"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/parquet-go/parquet-go"
)

// setScalar sets a value of a row from one of a leaf. Texts are appended to text, which is
// returned.
func (n *parquetNode) setScalar(dst *Value, v parquet.Value, text []byte) []byte {
	*dst = Value{}
	if v.IsNull() || n.kind == KindNull {
		return text
	}

	dst.Kind = n.kind

	switch n.kind {
	case KindText, KindNumber, KindTime, KindJSON, KindBytes:
		if n.write == nil {
			dst.Text = v.ByteArray()
			break
		}

		start := len(text)
		text = n.write(text, v)
		dst.Text = text[start:len(text):len(text)]
	case KindInt, KindUint:
		switch {
		case v.Kind() == parquet.Int64:
			dst.Bits = uint64(v.Int64())
		case n.kind == KindUint:
			dst.Bits = uint64(v.Uint32())
		default:
			dst.Bits = uint64(int64(v.Int32()))
		}
	case KindFloat:
		dst.Bits = math.Float64bits(v.Double())
	case KindFloat32:
		f := v.Float()
		if v.Kind() == parquet.FixedLenByteArray {
			f = float16(v.ByteArray())
		}
		dst.Bits = uint64(math.Float32bits(f))
	case KindBool:
		if v.Boolean() {
			dst.Bits = 1
		}
	}

	if n.kind == KindJSON && !jsontext.Value(dst.Text).IsValid() {
		dst.Kind = KindText // it says that it is JSON, and is not
	}

	return text
}

// appendLeafJSON appends a leaf's value as JSON.
func (n *parquetNode) appendLeafJSON(dst []byte, v parquet.Value) []byte {
	if v.IsNull() || n.kind == KindNull {
		return append(dst, "null"...)
	}

	switch n.kind {
	case KindInt, KindUint, KindNumber, KindBool:
		return n.write(dst, v)
	case KindFloat, KindFloat32:
		start := len(dst)
		dst = n.write(dst, v)
		if c := dst[len(dst)-1]; c < '0' || c > '9' { // JSON has no number for NaN and the infinities
			dst = append(slices.Insert(dst, start, '"'), '"')
		}
		return dst
	case KindTime:
		dst = append(dst, '"')
		return append(n.write(dst, v), '"')
	case KindBytes:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v.ByteArray())
		return append(dst, '"')
	case KindJSON:
		if value := jsontext.Value(v.ByteArray()); value.IsValid() {
			return append(dst, value...)
		}
	}

	if n.write != nil {
		dst = append(dst, '"')
		return append(n.write(dst, v), '"')
	}

	return appendJSONText(dst, v.ByteArray())
}

// appendJSONText appends a text as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendJSONText(dst, text []byte) []byte {
	dst, _ = jsontext.AppendQuote(dst, text) // the error is about invalid UTF-8 alone
	return dst
}

func appendParquetBool(dst []byte, v parquet.Value) []byte {
	return strconv.AppendBool(dst, v.Boolean())
}

func appendParquetInt32(dst []byte, v parquet.Value) []byte {
	return strconv.AppendInt(dst, int64(v.Int32()), 10)
}

func appendParquetInt64(dst []byte, v parquet.Value) []byte {
	return strconv.AppendInt(dst, v.Int64(), 10)
}

func appendParquetUint32(dst []byte, v parquet.Value) []byte {
	return strconv.AppendUint(dst, uint64(v.Uint32()), 10)
}

func appendParquetUint64(dst []byte, v parquet.Value) []byte {
	return strconv.AppendUint(dst, v.Uint64(), 10)
}

func appendParquetFloat(dst []byte, v parquet.Value) []byte {
	return appendFloat(dst, float64(v.Float()), 32)
}

func appendParquetDouble(dst []byte, v parquet.Value) []byte {
	return appendFloat(dst, v.Double(), 64)
}

func appendFloat16(dst []byte, v parquet.Value) []byte {
	return appendFloat(dst, float64(float16(v.ByteArray())), 32)
}

// appendFloat appends a number, or NaN, Infinity or -Infinity.
func appendFloat(dst []byte, f float64, size int) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, size)
}

// float16 returns the number of two bytes in IEEE 754's half precision.
func float16(b []byte) float32 {
	h := binary.LittleEndian.Uint16(b)
	sign := uint32(h>>15) << 31
	exponent := uint32(h>>10) & 0x1f
	fraction := uint32(h) & 0x3ff
	switch exponent {
	case 0x1f:
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	case 0:
		f := float32(fraction) / (1 << 24)
		if sign != 0 {
			f = -f
		}
		return f
	}

	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}

func appendUUID(dst []byte, v parquet.Value) []byte {
	b := v.ByteArray()
	for i, part := range [][]byte{b[0:4], b[4:6], b[6:8], b[8:10], b[10:16]} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, part)
	}

	return dst
}

// appendInterval appends months, days and milliseconds as a duration of ISO 8601: P1M2DT3.5S.
func appendInterval(dst []byte, v parquet.Value) []byte {
	b := v.ByteArray()
	months := binary.LittleEndian.Uint32(b[0:4])
	days := binary.LittleEndian.Uint32(b[4:8])
	millis := binary.LittleEndian.Uint32(b[8:12])

	dst = append(dst, 'P')
	dst = strconv.AppendUint(dst, uint64(months), 10)
	dst = append(dst, 'M')
	dst = strconv.AppendUint(dst, uint64(days), 10)
	dst = append(dst, "DT"...)
	dst = strconv.AppendFloat(dst, float64(millis)/1000, 'f', -1, 64)

	return append(dst, 'S')
}

func appendDecimal32(scale int) func([]byte, parquet.Value) []byte {
	return func(dst []byte, v parquet.Value) []byte {
		return appendPoint(dst, strconv.AppendInt(nil, int64(v.Int32()), 10), scale)
	}
}

func appendDecimal64(scale int) func([]byte, parquet.Value) []byte {
	return func(dst []byte, v parquet.Value) []byte {
		return appendPoint(dst, strconv.AppendInt(nil, v.Int64(), 10), scale)
	}
}

// appendDecimalBytes appends decimals whose digits are a big-endian integer in two's complement.
func appendDecimalBytes(scale int) func([]byte, parquet.Value) []byte {
	return func(dst []byte, v parquet.Value) []byte {
		b := v.ByteArray()
		if len(b) <= 8 {
			var n int64
			if len(b) > 0 && b[0] >= 0x80 {
				n = -1
			}

			for _, c := range b {
				n = n<<8 | int64(c)
			}

			return appendPoint(dst, strconv.AppendInt(nil, n, 10), scale)
		}

		n := new(big.Int).SetBytes(b)
		if b[0] >= 0x80 {
			n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
		}

		return appendPoint(dst, n.Append(nil, 10), scale)
	}
}

// appendPoint appends the digits of an integer with the point before the last scale of them.
func appendPoint(dst, digits []byte, scale int) []byte {
	if digits[0] == '-' {
		dst, digits = append(dst, '-'), digits[1:]
	}

	if scale == 0 {
		return append(dst, digits...)
	}

	if whole := len(digits) - scale; whole > 0 {
		dst, digits = append(dst, digits[:whole]...), digits[whole:]
	} else {
		dst = append(dst, '0')
	}

	dst = append(dst, '.')
	for range scale - len(digits) {
		dst = append(dst, '0')
	}

	return append(dst, digits...)
}

func appendDate(dst []byte, v parquet.Value) []byte {
	return time.Unix(int64(v.Int32())*86400, 0).UTC().AppendFormat(dst, time.DateOnly)
}

// appendTimeOfDay appends times of day. They have no zone: writers disagree on whether it is UTC.
func appendTimeOfDay(unit time.Duration) func([]byte, parquet.Value) []byte {
	return func(dst []byte, v parquet.Value) []byte {
		n := v.Int64()
		if v.Kind() == parquet.Int32 {
			n = int64(v.Int32())
		}
		return unixTime(n, unit).AppendFormat(dst, "15:04:05.999999999")
	}
}

// appendTimestamp appends times. Those that are not adjusted to UTC are local to some place,
// and have no zone.
func appendTimestamp(unit time.Duration, utc bool) func([]byte, parquet.Value) []byte {
	layout := "2006-01-02T15:04:05.999999999"
	if utc {
		layout += "Z"
	}
	return func(dst []byte, v parquet.Value) []byte {
		return unixTime(v.Int64(), unit).AppendFormat(dst, layout)
	}
}

// unixTime returns the time n units after the Unix epoch.
func unixTime(n int64, unit time.Duration) time.Time {
	perSecond := int64(time.Second / unit)
	seconds, rest := n/perSecond, n%perSecond
	if rest < 0 {
		seconds, rest = seconds-1, rest+perSecond
	}
	return time.Unix(seconds, rest*int64(unit)).UTC()
}

// appendInt96 appends the time of Spark, Hive and Impala before they had timestamps:
// nanoseconds of the day, and the Julian day. Spark and Hive mean UTC.
func appendInt96(dst []byte, v parquet.Value) []byte {
	const epoch = 2440588 // the Julian day of 1970-01-01

	i := v.Int96()
	nanos := int64(i[0]) | int64(i[1])<<32
	days := int64(int32(i[2])) - epoch
	t := time.Unix(days*86400+nanos/1e9, nanos%1e9).UTC()

	return t.AppendFormat(dst, "2006-01-02T15:04:05.999999999Z")
}
