package sim

import (
	"fmt"
	"net/http"
	"strings"
)

// refuse answers with an error in the form of the flavour.
func (s *Server) refuse(w http.ResponseWriter, status int, kind, message string) {
	switch s.cfg.Flavour {
	case SGLang:
		s.writeJSON(w, status, object{
			"object":  "error",
			"message": message,
			"type":    kind,
			"param":   nil,
			"code":    status,
		})
	case LlamaCPP:
		s.writeJSON(w, status, object{"error": object{"code": status, "message": message, "type": kind}})
	case Ollama: // middleware/openai.go
		s.writeJSON(w, status, object{"error": object{
			"message": message,
			"type":    kind,
			"param":   nil,
			"code":    nil,
		}})
	default:
		s.writeJSON(w, status, object{"error": object{
			"message": message,
			"type":    kind,
			"param":   nil,
			"code":    status,
		}})
	}
}

// refuseBody answers that a body cannot be read.
func (s *Server) refuseBody(w http.ResponseWriter, err error) {
	switch s.cfg.Flavour {
	case VLLM:
		s.writeJSON(w, http.StatusBadRequest, object{"error": object{
			"code": http.StatusBadRequest,
			"message": "1 validation error:\n  {'type': 'json_invalid', 'msg': 'JSON decode error', 'ctx': {'error': '" +
				err.Error() + "'}}",
			"param": "body",
			"type":  "Bad Request",
		}})
	case LlamaCPP:
		s.refuse(w, http.StatusBadRequest, "invalid_request_error", err.Error())
	default:
		s.refuse(w, http.StatusBadRequest, "BadRequestError", err.Error())
	}
}

// refuseFeature registers an endpoint that llama.cpp has only when started for it.
func (s *Server) refuseFeature(path, feature, flag string) {
	s.mux.HandleFunc("POST "+path, func(w http.ResponseWriter, _ *http.Request) {
		s.refuse(w, http.StatusNotImplemented, "not_supported_error", notStarted(feature, flag))
	})
}

func notStarted(feature, flag string) string {
	return fmt.Sprintf("This server does not support %s. Start it with `%s`", feature, flag)
}

// refuseBusy answers that the queue is full.
func (s *Server) refuseBusy(w http.ResponseWriter) {
	switch s.cfg.Flavour {
	case SGLang:
		s.refuse(w, http.StatusServiceUnavailable, "ServiceUnavailable", "The request queue is full.")
	case LlamaCPP: // it never does; for the fault of that name
		s.refuse(w, http.StatusServiceUnavailable, "unavailable_error", "no slot available")
	case Ollama:
		s.refuse(w, http.StatusServiceUnavailable, "api_error",
			"server busy, please try again.  maximum pending requests exceeded")
	case Plain:
		s.refuse(w, http.StatusTooManyRequests, "rate_limit_exceeded", "too many requests")
	default:
		s.refuse(w, http.StatusServiceUnavailable, "ServiceUnavailableError", "server busy, please try again")
	}
}

// refuseEvicted answers a request whose model was unloaded meanwhile. Only llama.cpp's router
// does that (tools/server/server-models.cpp, server_http_proxy); it says it in plain text.
func (s *Server) refuseEvicted(w http.ResponseWriter, why string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprint(w, "proxy error: "+why)
}

func (s *Server) refuseModel(w http.ResponseWriter, model string) {
	if s.cfg.Flavour == LlamaCPP {
		s.refuse(w, http.StatusBadRequest, "invalid_request_error", fmt.Sprintf("model '%s' not found", model))
		return
	}

	if s.cfg.Flavour == Ollama {
		s.refuse(w, http.StatusNotFound, "not_found_error",
			fmt.Sprintf("model %q not found, try pulling it first", model))
		return
	}

	if s.cfg.Flavour == VLLM {
		s.writeJSON(w, http.StatusNotFound, object{"error": object{
			"code": http.StatusNotFound,
			"message": fmt.Sprintf("The model `%s` does not exist. Valid aliases: %s.",
				model, strings.Join(s.cfg.Models, ", ")),
			"param": "model",
			"type":  "NotFoundError",
		}})

		return
	}

	s.refuse(w, http.StatusNotFound, "NotFoundError", fmt.Sprintf("The model `%s` does not exist.", model))
}

// refuseLength answers that the context is too short: a final answer, which a client
// must not try again.
func (s *Server) refuseLength(w http.ResponseWriter, prompt, most int) {
	length := s.contextLength()
	switch {
	case s.cfg.Flavour == LlamaCPP:
		s.writeJSON(w, http.StatusBadRequest, object{"error": object{
			"code":            http.StatusBadRequest,
			"type":            "exceed_context_size_error",
			"n_prompt_tokens": prompt,
			"n_ctx":           length,
			"message": fmt.Sprintf("request (%d tokens) exceeds the available context size (%d tokens), try increasing it",
				prompt, length),
		}})
	case s.cfg.Flavour == SGLang && prompt >= length:
		s.refuse(w, http.StatusBadRequest, "BadRequestError",
			fmt.Sprintf("The input (%d tokens) is longer than the model's context length (%d tokens).", prompt, length))
	case s.cfg.Flavour == SGLang:
		s.refuse(w, http.StatusBadRequest, "BadRequestError",
			fmt.Sprintf("Requested token count exceeds the model's maximum context length of %d tokens. You requested a total of %d tokens: "+
				"%d tokens from the input messages and %d tokens for the completion.", length,
				prompt+most, prompt, most))
	case s.cfg.Flavour == VLLM && most > length:
		s.refuseParameter(w, "max_tokens", most,
			fmt.Sprintf("max_tokens=%d cannot be greater than max_model_len=%d. Please request fewer output tokens.",
				most, length))
	case s.cfg.Flavour == VLLM && prompt*bytesPerToken > 10*length: // it does not even count the tokens
		s.refuseParameter(w, "input_text", prompt*bytesPerToken,
			fmt.Sprintf("This model's maximum context length is %d tokens. However, your prompt contains %d characters (more than %d characters, "+
				"which is the upper bound for %d input tokens). Please reduce the length of the input prompt.", length,
				prompt*bytesPerToken, 10*length, length))
	case s.cfg.Flavour == VLLM: // it counts no further than this
		s.refuseParameter(w, "input_tokens", length+1,
			fmt.Sprintf("This model's maximum context length is %d tokens. However, your prompt contains at least %d input tokens, "+
				"which exceeds this limit even without any output tokens. Please reduce the length of the input prompt.",
				length, length+1))
	default: // as vLLM did before: vllm-project/vllm#20409
		s.refuse(w, http.StatusBadRequest, "BadRequestError",
			fmt.Sprintf("This model's maximum context length is %d tokens. However, you requested %d tokens "+
				"(%d in the messages, %d in the completion). Please reduce the length of the messages or completion.",
				length, prompt+most, prompt, most))
	}
}

// refuseParameter answers as vLLM does when a parameter of a request is out of its range.
func (s *Server) refuseParameter(w http.ResponseWriter, name string, value int, message string) {
	s.writeJSON(w, http.StatusBadRequest, object{"error": object{
		"code":    http.StatusBadRequest,
		"message": fmt.Sprintf("%s (parameter=%s, value=%d)", message, name, value),
		"param":   name,
		"type":    "BadRequestError",
	}})
}
