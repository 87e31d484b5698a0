package apiserver

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
)

// refuseForeign refuses requests that do not come from a program of this machine, while no key is needed.
// Each page on the web could have a browser of this machine send prompts otherwise, and read answers under
// a name of its own that leads to 127.0.0.1 (DNS rebinding). A proxy on this machine would serve the whole
// network. A key that is needed is better than these checks: no page has it, and a proxy can hide itself.
func (s *Server) refuseForeign(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		required, _ := s.cfg.Keys.Required()
		if required || isLocalName(r.Host) && protection.Check(r) == nil && !isForwarded(r) {
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

// isForwarded reports whether a proxy has sent a request. nginx adds no header unless its configuration says
// so, but it speaks HTTP/1.0 to a server by default, as no client of the API does.
func isForwarded(r *http.Request) bool {
	for name := range r.Header { // names are in their canonical form
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}

	return !r.ProtoAtLeast(1, 1)
}

// isLocalName reports whether a Host header names this machine as only its own programs do.
func isLocalName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))

	return host == "localhost" || ip != nil && ip.IsLoopback()
}
