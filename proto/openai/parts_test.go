package openai_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto/openai"
)

func TestReadAnswerPart(t *testing.T) {
	t.Parallel()

	const (
		oneVector  = `{"data":[{"index":0,"embedding":[1]}]}`
		twoVectors = `{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[2]}]}`
		oneRank    = `{"results":[{"index":1,"relevance_score":0.5}]}`
		twoRanks   = `{"results":[{"index":1,"relevance_score":0.5},{"index":0,"relevance_score":0.1}]}`
		oneScore   = `{"data":[{"index":0,"score":0.5}]}`
		twoScores  = `{"data":[{"index":0,"score":0.5},{"index":1,"score":0.5}]}`
		oneText    = `{"choices":[{"index":0,"text":"a"}]}`
		twoTexts   = `{"choices":[{"index":0,"text":"a"},{"index":1,"text":"b"}]}`
		index      = "the answer has an index"
	)
	for _, tt := range []struct {
		name, endpoint, request, body string
		want                          string // begin of the problem
	}{
		{"an input", embeddings, `{"input":"a"}`, oneVector, ""},
		{"two for an input", embeddings, `{"input":"a"}`, twoVectors,
			"the request is for 1 embedding, and the answer has 2"},
		{"two inputs", embeddings, `{"input":["a","b"]}`, twoVectors, ""},
		{"one of two inputs", embeddings, `{"input":["a","b"]}`, oneVector,
			"the request is for 2 embeddings, and the answer has 1"},
		{"tokens", embeddings, `{"input":[1,2,3]}`, oneVector, ""},
		{"lists of tokens", embeddings, `{"input":[[1,2],[3]]}`, twoVectors, ""},
		{"one of two lists of tokens", embeddings, `{"input":[[1,2],[3]]}`, oneVector,
			"the request is for 2 embeddings"},
		{"texts and tokens in one list", embeddings, `{"input":["a",1]}`, oneVector, ""},
		{"objects", embeddings, `{"input":[{"text":"a"},{"image":"b"}]}`, oneVector, ""},
		{"an index twice", embeddings, `{"input":["a","b"]}`,
			`{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[2]}]}`, index + " twice"},
		{"an index of no input", embeddings, `{"input":["a","b"]}`,
			`{"data":[{"index":1,"embedding":[1]},{"index":2,"embedding":[2]}]}`, index + " that none of the 2 parts"},
		{"an index below 0", embeddings, `{"input":"a"}`, `{"data":[{"index":-1,"embedding":[1]}]}`,
			index + " that none of the 1 parts"},
		{"no index", embeddings, `{"input":["a","b"]}`, `{"data":[{"embedding":[1]},{"embedding":[2]}]}`, ""},
		{"a vector alone", embeddings, `{"input":"a"}`, `[0.1,0.2]`, ""},
		{"vectors alone", embeddings, `{"input":["a","b"]}`, `[[0.1,0.2],[0.3,0.4]]`, ""},
		{"a vector alone for two inputs", embeddings, `{"input":["a","b"]}`, `[0.1,0.2]`,
			"the request is for 2 embeddings"},

		{"all documents", rerank, `{"query":"q","documents":["a","b"]}`, twoRanks, ""},
		{"one of two documents", rerank, `{"query":"q","documents":["a","b"]}`, oneRank,
			"the request is for 2 scores, and the answer has 1"},
		{"one of two documents alone", rerank, `{"query":"q","documents":["a","b"]}`, `[{"index":0,"score":1}]`,
			"the request is for 2 scores"},
		{"the best document", rerank, `{"query":"q","documents":["a","b"],"top_n":1}`, oneRank, ""},
		{"the best document by top_k", rerank, `{"query":"q","documents":["a","b"],"top_k":1}`, oneRank, ""},
		{"a server that does not know top_n", rerank, `{"query":"q","documents":["a","b"],"top_n":1}`, twoRanks, ""},
		{"the best of fewer documents", rerank, `{"query":"q","documents":["a","b"],"top_n":5}`, oneRank,
			"the request is for 2 scores"},
		{"top_n 0", rerank, `{"query":"q","documents":["a","b"],"top_n":0}`, twoRanks, ""},
		{"top_n null", rerank, `{"query":"q","documents":["a","b"],"top_n":null}`, oneRank,
			"the request is for 2 scores"},
		{"too many documents", rerank, `{"query":"q","documents":[{"text":"a"}]}`, twoRanks,
			"the request is for 1 score, and the answer has 2"},
		{"a document twice", rerank, `{"query":"q","documents":["a","b"]}`,
			`[{"index":1,"score":1},{"index":1,"score":1}]`, index + " twice"},
		{"the best of no document", rerank, `{"query":"q","documents":["a","b"],"top_n":1}`, `[{"index":2,"score":1}]`,
			index + " that none"},
		{"documents of another form", rerank, `{"query":"q","documents":{"content":[]}}`, oneRank, ""},

		{"a pair", score, `{"text_1":"a","text_2":"b"}`, oneScore, ""},
		{"a text and two", score, `{"text_1":"a","text_2":["b","c"]}`, twoScores, ""},
		{"one of two pairs", score, `{"text_1":["a","b"],"text_2":["b","c"]}`, oneScore, "the request is for 2 scores"},
		{"two for a pair", score, `{"text_1":["a"],"text_2":"b"}`, twoScores, "the request is for 1 score,"},
		{"a pair twice", score, `{"text_1":"a","text_2":["b","c"]}`,
			`{"data":[{"index":0,"score":0.5},{"index":0,"score":0.5}]}`, index + " twice"},
		{"a query and documents", score, `{"queries":"a","documents":["b","c"]}`, oneScore,
			"the request is for 2 scores"},
		{"items of SGLang", score, `{"query":"a","items":["b","c"]}`, `{"scores":[[0.1,0.9]]}`,
			"the request is for 2 scores"},
		{"all items of SGLang", score, `{"query":[1],"items":[[2],[3]]}`, `{"scores":[[0.1,0.9],[0.2,0.8]]}`, ""},
		{"pictures", score, `{"text_1":"a","text_2":{"content":[{},{}]}}`, oneScore, ""},

		{"a prompt", completions, `{"prompt":"a"}`, oneText, ""},
		{"two for a prompt", completions, `{"prompt":"a"}`, twoTexts,
			"the request is for 1 choice, and the answer has 2"},
		{"two prompts", completions, `{"prompt":["a","b"]}`, twoTexts, ""},
		{"one of two prompts", completions, `{"prompt":["a","b"]}`, oneText,
			"the request is for 2 choices, and the answer has 1"},
		{"one of two completions", completions, `{"prompt":"a","n":2,"best_of":3}`, oneText,
			"the request is for 2 choices"},
		{"two completions", completions, `{"prompt":[1,2],"n":2,"best_of":3}`, twoTexts, ""},
		{"two prompts, two completions each", completions, `{"prompt":["a","b"],"n":2}`, twoTexts,
			"the request is for 4 choices"},
		{"n null", completions, `{"prompt":"a","n":null}`, oneText, ""},
		{"n of another form", completions, `{"prompt":"a","n":"2"}`, oneText, ""},
		{"embeddings for a prompt", completions, `{"prompt":"","prompt_embeds":["a","b"]}`, twoTexts, ""},
		{"objects for a prompt", completions, `{"prompt":[{"prompt_string":"a"},{"prompt_string":"b"}]}`, oneText, ""},

		{"one of two choices", chat, `{"messages":[],"n":2}`, `{"choices":[{"message":{"content":"a"}}]}`,
			"the request is for 2 choices, and the answer has 1"},
		{"two choices", chat, `{"messages":[],"n":2.0}`,
			`{"choices":[{"message":{"content":"a"}},{"message":{"content":"b"}}]}`, ""},
		{"n elsewhere", chat, `{"messages":[{"content":"","n":2}]}`, `{"choices":[{"message":{"content":"a"}}]}`, ""},
		{"no n", chat, `{"messages":[]}`, `{"choices":[{"message":{"content":"a"}}]}`, ""},
		{"a response", responses, `{"input":["a","b"],"n":2}`,
			`{"status":"completed","output":[{"type":"function_call"}]}`, ""},
		{"a request that is no JSON", chat, `{"n":2`, `{"choices":[{"message":{"content":"a"}}]}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := openai.ReadAnswer(tt.endpoint, []byte(tt.request), []byte(tt.body))
			if err != nil || !strings.HasPrefix(c.Problem, tt.want) || tt.want == "" && c.Problem != "" {
				t.Errorf("problem %q, error %v; want %q", c.Problem, err, tt.want)
			}
		})
	}
}

func FuzzReadAnswerPart(f *testing.F) {
	f.Add(embeddings, []byte(`{"input":["a",[1]]}`), []byte(`{"data":[{"index":0,"embedding":"AACAPw=="}]}`))
	f.Add(rerank, []byte(`{"documents":[{}],"top_n":1e400,"top_k":-1}`),
		[]byte(`[{"index":-9,"score":1},{"index":null,"score":2}]`))
	f.Add(score, []byte(`{"text_1":["a"],"text_2":[],"items":{}}`), []byte(`{"scores":[[1]]}`))
	f.Add(completions, []byte(`{"prompt":[[1],[2]],"n":1000000}`),
		[]byte(`{"choices":[{"text":"a"}],"error":{"code":0}}`))
	f.Add(chat, []byte(`{"n":2}{`), []byte(`{"choices":[{"text":"a"}]}`))
	f.Fuzz(func(t *testing.T, endpoint string, request, body []byte) {
		asked, said := string(request), string(body)
		c, err := openai.ReadAnswer(endpoint, request, body)
		if string(request) != asked || string(body) != said {
			t.Fatal("the request or the body has changed")
		}

		alone, aloneErr := openai.ReadAnswer(endpoint, nil, body)
		if (err == nil) != (aloneErr == nil) {
			t.Fatalf("error %v with the request, %v without", err, aloneErr)
		}

		// A request makes a problem where there is none, and changes nothing else.
		if alone.Problem == "" {
			alone.Problem = c.Problem
		}

		if diff := cmp.Diff(alone, c); diff != "" {
			t.Errorf("content without the request, and with it (-without +with):\n%s", diff)
		}
	})
}
