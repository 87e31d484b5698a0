package jsonscan

import (
	"bytes"
	"testing"
)

func TestCanonical(t *testing.T) {
	t.Parallel()

	for value, want := range map[string]string{
		` {"b" : 1.0, "a": [true, null,1e2]} `: `{"a":[true,null,100],"b":1}`,
		`"\u0061\/ü"`:                          `"a/ü"`,
		`9007199254740993`:                     `9007199254740993`,
		`{"a":{"d":-0,"c":0.10}}`:              `{"a":{"c":0.1,"d":0}}`,
		`{"a":1,"a":2}`:                        "",
		`{"a":1} x`:                            "",
		`{`:                                    "",
		``:                                     "",
	} {
		text := []byte(value)
		got, err := Canonical(text)
		if string(got) != want || (err == nil) != (want != "") || string(text) != value {
			t.Errorf("%s: %s, %v, want %s", value, got, err, want)
		}
	}
}

// FuzzCanonical ensures that a canonical value is its own canonical form.
func FuzzCanonical(f *testing.F) {
	f.Add([]byte(`{"b":[1.50,"\ud83d\ude00"],"a":-0}`))
	f.Add([]byte(`"\ud800"`))
	f.Fuzz(func(t *testing.T, value []byte) {
		once, err := Canonical(value)
		if err != nil {
			return
		}

		if twice, err := Canonical(once); err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%s: %s, and then %s (%v)", value, once, twice, err)
		}
	})
}
