package sim

import (
	"fmt"
	"net/http"
)

// refuse answers with an error in the form of the flavour.
func (s *Server) refuse(w http.ResponseWriter, status int, kind, message string) {
	switch s.cfg.Flavour {
	case SGLang:
		writeJSON(w, status, object{"object": "error", "message": message, "type": kind, "param": nil, "code": status})
	case LlamaCPP:
		writeJSON(w, status, object{"error": object{"code": status, "message": message, "type": kind}})
	case Ollama: // middleware/openai.go
		writeJSON(w, status, object{"error": object{"message": message, "type": kind, "param": nil, "code": nil}})
	default:
		writeJSON(w, status, object{"error": object{"message": message, "type": kind, "param": nil, "code": status}})
	}
}

// refuseBusy answers that the queue is full.
func (s *Server) refuseBusy(w http.ResponseWriter) {
	switch s.cfg.Flavour {
	case SGLang:
		s.refuse(w, http.StatusServiceUnavailable, "ServiceUnavailable", "The request queue is full.")
	case LlamaCPP: // it never does; for the fault of that name
		s.refuse(w, http.StatusServiceUnavailable, "unavailable_error", "no slot available")
	case Ollama:
		s.refuse(w, http.StatusServiceUnavailable, "api_error", "server busy, please try again.  maximum pending requests exceeded")
	case Plain:
		s.refuse(w, http.StatusTooManyRequests, "rate_limit_exceeded", "too many requests")
	default:
		s.refuse(w, http.StatusServiceUnavailable, "ServiceUnavailableError", "server busy, please try again")
	}
}

func (s *Server) refuseModel(w http.ResponseWriter, model string) {
	if s.cfg.Flavour == Ollama {
		s.refuse(w, http.StatusNotFound, "not_found_error", fmt.Sprintf("model %q not found, try pulling it first", model))
		return
	}
	s.refuse(w, http.StatusNotFound, "NotFoundError", fmt.Sprintf("The model `%s` does not exist.", model))
}

// refuseLength answers that the context is too short: a final answer, which a client
// must not try again.
func (s *Server) refuseLength(w http.ResponseWriter, prompt, most int) {
	length := s.context()
	switch {
	case s.cfg.Flavour == LlamaCPP:
		writeJSON(w, http.StatusBadRequest, object{"error": object{
			"code": http.StatusBadRequest, "type": "exceed_context_size_error", "n_prompt_tokens": prompt, "n_ctx": length,
			"message": fmt.Sprintf("request (%d tokens) exceeds the available context size (%d tokens), try increasing it", prompt, length),
		}})
	case s.cfg.Flavour == SGLang && prompt >= length:
		s.refuse(w, http.StatusBadRequest, "BadRequestError",
			fmt.Sprintf("The input (%d tokens) is longer than the model's context length (%d tokens).", prompt, length))
	case s.cfg.Flavour == SGLang:
		s.refuse(w, http.StatusBadRequest, "BadRequestError",
			fmt.Sprintf("Requested token count exceeds the model's maximum context length of %d tokens. You requested a total of %d tokens: "+
				"%d tokens from the input messages and %d tokens for the completion.", length, prompt+most, prompt, most))
	default: // vllm-project/vllm#20409
		s.refuse(w, http.StatusBadRequest, "BadRequestError",
			fmt.Sprintf("This model's maximum context length is %d tokens. However, you requested %d tokens "+
				"(%d in the messages, %d in the completion). Please reduce the length of the messages or completion.", length, prompt+most, prompt, most))
	}
}
