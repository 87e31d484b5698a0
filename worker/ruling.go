package worker

import (
	"bytes"
	"net/http"
	"regexp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// ruling decides the consequence of a refusal of one kind for the request that got it.
type ruling struct {
	// from and to are the first and the last status that the ruling is for.
	from, to int
	// pattern must match the server's message; nil: any message does.
	pattern *regexp.Regexp
	verdict verdict
	// fix is the remedy if all requests are refused so; empty: that of [RefusedError.Fix] for the
	// status.
	fix string
}

// rulings decide the consequence of a status that is no success. The first that matches counts. A
// status that matches none is final below 500, and retried from 500 on.
//
// The rule: a request is retried only where a retry can change the outcome. A request that can
// never work costs one attempt; where that may be so for all requests (barred), others decide
// before it fails.
//
// The sources: vLLM 0.33.0 (vllm/entrypoints/serve/exception_handling/error_response.py and
// engine/serving.py, openai/*/api_router.py, exceptions.py), SGLang 0.5.23
// (srt/entrypoints/openai/serving_base.py and serving_responses.py, http_server.py,
// srt/managers/scheduler.py and tokenizer_manager.py), llama.cpp (tools/server:
// server-common.cpp at 006639c, server-context.cpp, server-models.cpp, server-http.cpp),
// Ollama fb30760 (server/routes.go, server/sched.go, llm/llama_server.go,
// openai/openai.go), text-generation-inference 3 (router/src/server.rs), Dynamo 0014908
// (lib/llm/src/http/service/openai.rs) and LiteLLM 1.110.2 (proxy/route_llm_request.py,
// proxy/_types.py, exceptions.py). testdata/refusals.json has an answer for each row.
var rulings = []ruling{
	// An account without credit, at OpenAI and LiteLLM.
	{400, 429, messagePattern(`exceeded your current quota|budget has been exceeded`), barred, fixCredit},

	// Not now. vLLM, SGLang and Ollama send 503 when their queue is full, Dynamo 529; TGI sends
	// 424 when the model's part failed; nginx 499 when it gave up. 504 and 524 come from a proxy.
	{408, 409, nil, retry, ""},
	{424, 425, nil, retry, ""},
	{429, 429, nil, retry, ""},
	{499, 499, nil, retry, ""},

	// The model is not there yet, or no longer: llama.cpp is loading it ("Loading model"); its
	// router has unloaded it for another one, or asked it too early ("model name=m is not
	// running", "proxy error: Could not establish connection"), as llama-swap does ("process is
	// not ready", internal/process/process_command.go). The request has reached no model.
	{503, 503, messagePattern(`^loading model$|process is not ready$`), loading, ""},
	{400, 400, messagePattern(`^model name=.* is not running$`), loading, ""},
	{500, 500, messagePattern(`^proxy error: could not establish connection$`), loading, ""},

	// Perhaps all requests: the key, the endpoint or the address is wrong. See [refusals].
	{0, 199, nil, barred, ""},
	{300, 399, nil, barred, ""},
	{401, 405, nil, barred, ""},
	{407, 407, nil, barred, ""},
	{410, 410, nil, barred, ""},
	{421, 421, nil, barred, ""},
	{426, 426, nil, barred, ""},
	{511, 511, nil, barred, ""}, // a network that needs a login first

	// A model that the server lacks or has not loaded, where the status is not 404:
	// LiteLLM's "Invalid model name passed in", llama.cpp's router ("model not found", "model
	// is not loaded"), LM Studio ("No models loaded").
	{400, 422, messagePattern(`\bmodels?\b.*(not found|does ?n[o']t exist|not loaded|not available|is unknown)`),
		barred, fixModel},
	{400, 422, messagePattern(`(no|unknown|unsupported) (such )?model|no models? (is )?loaded|invalid model name`),
		barred, fixModel},
	{400, 400, messagePattern(`api.?key`), barred, "set PROMPTMILL_API_KEY to a key that the server takes"}, // Google

	// Ollama ("x" does not support chat), SGLang (add --is-embedding), LM Studio (Model is not
	// embedding), vLLM ("auto" tool choice requires --enable-auto-tool-choice): a model of
	// another kind, or a server that was started for something else.
	{400, 400, messagePattern(`does not support|not (appear to be an? )?embedding|requires --[a-z]`), barred, fixAble},

	// The server, as it was started, cannot do this. llama.cpp: not_supported_error; vLLM and
	// SGLang: NotImplementedError; Ollama passes on llama.cpp's. 505, 506, 508 and 510 are of
	// the same kind for HTTP.
	{501, 501, nil, barred, fixAble},
	{505, 506, nil, barred, ""},
	{508, 508, nil, barred, ""},
	{510, 510, nil, barred, ""},

	// llama.cpp sends 500 for a fault of the request, wherever its code throws a runtime_error:
	// an input that cannot be split and is longer than a batch, a chat that its template refuses,
	// two grammars ...
	{500, 500, messagePattern(`too large to process`), final, ""},
	{500, 500, messagePattern(`jinja exception|conversation roles must|cannot use both json_schema and grammar`),
		final, ""},

	// ... and for a feature that it was not started with.
	{500, 500, messagePattern(`input is not supported|requires --jinja|does not (support )?logits computation`),
		barred, fixAble},
	{500, 500, messagePattern(`may be incompatible with your version of ollama`), barred,
		"update Ollama, or pull the model again"},

	// SGLang sends 503 for a request with a priority, which would pass without one.
	{503, 503, messagePattern(`using priority is disabled`), barred,
		"leave out priority, or start SGLang with --enable-priority-scheduling"},
}

// Remedies for refusals whose status alone does not show them.
const (
	fixModel  = "list the server's models with promptmill doctor; --override-model NAME sends all requests to one of them"
	fixAble   = "start the server with the option that its message names, or check that it is the right one for these requests"
	fixCredit = "the account at the server has no credit: add some, or set PROMPTMILL_API_KEY to the key of another account"
)

func messagePattern(pattern string) *regexp.Regexp { return regexp.MustCompile(`(?i)` + pattern) }

// findRuling returns the ruling for a status that is no success, with the body of its answer.
func findRuling(status int, body []byte) ruling {
	text, read := "", false
	for _, r := range rulings {
		if status < r.from || status > r.to {
			continue
		}

		if r.pattern != nil && !read {
			text, read = proto.ErrorText(body), true
		}

		if r.pattern == nil || r.pattern.MatchString(text) {
			return r
		}
	}

	if status >= http.StatusInternalServerError {
		return ruling{verdict: retry}
	}

	return ruling{verdict: final}
}

// isOverloadStatus reports whether a status means that the server has too many requests.
func isOverloadStatus(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable || status == 529
}

// isCacheFull reports whether the requests that llama.cpp runs do not fit together into its cache,
// which its slots share by default. It then fails all that run (server-context.cpp, decode), though
// each may fit alone.
func isCacheFull(status int, body []byte) bool {
	return status == http.StatusInternalServerError && cacheFullMessage.MatchString(proto.ErrorText(body))
}

var cacheFullMessage = messagePattern(`^context size has been exceeded`)

// isTimeoutStatus reports whether a status means that something in front of the server no longer
// waits for it: a gateway (504), Cloudflare (524), LiteLLM (408).
func isTimeoutStatus(status int) bool {
	return status == http.StatusRequestTimeout || status == http.StatusGatewayTimeout || status == 524
}

// pageTitle returns the text of an answer that is a page or a text, and "" for JSON.
func pageTitle(body []byte) string {
	body = bytes.TrimSpace(body)
	if len(body) == 0 || body[0] == '{' || body[0] == '[' {
		return ""
	}
	return proto.ErrorText(jsonscan.Quote(string(body)))
}
