package openai_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/proto/openai"
)

// outputBodies are bodies of answers, with the text, the calls and the data of their outputs. A null is a nil.
var outputBodies = []struct{ body, text, calls, data string }{
	{`{"choices":[{"message":{"content":"a"}},{"message":{"content":"b"}}]}`, "a", "null", "null"},
	{`{"choices":[{"message":{"content":"","tool_calls":[]}}]}`, "", "null", "null"},
	{`{"choices":[{"message":{"content":null,"tool_calls":[ {"id":"c"} ]}}]}`, "null", `[ {"id":"c"} ]`, "null"},
	{`{"choices":[{"message":{"content":"a","tool_calls":[{"id":"c"}]}}]}`, "a", "null", "null"},
	{`{"choices":[{"message":{"function_call":{"name":"f"}}}]}`, "null", `[{"name":"f"}]`, "null"},
	{`{"choices":[{"message":{"content":null,"refusal":"no"}}]}`, "no", "null", "null"},
	{`{"choices":[{"text":"\u00fc\n"}]}`, "ü\n", "null", "null"},
	{`{"choices":[]}`, "null", "null", "null"},
	{`{"choices":null}`, "null", "null", "null"},
	{`{"choices":[7,{"text":"b"}]}`, "null", "null", "null"},
	{`{"output":[{"type":"message","content":[{"type":"output_text","text":"a"},{"type":"output_text","text":"b"}]}]}`,
		"ab", "null", "null"},
	{`{"output":[{"type":"function_call","name":"f"},{"type":"reasoning"},{"type":"mcp_call"}]}`,
		"null", `[{"type":"function_call","name":"f"},{"type":"mcp_call"}]`, "null"},
	{`{"output_text":"a"}`, "a", "null", "null"},
	{`{"data":[{"embedding":[1, 2.50]}]}`, "null", "null", "[1, 2.50]"},
	{`{"data":[{"embedding":[1]},{"embedding":[2]}]}`, "null", "null", "[[1],[2]]"},
	{`{"data":[{"embedding":[1]},{"score":2}]}`, "null", "null", `[{"embedding":[1]},{"score":2}]`},
	{`{"data":[]}`, "null", "null", "[]"},
	{`{"results":[{"index":0,"relevance_score":0.5}]}`, "null", "null", `[{"index":0,"relevance_score":0.5}]`},
	{`[[0.1,0.2]]`, "null", "null", "[0.1,0.2]"},
	{`[{"index":0,"score":0.9}]`, "null", "null", `[{"index":0,"score":0.9}]`},
	{`{}`, "null", "null", "null"},
}

func TestReadOutput(t *testing.T) {
	t.Parallel()

	orNull := func(text []byte) string {
		if text == nil {
			return "null"
		}
		return string(text)
	}

	var scan jsonscan.Scanner
	for _, tt := range outputBodies {
		o, err := openai.ReadOutput(&scan, []byte(tt.body))
		if err != nil {
			t.Errorf("%s: %v", tt.body, err)
		}

		want := []string{tt.text, tt.calls, tt.data}
		if diff := cmp.Diff(want, []string{orNull(o.Text), orNull(o.Calls), orNull(o.Data)}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.body, diff)
		}
	}
}

// Calls stand for a text that is not there or empty.
func TestAnswerOfOutput(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		output openai.Output
		want   []byte
	}{
		{openai.Output{}, nil},
		{openai.Output{Text: []byte{}}, []byte{}},
		{openai.Output{Text: []byte("a")}, []byte("a")},
		{openai.Output{Text: []byte{}, Calls: []byte("[1]")}, []byte("[1]")},
		{openai.Output{Data: []byte("[1]")}, nil},
	} {
		if diff := cmp.Diff(tt.want, tt.output.Answer()); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tt.output, diff)
		}
	}
}

// Whatever a server sends: an output that is read out of JSON is JSON, and the text of a plain chat completion is
// the one that encoding/json reads.
func FuzzReadOutput(f *testing.F) {
	for _, tt := range outputBodies {
		f.Add([]byte(tt.body))
	}
	f.Add([]byte(`{"choices":[{"message":{"content":"a"`))
	f.Add([]byte(`{"usage":{"prompt_tokens":1e3},"choices":[{"finish_reason":"stop","message":{"content":"\ud83d\ude00"}}]}`))

	f.Fuzz(func(t *testing.T, body []byte) {
		var scan jsonscan.Scanner

		o, err := openai.ReadOutput(&scan, body)
		if err != nil || !json.Valid(body) {
			return
		}

		for _, text := range [][]byte{o.Calls, o.Data} {
			if text != nil && !json.Valid(text) {
				t.Errorf("%s: %s is not JSON", body, text)
			}
		}

		if len(o.Text) > 0 && o.Calls != nil {
			t.Errorf("%s: a text %s and calls %s", body, o.Text, o.Calls)
		}

		var chat struct {
			Choices []struct{ Message struct{ Content *string } }
		}
		if json.Unmarshal(body, &chat) != nil || len(chat.Choices) == 0 || chat.Choices[0].Message.Content == nil {
			return
		}

		// encoding/json takes names in any case, and the last of several members.
		again, err := json.Marshal(map[string]any{"choices": []any{map[string]any{
			"message": map[string]any{"content": *chat.Choices[0].Message.Content},
		}}})
		if err != nil {
			t.Fatal(err)
		}

		plain, err := openai.ReadOutput(&scan, again)
		if err != nil || string(plain.Text) != *chat.Choices[0].Message.Content {
			t.Errorf("%s: text %q, %v, want %q", again, plain.Text, err, *chat.Choices[0].Message.Content)
		}
	})
}
