package sample

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/table"
)

// lineOf returns a request with a line.
func lineOf(text string) producer.Original { return producer.Original{Text: []byte(text)} }

func TestExpectedFields(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ text, name, want string }{
		{`{"label":"spam"}`, "label", `"spam"`},
		{`{"label":""}`, "label", `""`},
		{`{"label":"ab"}`, "label", `"ab"`},
		{`{"label":"null"}`, "label", `"null"`},
		{`{"label":null}`, "label", `null`},
		{`{"lab":1}`, "label", `null`},
		{`{"label":1.50e1}`, "label", `"1.50e1"`},
		{`{"label":false}`, "label", `"false"`},
		{`{"label":["a", 1]}`, "label", `"[\"a\", 1]"`},
		{`{"label":{"a":1}}`, "label", `"{\"a\":1}"`},
		{`{"label":"\u00e9\n\ud83d"}`, "label", "\"é\\n\ufffd\""},
		{`{"l\u0061bel":1}`, "label", `"1"`},
		{`{"body":{"metadata":{"answer":"x"}}}`, "body.metadata.answer", `"x"`},
		{`{"metadata":{"answer":null}}`, "metadata.answer", `null`},
		{`{"metadata":[{"answer":1}]}`, "metadata.answer", `null`},
		{`{"metadata":"answer"}`, "metadata.answer", `null`},
		{`{"a.b":1,"a":{"b":2}}`, "a.b", `"1"`},
		{`{"a":{"b":2},"a.b":1}`, "a.b", `"1"`},
		{`{"a.b":{"c":3},"a":{"x":2}}`, "a.b.c", `"3"`},
		{`{"a":1,"a":2}`, "a", `"2"`},
		{`{"a":{"b":1},"a":{"c":2}}`, "a.b", `"1"`},
		{`{"":{"":4}}`, ".", `"4"`},
	} {
		var f fieldFinder
		got, known := f.appendExpected(nil, tt.name, lineOf(tt.text))
		if string(got) != tt.want || known != (tt.want != "null") {
			t.Errorf("%s of %s is %s (%v), want %s", tt.name, tt.text, got, known, tt.want)
		}
	}
}

func TestExpectedCells(t *testing.T) {
	t.Parallel()

	columns := []table.Column{{Name: "a"}, {Name: "b"}}
	for _, tt := range []struct {
		value table.Value
		want  string
	}{
		{table.Value{Kind: table.KindText, Text: []byte(`say "x"`)}, `"say \"x\""`},
		{table.Value{Kind: table.KindText}, `""`},
		{table.Value{}, `null`},
		{table.Value{Kind: table.KindInt, Bits: 7}, `"7"`},
		{table.Value{Kind: table.KindBool, Bits: 1}, `"true"`},
		{table.Value{Kind: table.KindNumber, Text: []byte("1.50")}, `"1.50"`},
		{table.Value{Kind: table.KindJSON, Text: []byte(`["x"]`)}, `"[\"x\"]"`},
	} {
		var f fieldFinder
		row := table.Row{Columns: columns, Values: []table.Value{{}, tt.value}}
		got, known := f.appendExpected(nil, "b", producer.Original{Row: row})
		if string(got) != tt.want || known != (tt.want != "null") {
			t.Errorf("%+v is expected as %s (%v), want %s", tt.value, got, known, tt.want)
		}
	}
}

func TestListFields(t *testing.T) {
	t.Parallel()

	text := `{"custom_id":"a","body":{"messages":[{"role":"user"}],"metadata":{"answer":1,"empty":{}}},"a":{"b":{"c":{"d":{"e":1}}}}}`
	want := "custom_id body.messages body.metadata.answer a.b.c.d"
	if got := strings.Join(new(fieldFinder).listFields([]byte(text)), " "); got != want {
		t.Errorf("the fields are %s, want %s", got, want)
	}
}

// The expected answer of any line is one line of JSON: a text, or null. A member on the highest level is found as
// encoding/json finds it.
func FuzzExpected(f *testing.F) {
	f.Add(`{"label":"spam","body":{"metadata":{"answer":1}}}`, "label")
	f.Add(`{"label":"spam","body":{"metadata":{"answer":[1,{"a":null}]}}}`, "body.metadata.answer")
	f.Add(`{"a":"\ud83d","a":{"b":2}`, "a.b")
	f.Add(`[{"a":1}]`, "a")
	f.Fuzz(func(t *testing.T, text, name string) {
		if !utf8.ValidString(name) {
			return
		}

		var finder fieldFinder
		got, known := finder.appendExpected(nil, name, lineOf(text))

		var answer *string
		if err := json.Unmarshal(got, &answer); err != nil || strings.ContainsAny(string(got), "\r\n") {
			t.Fatalf("%q is no line of JSON: %v", got, err)
		}
		if known != (answer != nil) {
			t.Fatalf("%s is known: %v", got, known)
		}

		var members map[string]json.RawMessage
		if json.Unmarshal([]byte(text), &members) != nil || !utf8.ValidString(text) || strings.Contains(name, ".") {
			return
		}

		want, isThere := members[name]
		if known != (isThere && string(want) != "null") {
			t.Fatalf("%s of %s is %s, and encoding/json finds %s", name, text, got, want)
		}

		if known && *answer != textOf(t, want) {
			t.Errorf("%s of %s is %q, and encoding/json finds %s", name, text, *answer, want)
		}
	})
}

// textOf returns the text of a JSON string, and any other value as it is.
func textOf(t *testing.T, raw json.RawMessage) string {
	t.Helper()

	if raw[0] != '"' {
		return string(raw)
	}

	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		t.Fatal(err)
	}

	return text
}
