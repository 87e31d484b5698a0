package jsonscan

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
)

// walk lists the members of the object and of the objects in its members, as
// "outer.inner=value".
func walk(s *Scanner, text []byte) ([]string, error) {
	var got []string
	s.Reset(text)

	for s.Enter(); s.Next(); {
		outer := string(s.Name())
		if s.Kind() != '{' {
			got = append(got, outer+"="+string(s.Value()))
			continue
		}

		for s.Enter(); s.Next(); {
			inner := string(s.Name())
			got = append(got, outer+"."+inner+"="+string(s.Value()))
		}
	}

	return got, s.End()
}

func TestScannerWalk(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"an empty object has no members", ` {} `, nil},
		{"objects in objects", `{"a":{"b":1,"c":{"d":2}},"e":3}`, []string{"a.b=1", `a.c={"d":2}`, "e=3"}},
		{"an empty inner object does not end the outer", `{"a":{},"b":1}`, []string{"b=1"}},
		{"duplicate names pass", `{"a":1,"a":2}`, []string{"a=1", "a=2"}},
		{"big integers stay", `{"a":12345678901234567890123}`, []string{"a=12345678901234567890123"}},
		{"numbers are not rewritten", `{"a":1.50E+02,"b":-0}`, []string{"a=1.50E+02", "b=-0"}},
		{"escapes in values stay", `{"a":"\u0000\/\u00e9é"}`, []string{`a="\u0000\/\u00e9é"`}},
		{"half a surrogate pair stays", `{"a":"cut \ud83d","b":"\udc4b\ud83d\ud83d\udc4b"}`,
			[]string{`a="cut \ud83d"`, `b="\udc4b\ud83d\ud83d\udc4b"`}},
		{"half a surrogate pair in a name", `{"\uD83D":1}`, []string{"\ufffd=1"}},
		{"numbers of any size", `{"a":1e400,"b":-0.0E-7,"c":1E5}`, []string{"a=1e400", "b=-0.0E-7", "c=1E5"}},
		{"escapes in names are resolved", `{"\u0061\"":1}`, []string{`a"=1`}},
		{"odd spacing stays inside values", "{ \"a\" :\t[ 1 ,\t2 ] , \"b\":null}\r\n",
			[]string{"a=[ 1 ,\t2 ]", "b=null"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got, err := walk(new(Scanner), []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}

			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("members (-want +got):\n%s", diff)
			}
		})
	}
}

// walkAll lists every value that is no object and no array, with the way to it.
func walkAll(s *Scanner, text []byte) (got []string, err error) {
	var value func(path string)
	value = func(path string) {
		switch s.Kind() {
		case '{':
			for s.Enter(); s.Next(); {
				value(path + "." + string(s.Name()))
			}
		case '[':
			i := 0
			for s.EnterArray(); s.NextElement(); i++ {
				value(path + "." + strconv.Itoa(i))
			}
		default:
			got = append(got, path+"="+string(s.Value()))
		}
	}

	s.Reset(text)
	for s.Enter(); s.Next(); {
		value(string(s.Name()))
	}

	return got, s.End()
}

func TestScannerArrays(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"elements of all kinds", `{"a":[1,"x",null,true,{"b":2}]}`,
			[]string{"a.0=1", `a.1="x"`, "a.2=null", "a.3=true", "a.4.b=2"}},
		{"an empty array does not end the object", `{"a":[],"b":1}`, []string{"b=1"}},
		{"arrays in arrays", `{"a":[[1,[]],[[2]],3]}`, []string{"a.0.0=1", "a.1.0.0=2", "a.2=3"}},
		{"an empty object in an array", `{"a":[{},1]}`, []string{"a.1=1"}},
		{"odd spacing", "{\"a\" : [ 1 ,\t{ \"b\" : 2 } ] }", []string{"a.0=1", "a.1.b=2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got, err := walkAll(new(Scanner), []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}

			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("values (-want +got):\n%s", diff)
			}
		})
	}
}

// Elements that are not read are skipped, and the members after the array are found.
func TestScannerSkipsElements(t *testing.T) {
	t.Parallel()

	var s Scanner
	text := []byte(`{"a":[{"b":[1,2]},3],"c":4}`)
	s.Reset(text)

	elements, rest := 0, ""
	for s.Enter(); s.Next(); {
		if string(s.Name()) != "a" {
			rest += string(s.Name()) + "=" + string(s.Value())
			continue
		}

		if at := s.EnterArray(); at != bytes.IndexByte(text, '[') {
			t.Errorf("the bracket is at %d", at)
		}

		for s.NextElement() {
			elements++
		}
	}

	if err := s.End(); err != nil || elements != 2 || rest != "c=4" {
		t.Errorf("%d elements and %s behind them (%v)", elements, rest, err)
	}
}

