package table

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestAppendUnescaped(t *testing.T) {
	t.Parallel()

	for raw, want := range map[string]string{
		`["Gr\u00fcn","x"]`:               `["Grün","x"]`,
		`{"\u00e4": "\ud83d\ude00 a\/b"}`: `{"ä": "😀 a/b"}`,
		`["\u0022\u005c\u0007\n\""]`:      `["\u0022\u005c\u0007\n\""]`,
		`["\ud83d","\ud83dx","\\u00fc"]`:  `["\ud83d","\ud83dx","\\u00fc"]`,
		`[1.50, {"a" : null}]`:            `[1.50, {"a" : null}]`,
		`["\ud83d\u00fc"]`:                `["\ud83dü"]`,
	} {
		if got := string(appendUnescaped(nil, []byte(raw))); got != want {
			t.Errorf("%s becomes %s, want %s", raw, got, want)
		}
	}
}

// A value without escapes is equal to the one with them.
func FuzzAppendUnescaped(f *testing.F) {
	f.Add([]byte(`["Gr\u00fcn\ud83d\ude00\/\\"]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var before, after any
		if json.Unmarshal(raw, &before) != nil {
			return
		}

		got := appendUnescaped(nil, raw)
		if err := json.Unmarshal(got, &after); err != nil || !reflect.DeepEqual(before, after) {
			t.Errorf("%q becomes %q, %v", raw, got, err)
		}
	})
}
