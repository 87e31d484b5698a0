package apikey

import (
	"net/http"
	"strings"
)

// SecretOf returns the secret that a request carries, as OpenAI's SDKs send it: in the header
// Authorization: Bearer SECRET. It is empty if there is none.
func SecretOf(r *http.Request) string {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(secret)
}