func TestScannerArrayErrors(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, text, want string
		elements         int // that are given out before the fault
	}{
		{"not an array", `{"a":{"b":1}}`, "not a JSON array", 0},
		{"cut behind the bracket", `{"a":[`, "JSON ends in the middle (after 6 bytes)", 0},
		{"cut behind an element", `{"a":[1`, "JSON ends in the middle (after 7 bytes)", 1},
		{"cut behind a comma", `{"a":[1,`, "JSON ends in the middle (after 8 bytes)", 1},
		{"a comma before the end", `{"a":[1,]}`, "broken JSON at byte ", 1},
		{"no comma", `{"a":[1 2]}`, "broken JSON at byte ", 1},
		{"the wrong bracket", `{"a":[1}`, "broken JSON at byte ", 1},
		{"no element at all", `{"a":[,]}`, "broken JSON at byte ", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var s Scanner
			s.Reset([]byte(tt.text))

			elements := 0
			for s.Enter(); s.Next(); {
				for s.EnterArray(); s.NextElement(); {
					elements++
				}
			}

			if err := s.End(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v; want %q", err, tt.want)
			}

			if elements != tt.elements {
				t.Errorf("%d elements before the fault, want %d", elements, tt.elements)
			}
		})
	}
}

func TestScannerSkipsUnread(t *testing.T) {
	t.Parallel()

	var s Scanner
	s.Reset([]byte(`{"a":{"b":[1,{"c":2}]},"d":"x","e":3}`))

	var names []string
	for s.Enter(); s.Next(); {
		names = append(names, string(s.Name()))
	}

	if err := s.End(); err != nil {
		t.Fatal(err)
	}

	if diff := cmp.Diff([]string{"a", "d", "e"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestScannerErrors(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, text, want string }{
		{"nothing at all", ``, "JSON ends in the middle (after 0 bytes)"},
		{"cut in a value", `{"a":"xy`, "JSON ends in the middle (after 8 bytes)"},
		{"cut behind a member", `{"a":1`, "JSON ends in the middle (after 6 bytes)"},
		{"cut in an inner object", `{"a":{"b":1}`, "JSON ends in the middle (after 12 bytes)"},
		{"text behind the object", `{"a":1} x`, "text after the JSON object at byte 9"},
		{"a second object", `{}{}`, "text after the JSON object at byte 3"},
		{"not an object", `[1]`, "not a JSON object"},
		{"a bare word", `{"a":nul}`, "broken JSON at byte 9: "},
		{"a comma before the end", `{"a":1,}`, "broken JSON at byte "},
		{"a name without a value", `{"a"}`, "broken JSON at byte 5: "},
		{"a number as a name", `{1:2}`, "broken JSON at byte "},
		{"invalid UTF-8 in a value", "{\"a\":\"\xff\"}", "broken JSON at byte 7: invalid UTF-8"},
		{"invalid UTF-8 in a name", "{\"\xff\":1}", "broken JSON at byte 3: invalid UTF-8"},
		{"invalid UTF-8 beside an escape", "{\"a\":\"\\ud83d\\u00e9é\",\"b\":\"\xff\"}",
			"broken JSON at byte 28: invalid UTF-8"},
		{"half a surrogate pair in UTF-8", "{\"a\":\"\\u0061\xed\xa0\x80\"}", "broken JSON at byte 13: invalid UTF-8"},
		{"no number", `{"a":NaN}`, "broken JSON at byte 6: "},
		{"a number that is infinite", `{"a":-Infinity}`, "broken JSON at byte "},
		{"a malformed escape", `{"a":"\ud83"}`, "broken JSON at byte "},
		{"invalid UTF-8 in a skipped value", "{\"skipped\":{\"x\":[\"\xc3\x28\"]}}", "invalid UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := walk(new(Scanner), []byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v; want %q", err, tt.want)
			}
		})
	}
}

// A scanner that saw an error must be as good as new after Reset.
func TestScannerReset(t *testing.T) {
	t.Parallel()

	var s Scanner
	if _, err := walk(&s, []byte(`{"a":{"b"`)); err == nil {
		t.Fatal("no error for broken JSON")
	}

	got, err := walk(&s, []byte(`{"c":1}`))
	if err != nil {
		t.Fatal(err)
	}

	if diff := cmp.Diff([]string{"c=1"}, got); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
}

