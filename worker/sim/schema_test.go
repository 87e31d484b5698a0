package sim

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// askForJSON returns the text and the finish_reason of an answer to a request with a schema.
func askForJSON(t *testing.T, schema, more string) (text, finish string) {
	t.Helper()

	body := `{"messages":[{"role":"user","content":"a"}],"response_format":{"type":"json_schema",` +
		`"json_schema":{"name":"answer","schema":` + schema + `}}` + more + `}`
	w := httptest.NewRecorder()
	New(Config{}).ServeHTTP(w, httptest.NewRequest(http.MethodPost, chat, strings.NewReader(body)))

	var answer struct {
		Choices []struct {
			Message      struct{ Content string }
			FinishReason string `json:"finish_reason"`
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || len(answer.Choices) == 0 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}

	return answer.Choices[0].Message.Content, answer.Choices[0].FinishReason
}

func TestSchemaAnswer(t *testing.T) {
	t.Parallel()

	for schema, isRight := range map[string]func(v any) bool{
		`{"type":"string"}`: func(v any) bool { s, ok := v.(string); return ok && s != "" },
		`{"type":"string","minLength":90,"maxLength":90}`: func(v any) bool {
			s, ok := v.(string)
			return ok && len(s) == 90
		},
		`{"enum":["a","b"]}`: func(v any) bool { return v == "a" || v == "b" },
		`{"const":{"x":[1]}}`: func(v any) bool {
			return cmp.Equal(v, map[string]any{"x": []any{1.0}})
		},
		`{"type":"integer","minimum":4,"maximum":5}`: func(v any) bool { return v == 4.0 || v == 5.0 },
		`{"type":"integer","exclusiveMinimum":4,"exclusiveMaximum":6}`: func(v any) bool {
			return v == 5.0
		},
		`{"type":"integer","minimum":3.5,"maximum":4.5}`: func(v any) bool { return v == 4.0 },
		`{"type":"integer","minimum":1000}`:              func(v any) bool { n, ok := v.(float64); return ok && n >= 1000 },
		`{"type":"number","minimum":0,"maximum":1}`: func(v any) bool {
			n, ok := v.(float64)
			return ok && n >= 0 && n <= 1
		},
		`{"type":"boolean"}`:                             func(v any) bool { _, ok := v.(bool); return ok },
		`{"type":["null","boolean"]}`:                    func(v any) bool { _, ok := v.(bool); return ok },
		`{"type":"null"}`:                                func(v any) bool { return v == nil },
		`{"anyOf":[{"type":"boolean"},{"type":"null"}]}`: func(v any) bool { _, ok := v.(bool); return ok },
		`{"type":"array","items":{"enum":[7]},"minItems":3,"maxItems":3}`: func(v any) bool {
			return cmp.Equal(v, []any{7.0, 7.0, 7.0})
		},
		`{"$defs":{"n":{"type":"object","properties":{"next":{"$ref":"#/$defs/n"}}}},"$ref":"#/$defs/n"}`: func(v any) bool {
			_, ok := v.(map[string]any)
			return ok
		},
		`{"type":"object","properties":{"a\"b":{"const":1},"in":{"type":"object","properties":{"x":{"enum":["y"]}}},` +
			`"list":{"type":"array","items":{"const":true},"maxItems":1}}}`: func(v any) bool {
			return cmp.Equal(v, map[string]any{"a\"b": 1.0, "in": map[string]any{"x": "y"}, "list": []any{true}})
		},
		`{}`:   func(v any) bool { _, ok := v.(string); return ok },
		`true`: func(v any) bool { return v == nil },
	} {
		text, finish := askForJSON(t, schema, "")
		again, _ := askForJSON(t, schema, "")

		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil || !isRight(v) || finish != "stop" || text != again {
			t.Errorf("%s: %s (%s), then %s: %v", schema, text, finish, again, err)
		}
	}
}

// A limit of tokens cuts JSON as it cuts words, and other formats have words.
func TestSchemaAnswerLimit(t *testing.T) {
	t.Parallel()

	text, finish := askForJSON(t, `{"type":"string","minLength":90}`, `,"max_tokens":3`)
	if len(text) != 3*bytesPerToken || finish != "length" {
		t.Errorf("%q, %s", text, finish)
	}

	for _, format := range []string{`{"type":"text"}`, `{"type":"json_schema"}`, `null`, `1`} {
		if readSchema([]byte(format)) != nil {
			t.Errorf("%s has a schema", format)
		}
	}
}
