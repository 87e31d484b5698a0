package apiserver

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
)

// refuseBrowsers refuses the requests that pages of other sites have a browser of this machine send,
// while no key is needed: each page on the web could send prompts otherwise, and read answers under a
// name of its own that leads to 127.0.0.1 (DNS rebinding). A key that is needed is better than these
// checks, since no page has it.
func (s *Server) refuseBrowsers(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if required, _ := s.cfg.Keys.Required(); required || isLocalName(r.Host) && protection.Check(r) == nil {
			next.ServeHTTP(w, r)
			return
		}

		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{
			"message": "This request came through a web page or under another name than localhost. It needs an API " +
				"key: promptmill key create makes one.",
			"type":  "invalid_request_error",
			"param": nil,
			"code":  "api_key_required",
		}})
	})
}

// isLocalName reports whether a Host header names this machine as only its own programs do.
func isLocalName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))

	return host == "localhost" || ip != nil && ip.IsLoopback()
}
