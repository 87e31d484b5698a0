package answer

import (
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

// vllmChat is a chat completion as vLLM 0.11 sends it, of about 1.2 KB.
var vllmChat = `{"id":"chatcmpl-8f14e45fceea167a5a36dedd4bea2543","object":"chat.completion","created":1730000000,` +
	`"model":"meta-llama/Llama-3.1-8B-Instruct","choices":[{"index":0,"message":{"role":"assistant","content":"` +
	strings.Repeat("The customer asks for help with an order. ", 14) + `\n\nIt was \"late\".","refusal":null,"annotations":null,` +
	`"audio":null,"function_call":null,"tool_calls":[],"reasoning_content":null},"logprobs":null,"finish_reason":"stop",` +
	`"stop_reason":null,"token_ids":null}],"service_tier":null,"system_fingerprint":null,"usage":{"prompt_tokens":31,` +
	`"total_tokens":231,"completion_tokens":200,"prompt_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,` +
	`"kv_transfer_params":null}`

var answers = []struct {
	name, body string
	want       Content
}{
	{"a chat completion of vLLM", vllmChat, Content{Finish: "stop", Choices: 1, PromptTokens: 31, CompletionTokens: 200,
		Text: []byte(strings.Repeat("The customer asks for help with an order. ", 14) + "\n\nIt was \"late\".")}},
	{"one of SGLang that reached its limit",
		`{"id":"0c1f","object":"chat.completion","created":1741600000,"model":"qwen","choices":[{"index":0,"message":{"role":"assistant","content":"Paris","reasoning_content":null,"tool_calls":null},"logprobs":null,"finish_reason":"length","matched_stop":null}],"usage":{"prompt_tokens":9,"total_tokens":10,"completion_tokens":1,"prompt_tokens_details":null},"metadata":{"weight_version":"default"}}`,
		Content{Finish: "length", Choices: 1, Text: []byte("Paris"), PromptTokens: 9, CompletionTokens: 1}},
	{"one that SGLang aborted",
		`{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"abort","matched_stop":null}]}`,
		Content{Finish: "abort", Choices: 1, Text: []byte{}}},
	{"one that SGLang aborted, the reason as an object",
		`{"choices":[{"index":0,"text":"","finish_reason":{"type":"abort","message":"Abort in waiting queue","status_code":503}}]}`,
		Content{Finish: "abort", Choices: 1, Text: []byte{}}},
	{"one of llama.cpp, the choices first",
		`{"choices":[{"finish_reason":"stop","index":0,"message":{"role":"assistant","content":"Hi! 👋"}}],"created":1757141666,"model":"gpt-3.5-turbo","system_fingerprint":"b6347-9e2b1e83c","object":"chat.completion","usage":{"completion_tokens":10,"prompt_tokens":12,"total_tokens":22},"id":"chatcmpl-UTfB","timings":{"prompt_n":12,"prompt_ms":65.5,"predicted_per_second":60.98}}`,
		Content{Finish: "stop", Choices: 1, Text: []byte("Hi! 👋"), PromptTokens: 12, CompletionTokens: 10}},
	{"one of Ollama",
		"{\"id\":\"chatcmpl-529\",\"object\":\"chat.completion\",\"created\":1741600001,\"model\":\"llama3.2\",\"system_fingerprint\":\"fp_ollama\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"\\u003cb\\u003e\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":26,\"completion_tokens\":8,\"total_tokens\":34}}\n",
		Content{Finish: "stop", Choices: 1, Text: []byte("<b>"), PromptTokens: 26, CompletionTokens: 8}},
	{"one of TGI",
		`{"object":"chat.completion","id":"","created":1741600002,"model":"HuggingFaceH4/zephyr-7b-beta","system_fingerprint":"3.0.0-native","choices":[{"index":0,"message":{"role":"assistant","content":"Deep"},"logprobs":null,"finish_reason":"eos_token"}],"usage":{"prompt_tokens":6,"completion_tokens":1,"total_tokens":7}}`,
		Content{Finish: "eos_token", Choices: 1, Text: []byte("Deep"), PromptTokens: 6, CompletionTokens: 1}},
	{"a completion",
		`{"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":" Paris\tis","logprobs":null,"finish_reason":"length","stop_reason":null,"prompt_logprobs":null}],"usage":{"prompt_tokens":5}}`,
		Content{Finish: "length", Choices: 1, Text: []byte(" Paris\tis"), PromptTokens: 5}},
	{"tool calls have no content",
		`{"choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"weather","arguments":"{\"text\":\"x\"}"}}]},"finish_reason":"tool_calls"}]}`,
		Content{Finish: "tool_calls", Choices: 1}},
	{"two choices",
		`{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"},{"index":1,"message":{"content":"b"},"finish_reason":"length"}]}`,
		Content{Finish: "stop", Choices: 2, Text: []byte("a")}},
	{"content in parts",
		`{"choices":[{"message":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"text":"a","type":"text"},{"type":"text","text":"b"}]},"finish_reason":"stop"}]}`,
		Content{Finish: "stop", Choices: 1, Text: []byte("ab")}},
	{"no choices", `{"object":"chat.completion","choices":[],"usage":null}`, Content{Choices: 0}},
	{"choices that are null", `{"choices":null,"object":"chat.completion"}`, Content{Choices: 0}},
	{"a choice that is no object", `{"choices":[null,1,"x",[{"finish_reason":"stop"}]]}`, Content{Choices: 4}},
	{"a choice without a reason", `{"choices":[{"message":{"content":"a"},"finish_reason":null}]}`, Content{Choices: 1, Text: []byte("a")}},
	{"a message that is null", `{"choices":[{"message":null,"finish_reason":"stop"}]}`, Content{Finish: "stop", Choices: 1}},
	{"of two members the last counts",
		`{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"choices":[{"message":{"content":"b"},"message":{"content":"c"},"finish_reason":"stop","finish_reason":"length"},{}]}`,
		Content{Finish: "length", Choices: 2, Text: []byte("c")}},
	{"names with escapes", `{"\u0063hoices":[{"mess\u0061ge":{"cont\u0065nt":"a"}}]}`, Content{Choices: 1, Text: []byte("a")}},
	{"an embedding",
		`{"id":"embd-1","object":"list","created":1741600000,"model":"e5","data":[{"index":0,"object":"embedding","embedding":[0.01,-2.5e-3]},{"index":1,"object":"embedding","embedding":[]}],"usage":{"prompt_tokens":4,"total_tokens":4}}`,
		Content{Choices: 2, PromptTokens: 4}},
	{"scores", `{"id":"score-1","object":"list","data":[{"index":0,"object":"score","score":0.97}],"usage":{}}`, Content{Choices: 1}},
	{"a ranking",
		`{"id":"rerank-1","model":"bge","usage":{"total_tokens":56},"results":[{"index":1,"document":{"text":"x"},"relevance_score":0.99},{"index":0,"document":{"text":"y"},"relevance_score":0.01}]}`,
		Content{Choices: 2}},
	{"a response",
		`{"id":"resp_1","created_at":1741600000,"error":null,"incomplete_details":null,"instructions":null,"object":"response","output":[{"id":"rs_1","type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"hm"}],"status":null},{"id":"msg_1","content":[{"annotations":[],"text":"a\"","type":"output_text","logprobs":null},{"annotations":[],"text":"b","type":"output_text"}],"role":"assistant","status":"completed","type":"message"}],"status":"completed","text":null,"usage":{"input_tokens":9,"output_tokens":3}}`,
		Content{Finish: "stop", Choices: 2, Text: []byte(`a"b`), PromptTokens: 9, CompletionTokens: 3}},
	{"a response of several messages does not write into the body",
		`{"object":"response","status":"completed","output":[{"content":[{"type":"output_text","text":"a"}]},{"content":[{"type":"output_text","text":"b"}]}]}`,
		Content{Finish: "stop", Choices: 2, Text: []byte("ab")}},
	{"a response that reached its limit",
		`{"object":"response","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[]}`,
		Content{Finish: "length", Choices: 0}},
	{"a response that was filtered",
		`{"incomplete_details":{"reason":"content_filter"},"object":"response","output":[],"status":"incomplete"}`,
		Content{Finish: "content_filter", Choices: 0}},
	{"a response that was aborted", `{"object":"response","status":"cancelled","output":[]}`, Content{Finish: "abort", Choices: 0}},
	{"a response that failed",
		`{"object":"response","status":"failed","error":{"code":"server_error","message":"x"},"output":[]}`,
		Content{Finish: "failed", Choices: 0, IsError: true}},
	{"an error of vLLM", `{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}`, Content{Choices: -1, IsError: true}},
	{"an error of an older vLLM", `{"object":"error","message":"too long","type":"BadRequestError","param":null,"code":400}`, Content{Choices: -1, IsError: true}},
	{"an error of TGI", `{"error":"Input validation error","error_type":"validation"}`, Content{Choices: -1, IsError: true}},
	{"an error between choices", `{"error":{},"choices":[{"text":"a"}],"error":null}`, Content{Choices: 1, Text: []byte("a"), IsError: true}},
	{"something else", `{"output":"text","data":{"a":[1]},"results":null,"status":"ok"}`, Content{Choices: -1}},
	{"nothing", ` {} `, Content{Choices: -1}},
}

func TestRead(t *testing.T) {
	t.Parallel()
	for _, tt := range answers {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			body := []byte(tt.body)
			got, err := Read(body)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("content (-want +got):\n%s", diff)
			}
			if string(body) != tt.body {
				t.Errorf("the body is now %s", body)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, body, want string }{
		{"nothing", "", "JSON ends in the middle (after 0 bytes)"},
		{"an array", `[{"index":0,"score":1}]`, "not a JSON object"},
		{"an HTML page", "<html>", "broken JSON at byte 1: "},
		{"a body cut in a text", `{"choices":[{"message":{"content":"abc`, "JSON ends in the middle (after 38 bytes)"},
		{"a body cut after the choices", `{"choices":[]`, "JSON ends in the middle (after 13 bytes)"},
		{"two bodies", `{"choices":[]}{}`, "text after the JSON object at byte 15"},
		{"a broken value that nobody reads", `{"usage":{"a":01}}`, "broken JSON at byte "},
		{"bytes that are not UTF-8", "{\"choices\":[{\"text\":\"\xff\"}]}", "broken JSON at byte "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Read([]byte(tt.body))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if diff := cmp.Diff(Content{Choices: -1}, got); diff != "" {
				t.Errorf("content (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadAtTheSameTime(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				for _, tt := range answers {
					if got, err := Read([]byte(tt.body)); err != nil || !cmp.Equal(got, tt.want) {
						t.Errorf("%s is read otherwise, error %v", tt.name, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func FuzzRead(f *testing.F) {
	for _, tt := range answers {
		f.Add([]byte(tt.body))
	}
	for _, text := range []string{`[]`, `{"choices":[{"message":{"content":"a`, `{"choices":[}`, `{"a":1}{}`, `{"output":[{"content":[{"text":1}]}]}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := string(body)
		c, err := Read(body)
		if string(body) != before {
			t.Fatal("the body has changed")
		}
		// What is one whole JSON object is for proto.Scanner to say.
		var s proto.Scanner
		s.Reset(body)
		for s.Enter(); s.Next(); {
		}
		if want := s.End(); (err == nil) != (want == nil) {
			t.Errorf("error %v, the scanner says %v", err, want)
		}
		if c.Choices < -1 || c.Choices <= 0 && c.Text != nil {
			t.Errorf("%+v", c)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	body := []byte(vllmChat)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(body); err != nil {
			b.Fatal(err)
		}
	}
}
