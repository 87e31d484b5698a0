package schema

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

const person = `{
	"type": "object",
	"properties": {
		"name": {"type": "string", "minLength": 1, "pattern": "^[A-Z]"},
		"age": {"type": "integer", "minimum": 0, "maximum": 150},
		"friends": {"type": "array", "items": {"$ref": "#/$defs/friend"}, "uniqueItems": true},
		"mood": {"enum": ["good", "bad", null]},
		"kind": {"const": {"a": [null]}},
		"pet": {"anyOf": [{"type": "null"}, {"type": "object", "required": ["species"]}]}
	},
	"required": ["name", "age"],
	"additionalProperties": false,
	"propertyNames": {"maxLength": 400},
	"$defs": {"friend": {"type": "object", "properties": {"since": {"type": "integer", "multipleOf": 1}}}}
}`

func mustSchema(t testing.TB, text string) *Schema {
	t.Helper()
	s, err := Compile([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCheck(t *testing.T) {
	t.Parallel()

	s := mustSchema(t, person)
	for _, tt := range []struct{ name, text, want string }{
		{"a match", `{"name":"Ada","age":36,"friends":[{"since":1833}],"mood":null,"pet":null}`, ""},
		{"white space around it", "\n\t {\"name\":\"Ada\",\"age\":36}\r\n ", ""},
		{"a whole number may be written with a fraction", `{"name":"Ada","age":36.0}`, ""},

		{"a wrong type", `{"name":"Ada","age":"36"}`, "/age: got string, want integer"},
		{"a wrong type deep inside", `{"name":"Ada","age":36,"friends":[{},{"since":true}]}`,
			"/friends/1/since: got boolean, want integer"},
		{"a wrong type of all", `["Ada"]`, "/: got array, want object"},
		{"a member that is not there", `{"name":"Ada"}`, "/: missing property 'age'"},
		{"a member too many", `{"name":"Ada","age":36,"x":1}`, "/: additional properties 'x' not allowed"},
		{"a value out of the list", `{"name":"Ada","age":36,"mood":"so so"}`,
			`/mood: must be one of ["good","bad",null]`},
		{"a number too small", `{"name":"Ada","age":-1}`, "/age: minimum: got -1, want 0"},
		{"a text without its pattern", `{"name":"ada","age":36}`, "/name: 'ada' does not match pattern '^[A-Z]'"},
		{"several, in order", `{"pet":null,"name":"","age":"x"}`,
			"/age: got string, want integer; /name: '' does not match pattern '^[A-Z]'; /name: minLength: got 0, want 1"},
		{"none of several", `{"name":"Ada","age":36,"pet":{"name":"Rex"}}`,
			"(/pet: got object, want null or /pet: missing property 'species')"},
		{"a value other than the only one", `{"name":"Ada","age":36,"kind":1}`, `/kind: must be {"a":[null]}`},
		{"items that are equal", `{"name":"Ada","age":36,"friends":[{},{}]}`, "/friends: items at 0 and 1 are equal"},

		{"no text", " \n", "the answer is not JSON: there is no text"},
		{"prose", "Here you are: {}", `the answer is not JSON: it begins with Here you are: {}`},
		{"a fence", "```json\n{\"name\":\"Ada\",\"age\":36}\n```",
			"the answer is not JSON: it begins with ```json {\"name\":\"Ada\",\"a"},
		{"a text that was cut", `{"name":"Ada","age":3`, "the answer is not JSON: it ends in the middle"},
		{"two values", `{"name":"Ada","age":36} {}`, `the answer is not JSON: more text comes after its end: {}`},
		{"a name without quotes", `{"name":"Ada",age:36}`, `the answer is not JSON: at byte 15, near age:36}`},
		{"a number whose digits would fill the memory", `{"name":"Ada","age":1e99999999}`,
			"/age: number 1e99999999 is out of range"},
		{"a number next to zero", `{"name":"Ada","age":1E-99999999999999999999}`,
			"/age: number 1E-99999999999999999999 is out of range"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got := ""
			if err := s.Check([]byte(tt.text)); err != nil {
				got = err.Error()
			}

			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestCheckIsShort(t *testing.T) {
	t.Parallel()

	s := mustSchema(t, person)
	for _, text := range []string{
		`{"name":"` + strings.Repeat("é", 400) + `","age":36}`,
		`{"name":"Ada","age":36,"` + strings.Repeat("ü", 450) + `":1}`,
		`{"name":"a\nb\u2028c` + strings.Repeat("\U0001F44B", 99) + `","age":36}`,
		strings.Repeat("[", 20000),
	} {
		err := s.Check([]byte(text))
		if err == nil {
			t.Fatalf("matches: %.50s", text)
		}

		if got := err.Error(); len(got) > 300 || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\u2028") {
			t.Errorf("%d bytes: %q", len(got), got)
		}
	}
}

func TestCheckAtTheSameTime(t *testing.T) {
	t.Parallel()

	s := mustSchema(t, person)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if err := s.Check([]byte(`{"name":"Ada","age":36,"friends":[{"since":1}]}`)); err != nil {
					t.Error(err)
				}
				if s.Check([]byte(`{"name":"Ada","pet":1}`)) == nil {
					t.Error("it matches")
				}
			}
		})
	}

	wg.Wait()
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, text, want string }{
		{"nothing", ``, "read the JSON Schema: it is not JSON: there is no text"},
		{"a text that is not JSON", `{type: object}`, `read the JSON Schema: it is not JSON: at byte 2, near type: object}`},
		{"a value that is no schema", `5`, "compile the JSON Schema: /: got number, want "},
		{"a type that is none", `{"properties":{"a":{"type":"int"}}}`,
			"compile the JSON Schema: (/properties/a/type: "},
		{"a pattern that Go does not know", `{"pattern":"(?=a)"}`, "compile the JSON Schema: /pattern: "},
		{"a reference to nowhere", `{"$ref":"#/$defs/a"}`,
			"compile the JSON Schema: it refers to #/$defs/a, which is not in it"},
		{"a reference to a file", `{"$ref":"other.json"}`, "compile the JSON Schema: it refers to other.json: a schema may only"},
		{"an unknown draft", `{"$schema":"https://example.invalid/schema"}`,
			"compile the JSON Schema: it refers to https://example.invalid/schema: a schema may only refer to itself"},
		{"a bound out of range", `{"maximum":1e9999999}`,
			"read the JSON Schema: /maximum: number 1e9999999 is out of range"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Compile([]byte(tt.text))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
}

func TestCompileFetchesNothing(t *testing.T) {
	t.Parallel()

	asked := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.URL.Path:
		default:
		}
	}))
	defer server.Close()

	file := filepath.Join(t.TempDir(), "other.json")
	if err := os.WriteFile(file, []byte(`{"type":"string"}`), 0o600); err != nil {
		t.Fatal(err)
	}

	for _, ref := range []string{
		server.URL + "/other.json", "file://" + file, file, "other.json", "//example.invalid/a",
	} {
		_, err := Compile([]byte(`{"properties":{"a":{"$ref":"` + ref + `"}}}`))
		if err == nil || !strings.Contains(err.Error(), "may only refer to itself") {
			t.Errorf("%s: error %v", ref, err)
		}
	}

	select {
	case path := <-asked:
		t.Errorf("%s was fetched", path)
	default:
	}
}

