package apiserver

import (
	"encoding/json"
	"net/http"

	"github.com/promptmill/promptmill/deploy/httpserver"
)

// refuseForeign refuses requests that do not come from a program of this machine, while no key is needed.
func (s *Server) refuseForeign(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		required, _ := s.cfg.Keys.Required()
		if required || !httpserver.IsForeign(r) {
			next.ServeHTTP(w, r)
			return
		}

		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{
			"message": "This request came through a web page, through a proxy or under another name than localhost. It " +
				"needs an API key: promptmill key create makes one.",
			"type":  "invalid_request_error",
			"param": nil,
			"code":  "api_key_required",
		}})
	})
}
