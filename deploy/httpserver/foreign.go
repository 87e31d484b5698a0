package httpserver

import (
	"net"
	"net/http"
	"strings"
)

// IsForeign reports whether a request does not come from a program of this machine, as a server must know that
// needs no key. Each page on the web could have a browser of this machine send requests otherwise, and read answers
// under a name of its own that leads to 127.0.0.1 (DNS rebinding). A proxy on this machine would serve the whole
// network. A key that is needed is better than these checks: no page has it, and a proxy can hide itself.
func IsForeign(r *http.Request) bool {
	return !isLocalName(r.Host) || IsCrossSite(r) || isForwarded(r)
}

// crossOrigin checks the headers Sec-Fetch-Site and Origin, which scripts cannot set.
var crossOrigin = http.NewCrossOriginProtection()

// IsCrossSite reports whether a browser has sent a request that changes something for the page of another site.
func IsCrossSite(r *http.Request) bool { return crossOrigin.Check(r) != nil }

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