func TestCompileKnowsTheDrafts(t *testing.T) {
	t.Parallel()

	for _, draft := range []string{
		"http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#",
		"https://json-schema.org/draft/2019-09/schema", "https://json-schema.org/draft/2020-12/schema",
	} {
		s := mustSchema(t, `{"$schema":"`+draft+`","type":"object","properties":{"schema":{"$ref":"`+draft+`"}}}`)
		if err := s.Check([]byte(`{"schema":{"type":"string"}}`)); err != nil {
			t.Errorf("%s: %v", draft, err)
		}

		if s.Check([]byte(`{"schema":{"type":"text"}}`)) == nil {
			t.Errorf("%s: a wrong schema matches", draft)
		}
	}
}

func FuzzCheck(f *testing.F) {
	s := mustSchema(f, person)
	for _, text := range []string{
		`{"name":"Ada","age":36}`, `{"name":"","age":1e400,"friends":[{},{}]}`, "```json\n{}\n```", `[`,
		`{"age":-0.0}`, `{"\u0000":1}`,
	} {
		f.Add([]byte(text))
	}

	f.Fuzz(func(t *testing.T, text []byte) {
		err := s.Check(text)
		if err == nil {
			return
		}

		if got := err.Error(); got == "" || len(got) > 300 || !utf8.ValidString(got) ||
			strings.ContainsAny(got, "\n\r") {
			t.Errorf("%d bytes: %q", len(got), got)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	s := mustSchema(b, person)
	text := []byte(`{"name":"Ada","age":36,"friends":[{"since":1833}],"mood":"good","pet":null}`)
	for b.Loop() {
		if err := s.Check(text); err != nil {
			b.Fatal(err)
		}
	}
}