// Values are parts of the input, and the input's neighbours in memory stay as they
// are.
func TestScannerPlaces(t *testing.T) {
	t.Parallel()

	buffer := []byte(`{ "a" : {"b":1} , "c":"x"}NEIGHBOUR`)
	text := buffer[:bytes.IndexByte(buffer, 'N')]
	var s Scanner
	s.Reset(text)
	if at := s.Enter(); at != 0 {
		t.Errorf("the outer brace is at %d", at)
	}

	if !s.Next() {
		t.Fatal(s.End())
	}

	start := s.Enter()
	for s.Next() {
		if v := s.Value(); &v[0] != &text[bytes.IndexByte(text, '1')] {
			t.Error("the value is a copy")
		}
	}

	if got := string(text[start:s.Offset()]); got != `{"b":1}` {
		t.Errorf("the inner object is %q", got)
	}

	if !s.Next() {
		t.Fatal(s.End())
	}

	s.Value()
	if got := string(s.Member()); got != `"c":"x"` {
		t.Errorf("the member is %q", got)
	}

	if s.Next() || s.End() != nil {
		t.Errorf("the object does not end: %v", s.End())
	}

	if !bytes.HasSuffix(buffer, []byte("}NEIGHBOUR")) {
		t.Errorf("the scanner wrote behind its input: %q", buffer)
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()

	for _, text := range []string{"", "plain", "with \"quotes\"\nand lines", "\x00\u2028é"} {
		got, err := Unquote(Quote(text))
		if err != nil || string(got) != text {
			t.Errorf("%q comes back as %q, %v", text, got, err)
		}
	}

	if got := string(Quote("a\xffb")); got != "\"a\ufffdb\"" {
		t.Errorf("invalid UTF-8 is quoted as %s", got)
	}

	for _, raw := range []string{"", `"`, "5", "null"} {
		if got, err := Unquote([]byte(raw)); err == nil {
			t.Errorf("Unquote(%s) = %q", raw, got)
		}
	}
}

func TestUnquoteHalfPairs(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ raw, want string }{
		{`"cut \ud83d"`, "cut \ufffd"},
		{`"\udc4b\ud83d\ud83d\udc4b!"`, "\ufffd\ufffd\U0001F44B!"},
		{`"\ud83d\u0061"`, "\ufffda"},
	} {
		if got := string(Text([]byte(tt.raw))); got != tt.want {
			t.Errorf("the text of %s is %q, want %q", tt.raw, got, tt.want)
		}
		if got, err := Unquote([]byte(tt.raw)); err == nil {
			t.Errorf("Unquote(%s) = %q: other names would be the same", tt.raw, got)
		}
	}

	for _, raw := range []string{"", `"`, "5", "null", `["a"]`} {
		if got := Text([]byte(raw)); got != nil {
			t.Errorf("the text of %s is %q", raw, got)
		}
	}
}

func FuzzScanner(f *testing.F) {
	for _, s := range []string{
		``, `{}`, ` {"a":{"b":[1,2]},"a":"\u0000"} `, `{"a":12345678901234567890123}`, `{"a":1,}`, `{"a"}`,
		`[{}]`, `{"a":1}x`, "{\"\xff\":1}", `{"a":"\ud800"}`, `{"a":{"b":`, "\xef\xbb\xbf{}",
		`{"a":[[],[{"b":[1,"x"]}]],"c":[}`, `{"a":[1,]}`, `{"a":[1 2`,
		`{"\ud83d":"\udc4b\uD83D\n"}`, "{\"a\":\"\\ud83d\",\"\xff\":1}", `{"a":"\ud83"}`,
		"{\"a\":\"\\u0061\xed\xa0\x80\"}",
	} {
		f.Add([]byte(s))
	}

	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		var s Scanner
		_, err := walk(&s, text)
		if !bytes.Equal(before, text) {
			t.Fatalf("the scanner changed its input %q", before)
		}

		isObject := bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{"))
		// RFC 8259: the text is UTF-8 (8.1), and an escape may be half a surrogate pair (8.2).
		valid := isObject && utf8.Valid(text) &&
			jsontext.Value(text).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		if valid != (err == nil) {
			t.Fatalf("%q: valid is %v, the scanner says %v", text, valid, err)
		}

		if _, allErr := walkAll(&s, text); (allErr == nil) != valid {
			t.Fatalf("%q: valid is %v, looking at all says %v", text, valid, allErr)
		}

		if !bytes.Equal(before, text) {
			t.Fatalf("the scanner changed its input %q", before)
		}

		// Skipping must find the same faults as looking.
		s.Reset(text)
		for s.Enter(); s.Next(); {
		}

		if skipErr := s.End(); (skipErr == nil) != valid {
			t.Fatalf("%q: valid is %v, skipping says %v", text, valid, skipErr)
		}
	})
}
