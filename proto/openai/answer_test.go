package openai_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/proto/openai"
)

// vllmChat is a chat completion as vLLM 0.11 sends it, of about 1.2 KB.
var vllmChat = `{"id":"chatcmpl-8f14e45fceea167a5a36dedd4bea2543","object":"chat.completion","created":1730000000,` +
	`"model":"meta-llama/Llama-3.1-8B-Instruct","choices":[{"index":0,"message":{"role":"assistant","content":"` +
	strings.Repeat("The customer asks for help with an order. ", 14) +
	`\n\nIt was \"late\".","refusal":null,"annotations":null,` +
	`"audio":null,"function_call":null,"tool_calls":[],"reasoning_content":null},"logprobs":null,"finish_reason":"stop",` +
	`"stop_reason":null,"token_ids":null}],"service_tier":null,"system_fingerprint":null,"usage":{"prompt_tokens":31,` +
	`"total_tokens":231,"completion_tokens":200,"prompt_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,` +
	`"kv_transfer_params":null}`

const (
	chat        = "/v1/chat/completions"
	completions = "/v1/completions"
	embeddings  = "/v1/embeddings"
	responses   = "/v1/responses"
	rerank      = "/v1/rerank"
	score       = "/v1/score"
)

// answerTest has the body of an answer and the wanted [openai.Answer] without the model.
type answerTest struct {
	name, endpoint, body string
	want                 openai.Answer
}

// whole returns the wanted answer with the model.
func (t answerTest) whole() openai.Answer {
	var body struct {
		Model *string `json:"model"`
	}

	json.Unmarshal([]byte(t.body), &body) // an array has no model

	if body.Model != nil {
		t.want.Model = []byte(*body.Model)
	}

	return t.want
}

