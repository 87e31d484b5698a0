package export

import (
	"math"
	"strconv"

	"github.com/promptmill/promptmill/producer/table"
)

// convert returns a value as one of a kind. It is null if the kind cannot have it.
func convert(v table.Value, kind table.Kind) table.Value {
	switch {
	case v.Kind == table.KindNull || v.Kind == kind:
		return v
	case kind == table.KindText || kind == table.KindNumber && v.Kind != table.KindText:
		return table.Value{Kind: kind, Text: v.AppendText(nil)}
	case kind == table.KindJSON:
		return table.Value{Kind: kind, Text: v.AppendJSON(nil)}
	case v.Kind == table.KindNumber && kind == table.KindInt:
		return parseInt(v.Text)
	case kind == table.KindFloat:
		f, err := strconv.ParseFloat(string(v.AppendText(nil)), 64)
		if err == nil {
			return table.Value{Kind: kind, Bits: math.Float64bits(f)}
		}
	}

	return table.Value{}
}

// parseInt returns a JSON number as an integer, such as 1, 1.0 and 1e2.
func parseInt(digits []byte) table.Value {
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err == nil {
		return intValue(n)
	}

	f, err := strconv.ParseFloat(string(digits), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return table.Value{}
	}

	return intValue(int64(f))
}
