package sim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// responder writes JSON and errors in the form of a flavour.
type responder struct{ cfg *Config }

// writeJSON answers with JSON.
func (r responder) writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}

	w.Header().Set("Content-Type", r.cfg.Flavour.jsonType())
	if r.cfg.Flavour == LlamaCPP && status >= http.StatusBadRequest {
		w.Header().Set("Connection", "close")
	}

	w.WriteHeader(status)
	w.Write(body)
}

// refuse answers with an error in the form of the flavour.
func (r responder) refuse(w http.ResponseWriter, status int, kind, message string) {
	switch r.cfg.Flavour {
	case SGLang:
		r.writeJSON(w, status, object{
			"object":  "error",
			"message": message,
			"type":    kind,
			"param":   nil,
			"code":    status,
		})
	case LlamaCPP:
		r.writeJSON(w, status, object{"error": object{"code": status, "message": message, "type": kind}})
	case Ollama: // middleware/openai.go
		r.writeJSON(w, status, object{"error": object{
			"message": message,
			"type":    kind,
			"param":   nil,
			"code":    nil,
		}})
	default:
		r.writeJSON(w, status, object{"error": object{
			"message": message,
			"type":    kind,
			"param":   nil,
			"code":    status,
		}})
	}
}

// refuseBody answers that a request cannot be parsed.
func (r responder) refuseBody(w http.ResponseWriter, err error) {
	switch r.cfg.Flavour {
	case VLLM:
		r.writeJSON(w, http.StatusBadRequest, object{"error": object{
			"code": http.StatusBadRequest,
			"message": "1 validation error:\n  {'type': 'json_invalid', 'msg': 'JSON decode error', 'ctx': {'error': '" +
				err.Error() + "'}}",
			"param": "body",
			"type":  "Bad Request",
		}})
	case LlamaCPP:
		r.refuse(w, http.StatusBadRequest, "invalid_request_error", err.Error())
	default:
		r.refuse(w, http.StatusBadRequest, "BadRequestError", err.Error())
	}
}

// refuseFeature answers that llama.cpp was started without a feature.
func (r responder) refuseFeature(w http.ResponseWriter, feature, flag string) {
	r.refuse(w, http.StatusNotImplemented, "not_supported_error",
		fmt.Sprintf("This server does not support %s. Start it with `%s`", feature, flag))
}

// refuseBusy answers that the queue is full.
func (r responder) refuseBusy(w http.ResponseWriter) {
	switch r.cfg.Flavour {
	case SGLang:
		r.refuse(w, http.StatusServiceUnavailable, "ServiceUnavailable", "The request queue is full.")
	case LlamaCPP: // it never does so; for the fault of that name
		r.refuse(w, http.StatusServiceUnavailable, "unavailable_error", "no slot available")
	case Ollama:
		r.refuse(w, http.StatusServiceUnavailable, "api_error",
			"server busy, please try again.  maximum pending requests exceeded")
	case Plain:
		r.refuse(w, http.StatusTooManyRequests, "rate_limit_exceeded", "too many requests")
	default:
		r.refuse(w, http.StatusServiceUnavailable, "ServiceUnavailableError", "server busy, please try again")
	}
}

// refuseEvicted answers a request whose model was unloaded meanwhile. Only llama.cpp's router
// does that, in plain text (tools/server/server-models.cpp, server_http_proxy).
func (r responder) refuseEvicted(w http.ResponseWriter, why string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprint(w, "proxy error: "+why)
}

// refuseModel answers that there is no such model.
func (r responder) refuseModel(w http.ResponseWriter, model string) {
	if r.cfg.Flavour == LlamaCPP {
		r.refuse(w, http.StatusBadRequest, "invalid_request_error", fmt.Sprintf("model '%s' not found", model))
		return
	}

	if r.cfg.Flavour == Ollama {
		r.refuse(w, http.StatusNotFound, "not_found_error",
			fmt.Sprintf("model %q not found, try pulling it first", model))
		return
	}

	if r.cfg.Flavour == VLLM {
		r.writeJSON(w, http.StatusNotFound, object{"error": object{
			"code": http.StatusNotFound,
			"message": fmt.Sprintf("The model `%s` does not exist. Valid aliases: %s.",
				model, strings.Join(r.cfg.Models, ", ")),
			"param": "model",
			"type":  "NotFoundError",
		}})

		return
	}

	r.refuse(w, http.StatusNotFound, "NotFoundError", fmt.Sprintf("The model `%s` does not exist.", model))
}

// refuseLength answers that the context is too short. A client must not retry that.
func (r responder) refuseLength(w http.ResponseWriter, prompt, most int) {
	length := r.cfg.contextLength()
	switch {
	case r.cfg.Flavour == LlamaCPP:
		r.writeJSON(w, http.StatusBadRequest, object{"error": object{
			"code":            http.StatusBadRequest,
			"type":            "exceed_context_size_error",
			"n_prompt_tokens": prompt,
			"n_ctx":           length,
			"message": fmt.Sprintf("request (%d tokens) exceeds the available context size (%d tokens), try increasing it",
				prompt, length),
		}})
	case r.cfg.Flavour == SGLang && prompt >= length:
		r.refuse(w, http.StatusBadRequest, "BadRequestError",
			fmt.Sprintf("The input (%d tokens) is longer than the model's context length (%d tokens).", prompt, length))
	case r.cfg.Flavour == SGLang:
		r.refuse(w, http.StatusBadRequest, "BadRequestError",
			fmt.Sprintf("Requested token count exceeds the model's maximum context length of %d tokens. You requested a total of %d tokens: "+
				"%d tokens from the input messages and %d tokens for the completion.", length,
				prompt+most, prompt, most))
	case r.cfg.Flavour == VLLM && most > length:
		r.refuseParameter(w, "max_tokens", most,
			fmt.Sprintf("max_tokens=%d cannot be greater than max_model_len=%d. Please request fewer output tokens.",
				most, length))
	case r.cfg.Flavour == VLLM && prompt*bytesPerToken > 10*length: // it does not even count the tokens
		r.refuseParameter(w, "input_text", prompt*bytesPerToken,
			fmt.Sprintf("This model's maximum context length is %d tokens. However, your prompt contains %d characters (more than %d characters, "+
				"which is the upper bound for %d input tokens). Please reduce the length of the input prompt.", length,
				prompt*bytesPerToken, 10*length, length))
	case r.cfg.Flavour == VLLM: // it counts no further than this
		r.refuseParameter(w, "input_tokens", length+1,
			fmt.Sprintf("This model's maximum context length is %d tokens. However, your prompt contains at least %d input tokens, "+
				"which exceeds this limit even without any output tokens. Please reduce the length of the input prompt.",
				length, length+1))
	default: // as vLLM did before: vllm-project/vllm#20409
		r.refuse(w, http.StatusBadRequest, "BadRequestError",
			fmt.Sprintf("This model's maximum context length is %d tokens. However, you requested %d tokens "+
				"(%d in the messages, %d in the completion). Please reduce the length of the messages or completion.",
				length, prompt+most, prompt, most))
	}
}

// refuseParameter answers as vLLM does when a parameter of a request is out of its range.
func (r responder) refuseParameter(w http.ResponseWriter, name string, value int, message string) {
	r.writeJSON(w, http.StatusBadRequest, object{"error": object{
		"code":    http.StatusBadRequest,
		"message": fmt.Sprintf("%s (parameter=%s, value=%d)", message, name, value),
		"param":   name,
		"type":    "BadRequestError",
	}})
}