var answers = []answerTest{
	{"a chat completion of vLLM", chat, vllmChat,
		openai.Answer{Finish: "stop", Usage: openai.Usage{Prompt: 31, Completion: 200},
			Text: []byte(strings.Repeat("The customer asks for help with an order. ", 14) + "\n\nIt was \"late\".")}},
	{"one of SGLang that reached its limit", chat,
		`{"id":"0c1f","object":"chat.completion","created":1741600000,"model":"qwen","choices":[{"index":0,"message":{"role":"assistant","content":"Paris","reasoning_content":null,"tool_calls":null},"logprobs":null,"finish_reason":"length","matched_stop":null}],"usage":{"prompt_tokens":9,"total_tokens":10,"completion_tokens":1,"prompt_tokens_details":null},"metadata":{"weight_version":"default"}}`,
		openai.Answer{Finish: "length", Text: []byte("Paris"), Usage: openai.Usage{Prompt: 9, Completion: 1}}},
	{"one that SGLang aborted", chat,
		`{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"abort","matched_stop":null}]}`,
		openai.Answer{
			Finish:  "abort",
			Text:    []byte{},
			Problem: "the server gave the request up (abort)",
			GaveUp:  true,
		}},
	{"one that SGLang aborted, the reason as an object", completions,
		`{"choices":[{"index":0,"text":"","finish_reason":{"type":"abort","message":"Abort in waiting queue","status_code":503}}]}`,
		openai.Answer{
			Finish:  "abort",
			Text:    []byte{},
			Problem: "the server gave the request up (abort)",
			GaveUp:  true,
		}},
	{"one of llama.cpp, the choices first", chat,
		`{"choices":[{"finish_reason":"stop","index":0,"message":{"role":"assistant","content":"Hi! 👋"}}],"created":1757141666,"model":"gpt-3.5-turbo","system_fingerprint":"b6347-9e2b1e83c","object":"chat.completion","usage":{"completion_tokens":10,"prompt_tokens":12,"total_tokens":22},"id":"chatcmpl-UTfB","timings":{"prompt_n":12,"prompt_ms":65.5,"predicted_per_second":60.98}}`,
		openai.Answer{Finish: "stop", Text: []byte("Hi! 👋"), Usage: openai.Usage{Prompt: 12, Completion: 10}}},
	{"one of Ollama", chat,
		"{\"id\":\"chatcmpl-529\",\"object\":\"chat.completion\",\"created\":1741600001,\"model\":\"llama3.2\",\"system_fingerprint\":\"fp_ollama\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"\\u003cb\\u003e\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":26,\"completion_tokens\":8,\"total_tokens\":34}}\n",
		openai.Answer{Finish: "stop", Text: []byte("<b>"), Usage: openai.Usage{Prompt: 26, Completion: 8}}},
	{"one of TGI", chat,
		`{"object":"chat.completion","id":"","created":1741600002,"model":"HuggingFaceH4/zephyr-7b-beta","system_fingerprint":"3.0.0-native","choices":[{"index":0,"message":{"role":"assistant","content":"Deep"},"logprobs":null,"finish_reason":"eos_token"}],"usage":{"prompt_tokens":6,"completion_tokens":1,"total_tokens":7}}`,
		openai.Answer{Finish: "eos_token", Text: []byte("Deep"), Usage: openai.Usage{Prompt: 6, Completion: 1}}},
	{"a completion", completions,
		`{"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":" Paris\tis","logprobs":null,"finish_reason":"length","stop_reason":null,"prompt_logprobs":null}],"usage":{"prompt_tokens":5}}`,
		openai.Answer{Finish: "length", Text: []byte(" Paris\tis"), Usage: openai.Usage{Prompt: 5}}},
	{"tool calls have no content", chat,
		`{"choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"weather","arguments":"{\"text\":\"x\"}"}}]},"finish_reason":"tool_calls"}]}`,
		openai.Answer{Finish: "tool_calls"}},
	{"two choices", chat,
		`{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"},{"index":1,"message":{"content":"b"},"finish_reason":"length"}]}`,
		openai.Answer{Finish: "stop", Text: []byte("a")}},
	{"content in parts", chat,
		`{"choices":[{"message":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"text":"a","type":"text"},{"type":"text","text":"b"}]},"finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop", Text: []byte("ab")}},
	{"no choices", chat, `{"object":"chat.completion","choices":[],"usage":null}`,
		openai.Answer{Problem: "the answer has no choice"}},
	{"choices that are null", chat, `{"choices":null,"object":"chat.completion"}`,
		openai.Answer{Problem: "the answer has no choice"}},
	{"a choice that is no object", chat, `{"choices":[null,1,"x",[{"finish_reason":"stop"}]]}`,
		openai.Answer{Problem: "a choice has neither a message nor a text"}},
	{"a choice without a reason", chat, `{"choices":[{"message":{"content":"a"},"finish_reason":null}]}`,
		openai.Answer{Text: []byte("a")}},
	{"a message that is null", chat, `{"choices":[{"message":null,"finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop", Problem: "a choice has neither a message nor a text"}},
	{"of two members the last counts", chat,
		`{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"choices":[{"message":{"content":"b"},"message":{"content":"c"},"finish_reason":"stop","finish_reason":"length"},{}]}`,
		openai.Answer{Finish: "length", Text: []byte("c"), Problem: "a choice has neither a message nor a text"}},
	{"names with escapes", chat, `{"\u0063hoices":[{"mess\u0061ge":{"cont\u0065nt":"a"}}]}`,
		openai.Answer{Text: []byte("a")}},
	{"an embedding", embeddings,
		`{"id":"embd-1","object":"list","created":1741600000,"model":"e5","data":[{"index":0,"object":"embedding","embedding":[0.01,-2.5e-3]},{"index":1,"object":"embedding","embedding":[-0]}],"usage":{"prompt_tokens":4,"total_tokens":4}}`,
		openai.Answer{Usage: openai.Usage{Prompt: 4}}},
	{"scores", score, `{"id":"score-1","object":"list","data":[{"index":0,"object":"score","score":0.97}],"usage":{}}`,
		openai.Answer{}},
	{"a ranking", rerank,
		`{"id":"rerank-1","model":"bge","usage":{"total_tokens":56},"results":[{"index":1,"document":{"text":"x"},"relevance_score":0.99},{"index":0,"document":{"text":"y"},"relevance_score":0.01}]}`,
		openai.Answer{}},
	{"a response", responses,
		`{"id":"resp_1","created_at":1741600000,"error":null,"incomplete_details":null,"instructions":null,"object":"response","output":[{"id":"rs_1","type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"hm"}],"status":null},{"id":"msg_1","content":[{"annotations":[],"text":"a\"","type":"output_text","logprobs":null},{"annotations":[],"text":"b","type":"output_text"}],"role":"assistant","status":"completed","type":"message"}],"status":"completed","text":null,"usage":{"input_tokens":9,"output_tokens":3}}`,
		openai.Answer{Finish: "stop", Text: []byte(`a"b`), Usage: openai.Usage{Prompt: 9, Completion: 3}}},
	{"a response of several messages does not write into the body", responses,
		`{"object":"response","status":"completed","output":[{"content":[{"type":"output_text","text":"a"}]},{"content":[{"type":"output_text","text":"b"}]}]}`,
		openai.Answer{Finish: "stop", Text: []byte("ab")}},
	{"a response that reached its limit", responses,
		`{"object":"response","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[]}`,
		openai.Answer{Finish: "length"}},
	{"a response that was filtered", responses,
		`{"incomplete_details":{"reason":"content_filter"},"object":"response","output":[],"status":"incomplete"}`,
		openai.Answer{Finish: "content_filter"}},
	{"a response that was aborted", responses, `{"object":"response","status":"cancelled","output":[]}`,
		openai.Answer{Finish: "abort", Problem: "the server gave the request up (abort)", GaveUp: true}},
	{"a response that failed", responses,
		`{"object":"response","status":"failed","error":{"code":"server_error","message":"x"},"output":[]}`,
		openai.Answer{Finish: "failed", Problem: "the answer is an error"}},
	{"an error of vLLM", chat, `{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}`,
		openai.Answer{Problem: "the answer is an error"}},
	{"an error of an older vLLM", chat,
		`{"object":"error","message":"too long","type":"BadRequestError","param":null,"code":400}`,
		openai.Answer{Problem: "the answer is an error"}},
	{"an error of TGI", chat, `{"error":"Input validation error","error_type":"validation"}`,
		openai.Answer{Problem: "the answer is an error"}},
	{"an error between choices", chat, `{"error":{},"choices":[{"text":"a"}],"error":null}`,
		openai.Answer{Text: []byte("a")}},
	{"something else", chat, `{"output":"text","data":{"a":[1]},"results":null,"status":"ok"}`,
		openai.Answer{Finish: "ok", Problem: "the answer has no choice"}},
	{"no choice of an error of FastAPI", chat, `{"detail":"upstream model is not available"}`,
		openai.Answer{Problem: "the answer has no choice"}},
	{"no choice of a gateway's refusal", chat, `{"code":"rate_limit_daily","message":"try again tomorrow"}`,
		openai.Answer{Problem: "the answer has no choice"}},
	{"an empty choice", chat, `{"id":"c1","object":"chat.completion","choices":[{}],"usage":null}`,
		openai.Answer{Problem: "a choice has neither a message nor a text"}},
	{"a null for a choice", chat, `{"choices":[null]}`,
		openai.Answer{Problem: "a choice has neither a message nor a text"}},
	{"an empty message", chat, `{"choices":[{"message":{},"finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop", Problem: "a choice has neither a message nor a text"}},
	{"a piece of a stream", chat,
		`{"object":"chat.completion.chunk","choices":[{"delta":{"content":"a"},"finish_reason":null}]}`,
		openai.Answer{Problem: "a choice has neither a message nor a text"}},
	{"what LiteLLM makes of nothing", chat,
		`{"choices":[{"finish_reason":"stop","index":0,"message":{"content":null,"role":"assistant"}}],"usage":{"completion_tokens":0,"prompt_tokens":0}}`,
		openai.Answer{Finish: "stop", Problem: "the answer has no content"}},
	{"a model that ended at once", chat,
		`{"choices":[{"message":{"role":"assistant","content":null,"reasoning":null,"tool_calls":[]},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1}}`,
		openai.Answer{Finish: "stop", Usage: openai.Usage{Prompt: 9, Completion: 1}}},
	{"an empty text", chat, `{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop", Text: []byte{}}},
	{"a thought that was cut off", chat,
		`{"choices":[{"message":{"content":null,"reasoning_content":"hm"},"finish_reason":"length"}]}`,
		openai.Answer{Finish: "length"}},
	{"a thought", chat, `{"choices":[{"message":{"content":null,"reasoning":"hm"},"finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop"}},
	{"a refusal", chat, `{"choices":[{"message":{"content":null,"refusal":"no"},"finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop"}},
	{"a refusal in parts", chat,
		`{"choices":[{"message":{"content":[{"type":"refusal","refusal":"no"}]},"finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop"}},
	{"a sound", chat,
		`{"choices":[{"message":{"content":null,"audio":{"id":"a","data":"UklG"}},"finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop"}},
	{"a call of a function", chat,
		`{"choices":[{"message":{"content":null,"function_call":{"name":"f","arguments":"{}"}},"finish_reason":"function_call"}]}`,
		openai.Answer{Finish: "function_call"}},
	{"calls that are not there", chat,
		`{"choices":[{"message":{"content":null,"tool_calls":[]},"finish_reason":"tool_calls"}]}`,
		openai.Answer{Finish: "tool_calls", Problem: "the answer has no content"}},
	{"a filter that leaves nothing", chat,
		`{"choices":[{"index":0,"finish_reason":"content_filter","content_filter_results":{"hate":{"filtered":true}}}]}`,
		openai.Answer{Finish: "content_filter"}},
	{"a text for a chat", chat, `{"choices":[{"text":"a","finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop", Text: []byte("a")}},
	{"a message for a completion", completions, `{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop", Text: []byte("a")}},
	{"an empty completion", completions, `{"choices":[{"text":"","finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop", Text: []byte{}}},
	{"a completion that is null", completions, `{"choices":[{"text":null,"finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop", Problem: "a choice has neither a message nor a text"}},
	{"the second choice was aborted", chat,
		`{"choices":[{"message":{"content":"a"},"finish_reason":"stop"},{"message":{"content":"b"},"finish_reason":"abort"}]}`,
		openai.Answer{
			Finish:  "stop",
			Text:    []byte("a"),
			Problem: "the server gave the request up (abort)",
			GaveUp:  true,
		}},
	{"an error of vLLM's engine", chat, `{"choices":[{"message":{"content":"a"},"finish_reason":"error"}]}`,
		openai.Answer{
			Finish:  "error",
			Text:    []byte("a"),
			Problem: "the server gave the request up (error)",
			GaveUp:  true,
		}},
	{"a time limit of TensorRT-LLM", completions, `{"choices":[{"text":"a","finish_reason":"timeout"}]}`,
		openai.Answer{
			Finish:  "timeout",
			Text:    []byte("a"),
			Problem: "the server gave the request up (timeout)",
			GaveUp:  true,
		}},
	{"a provider of OpenRouter that failed", chat,
		`{"choices":[{"error":{"code":502,"message":"bad gateway"},"message":{"content":"a"},"finish_reason":"stop"}]}`,
		openai.Answer{
			Finish:  "stop",
			Text:    []byte("a"),
			Problem: "the server gave the request up (error)",
			GaveUp:  true,
		}},
	{"a reason that is a number", chat, `{"choices":[{"message":{"content":"a"},"finish_reason":1}]}`,
		openai.Answer{Finish: "1", Text: []byte("a")}},

	{"an error that is null", chat, `{"error":null,"choices":[{"text":"a"}]}`, openai.Answer{Text: []byte("a")}},
	{"an error that is a text of nothing", chat, `{"error":"","choices":[{"text":"a"}]}`,
		openai.Answer{Text: []byte("a")}},
	{"an error that is false", chat, `{"error":false,"choices":[{"text":"a"}]}`, openai.Answer{Text: []byte("a")}},
	{"an error that is a list of nothing", chat, `{"error":[],"choices":[{"text":"a"}]}`,
		openai.Answer{Text: []byte("a")}},
	{"an error of empty members", chat, `{"error":{"code":null,"message":"","details":[{}]},"choices":[{"text":"a"}]}`,
		openai.Answer{Text: []byte("a")}},
	{"an error beside a choice", chat, `{"error":{"code":null,"message":"x"},"choices":[{"text":"a"}]}`,
		openai.Answer{Text: []byte("a"), Problem: "the answer is an error"}},
	{"an error that is true", chat, `{"error":true,"choices":[{"text":"a"}]}`,
		openai.Answer{Text: []byte("a"), Problem: "the answer is an error"}},
	{"an error that occurs twice", chat, `{"error":"x","error":null,"choices":[{"text":"a"}]}`,
		openai.Answer{Text: []byte("a"), Problem: "the answer is an error"}},

	{"an answer cut in an emoji", chat,
		`{"choices":[{"message":{"content":"cut in an emoji \ud83d"},"finish_reason":"length"}]}`,
		openai.Answer{Finish: "length", Text: []byte("cut in an emoji \ufffd")}},
	{"numbers in other forms", chat,
		`{"created":1E5,"x":[-0,1e400,123456789012345678901234567890],"choices":[{"text":"a"}],"usage":{"prompt_tokens":5.0,"completion_tokens":2e0}}`,
		openai.Answer{Text: []byte("a"), Usage: openai.Usage{Prompt: 5, Completion: 2}}},

	{"a reason that ends in error", chat, `{"choices":[{"message":{"content":"a"},"finish_reason":"engine_error"}]}`,
		openai.Answer{
			Finish:  "engine_error",
			Text:    []byte("a"),
			Problem: "the server gave the request up (engine_error)",
			GaveUp:  true,
		}},
	{"a chat that failed", chat, `{"status":"failed","choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}`,
		openai.Answer{
			Finish:  "stop",
			Text:    []byte("a"),
			Problem: "the server gave the request up (failed)",
			GaveUp:  true,
		}},
	{"a chat with a good status", chat,
		`{"status":"completed","choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop", Text: []byte("a")}},
	{"embeddings that failed", embeddings, `{"status":"error","data":[{"embedding":[1]}]}`,
		openai.Answer{Finish: "error", Problem: "the server gave the request up (error)", GaveUp: true}},
	{"a chunk of a stream", chat,
		`{"object":"chat.completion.chunk","choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop", Text: []byte("a"), Problem: "the answer is a part of a stream"}},
	{"an error of code 200", chat, `{"error":{"code":200,"message":"OK"},"choices":[{"text":"a"}]}`,
		openai.Answer{Text: []byte("a")}},
	{"an error of code 0", chat, `{"error":{"message":"fine","code":0},"choices":[{"text":"a"}]}`,
		openai.Answer{Text: []byte("a")}},
	{"an error of code success", chat, `{"error":{"code":"success","message":"done"},"choices":[{"text":"a"}]}`,
		openai.Answer{Text: []byte("a")}},
	{"an error of code 500", chat, `{"error":{"code":500},"choices":[{"text":"a"}]}`,
		openai.Answer{Text: []byte("a"), Problem: "the answer is an error"}},
	{"an error of code 200 and no answer", chat, `{"error":{"code":200,"message":"OK"}}`,
		openai.Answer{Problem: "the answer has no choice"}},
	{"an error of a choice of code 0", chat, `{"choices":[{"error":{"code":0,"message":"OK"},"text":"a"}]}`,
		openai.Answer{Text: []byte("a")}},
	{"a response that a server failed", responses,
		`{"status":"incomplete","incomplete_details":{"reason":"server_error"},"output":[{"type":"message","content":[{"type":"output_text","text":"a"}]}]}`,
		openai.Answer{
			Finish:  "server_error",
			Text:    []byte("a"),
			Problem: "the server gave the request up (server_error)",
			GaveUp:  true,
		}},
	{"a complete response that a server failed", responses,
		`{"status":"completed","incomplete_details":{"reason":"server_error"},"output":[{"type":"message","content":[{"type":"output_text","text":"a"}]}]}`,
		openai.Answer{
			Finish:  "stop",
			Text:    []byte("a"),
			Problem: "the server gave the request up (server_error)",
			GaveUp:  true,
		}},

	{"an embedding that is NaN as a text", embeddings, `{"data":[{"embedding":"NaN"}]}`,
		openai.Answer{Problem: "an item of the answer has no embedding and no score"}},
	{"an embedding that is a word", embeddings, `{"data":[{"embedding":"no embed"}]}`,
		openai.Answer{Problem: "an item of the answer has no embedding and no score"}},
	{"an embedding with escapes in base64", embeddings, `{"data":[{"embedding":"AAC\/Pw=="}]}`, openai.Answer{}},
	{"an embedding of texts", embeddings, `{"data":[{"embedding":["1","2"]}]}`,
		openai.Answer{Problem: "an item of the answer has no embedding and no score"}},
	{"a ranking of texts", rerank, `{"results":[{"index":0,"relevance_score":"NaN"}]}`,
		openai.Answer{Problem: "an item of the answer has no embedding and no score"}},
	{"a ranking in base64", rerank, `{"results":[{"index":0,"relevance_score":"AACAPw=="}]}`,
		openai.Answer{Problem: "an item of the answer has no embedding and no score"}},
	{"a ranking of lists of texts", rerank, `[["x1"]]`,
		openai.Answer{Problem: "an item of the answer has no embedding and no score"}},
	{"scores that are true", score, `{"scores":[[true,1]]}`,
		openai.Answer{Problem: "an item of the answer has no embedding and no score"}},
	{"no embeddings", embeddings, `{"object":"list","data":[]}`, openai.Answer{Problem: "the answer has no embedding"}},
	{"a refusal of an embedding", embeddings, `{"detail":"no"}`, openai.Answer{Problem: "the answer has no embedding"}},
	{"embeddings in base64", embeddings, `{"data":[{"embedding":"AACAPw=="}]}`, openai.Answer{}},
	{"embeddings of each token", embeddings, `{"data":[{"embedding":[[0.1],[0.2]]}]}`, openai.Answer{}},
	{"an embedding of nothing", embeddings, `{"data":[{"embedding":[1]},{"embedding":[]}]}`,
		openai.Answer{Problem: "an item of the answer has no embedding and no score"}},
	{"an embedding that was NaN", embeddings, `{"data":[{"embedding":[0.5,null]}]}`,
		openai.Answer{Problem: "an item of the answer has no embedding and no score"}},
	{"an embedding that is null", embeddings, `{"data":[null]}`,
		openai.Answer{Problem: "an item of the answer has no embedding and no score"}},
	{"a chat for an embedding", embeddings, `{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}`,
		openai.Answer{Finish: "stop", Text: []byte("a"), Problem: "the answer has no embedding"}},

	{"a ranking of SGLang", rerank,
		`[{"score": 0.9, "document": "a", "index": 0, "meta_info": {"prompt_tokens": 5}}, {"score": -0.1, "index": 1}]`,
		openai.Answer{}},
	{"a ranking of TEI", rerank, " [{\"index\":1,\"score\":0.99}]\n", openai.Answer{}},
	{"a ranking of Cohere", rerank, `{"results":[{"index":1,"relevance_score":0.99}],"meta":{}}`, openai.Answer{}},
	{"a ranking of nothing", rerank, `[]`, openai.Answer{Problem: "the answer has no score"}},
	{"a ranking without scores", rerank, `[{"index":0}]`,
		openai.Answer{Problem: "an item of the answer has no embedding and no score"}},
	{"a ranking of NaN", rerank, `{"results":[{"index":0,"relevance_score":null}]}`,
		openai.Answer{Problem: "an item of the answer has no embedding and no score"}},
	{"scores of SGLang", score, `{"scores":[[0.1,0.9],[0.5,0.5]],"model":"m","usage":null,"object":"scoring"}`,
		openai.Answer{}},
	{"scores that are null", score, `{"scores":null,"object":"scoring"}`,
		openai.Answer{Problem: "the answer has no score"}},
	{"scores as a list", score, `[0.1, 1e-5]`, openai.Answer{}},

	{"a response that waits", responses, `{"object":"response","status":"queued","output":[]}`,
		openai.Answer{Finish: "queued", Problem: "the response is queued"}},
	{"a response in progress", responses,
		`{"object":"response","status":"in_progress","output":[{"type":"message","content":[{"type":"output_text","text":"a"}]}]}`,
		openai.Answer{Finish: "in_progress", Text: []byte("a"), Problem: "the response is in_progress"}},
	{"a response without output", responses, `{"object":"response","status":"completed","output":[]}`,
		openai.Answer{Finish: "stop", Problem: "the answer has no content"}},
	{"a response that ended at once", responses,
		`{"status":"completed","output":[],"usage":{"input_tokens":9,"output_tokens":1}}`,
		openai.Answer{Finish: "stop", Usage: openai.Usage{Prompt: 9, Completion: 1}}},
	{"a response that calls", responses,
		`{"status":"completed","output":[{"type":"function_call","name":"f","arguments":"{}"}]}`,
		openai.Answer{Finish: "stop"}},
	{"a response of an empty item", responses, `{"status":"completed","output":[{}]}`,
		openai.Answer{Finish: "stop", Problem: "an item of the output is empty"}},
	{"a response of null", responses, `{"status":"completed","output":[null]}`,
		openai.Answer{Finish: "stop", Problem: "an item of the output is no object"}},
	{"a response in one text", responses, `{"output_text":"a"}`, openai.Answer{Text: []byte("a")}},
	{"no response", responses, `{}`, openai.Answer{Problem: "the answer has no output"}},

	{"nothing", chat, ` {} `, openai.Answer{Problem: "the answer has no choice"}},
}

func TestReadAnswer(t *testing.T) {
	t.Parallel()

	for _, tt := range answers {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			body := []byte(tt.body)
			got, err := openai.ReadAnswer(tt.endpoint, nil, body)
			if err != nil {
				t.Fatal(err)
			}

			if diff := cmp.Diff(tt.whole(), got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}

			if string(body) != tt.body {
				t.Errorf("the body is now %s", body)
			}
		})
	}
}

func TestReadAnswerRefuses(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, body, want string }{
		{"nothing", "", "JSON ends in the middle (after 0 bytes)"},
		{"an array", `[{"index":0,"score":1}]`, "not a JSON object"},
		{"an HTML page", "<html>", "broken JSON at byte 1: "},
		{"a body cut in a text", `{"choices":[{"message":{"content":"abc`, "JSON ends in the middle (after 38 bytes)"},
		{"a body cut after the choices", `{"choices":[]`, "JSON ends in the middle (after 13 bytes)"},
		{"a body nested too deep", `{"choices":[{"text":"a"}],"x":` + strings.Repeat("[", jsonscan.MaxDepth) +
			strings.Repeat("]", jsonscan.MaxDepth) + "}", "JSON is nested too deep"},
		{"a malformed number", `{"choices":[{"logprob":-Infinity}]}`, "broken JSON at byte 25: "},
		{"two bodies", `{"choices":[]}{}`, "text after the JSON object at byte 15"},
		{"a broken value that is not read", `{"usage":{"a":01}}`, "broken JSON at byte "},
		{"bytes that are not UTF-8", "{\"choices\":[{\"text\":\"\xff\"}]}", "broken JSON at byte "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got, err := openai.ReadAnswer(chat, nil, []byte(tt.body))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}

			if diff := cmp.Diff(openai.Answer{}, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadAnswerAtTheSameTime(t *testing.T) {
	t.Parallel()

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				for _, tt := range answers {
					got, err := openai.ReadAnswer(tt.endpoint, nil, []byte(tt.body))
					if err != nil || !cmp.Equal(got, tt.whole()) {
						t.Errorf("%s is read otherwise, error %v", tt.name, err)
						return
					}
				}
			}
		})
	}

	wg.Wait()
}

func FuzzReadAnswer(f *testing.F) {
	for _, tt := range answers {
		f.Add(tt.endpoint, []byte(tt.body))
	}

	for _, text := range []string{
		`[]`, `[{"score":0}]{}`, `{"choices":[{"message":{"content":"a`, `{"choices":[}`, `{"a":1}{}`,
		`{"output":[{"content":[{"text":1}]}]}`, "{\"\\ud83d\":\"\xff\"}",
	} {
		for _, endpoint := range proto.Endpoints {
			f.Add(endpoint, []byte(text))
		}
	}

	f.Fuzz(func(t *testing.T, endpoint string, body []byte) {
		before := string(body)
		c, err := openai.ReadAnswer(endpoint, nil, body)
		if string(body) != before {
			t.Fatal("the body has changed")
		}

		// The scanner decides whether the body is one whole JSON value.
		var s jsonscan.Scanner
		s.Reset(body)
		if s.Kind() == '[' && (endpoint == rerank || endpoint == score || endpoint == embeddings) {
			for s.EnterArray(); s.NextElement(); {
			}
		} else {
			for s.Enter(); s.Next(); {
			}
		}

		if want := s.End(); (err == nil) != (want == nil && !jsonscan.TooDeep(body)) {
			t.Errorf("error %v, the scanner says %v", err, want)
		}
		if err != nil {
			if c.Text != nil || c.Problem != "" {
				t.Errorf("%+v", c)
			}
			return
		}

		// Each answer is read again from its line. A line that cannot be read would
		// be dropped by the collector, and its request be run for ever.
		line := proto.AppendResult(nil, proto.Result{CustomID: []byte(`"a"`), Status: 200, Body: proto.OneLine(body)})
		l, err := proto.ParseLine(&s, line)
		if err != nil {
			t.Fatalf("%q is taken, and its line is not: %v", before, err)
		}

		if !l.OK || l.PromptTokens != c.Usage.Prompt || l.CompletionTokens != c.Usage.Completion ||
			l.Finish != c.Finish {
			t.Fatalf("%q is read as %+v, and its line as %+v", before, c, l)
		}
	})
}

func BenchmarkReadAnswer(b *testing.B) {
	request := []byte(`{"model":"m","messages":[{"role":"user","content":"` +
		strings.Repeat("What is this? ", 200) + `"}]}`)
	body := []byte(vllmChat)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()

	for b.Loop() {
		if _, err := openai.ReadAnswer(chat, request, body); err != nil {
			b.Fatal(err)
		}
	}
}
