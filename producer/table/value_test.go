package table

import (
	"math"
	"testing"
)

// NaN and the infinities have one form in text, and the same one as a string in JSON.
func TestValueNotFinite(t *testing.T) {
	t.Parallel()

	for want, f := range map[string]float64{
		"NaN":       math.NaN(),
		"Infinity":  math.Inf(1),
		"-Infinity": math.Inf(-1),
	} {
		for _, v := range []Value{
			{Kind: KindFloat, Bits: math.Float64bits(f)},
			{Kind: KindFloat32, Bits: uint64(math.Float32bits(float32(f)))},
		} {
			if got := string(v.AppendText(nil)); got != want {
				t.Errorf("text %s, want %s", got, want)
			}
			if got := string(v.AppendJSON(nil)); got != `"`+want+`"` {
				t.Errorf("JSON %s, want %q", got, want)
			}
		}
	}
}
