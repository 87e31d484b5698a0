package objectstore

import (
	"net/url"
	"strings"
)

// publicParameters are the parameters of a URL's query that Redact shows: they say which object it is.
var publicParameters = map[string]bool{
	"download":   true,
	"generation": true,
	"ref":        true,
	"version":    true,
	"versionId":  true,
}

// Redact returns a path or URL as people may see it: without a user name, a password, and the values of the
// query, in which signed URLs have their signature.
func Redact(arg string) string {
	if !IsURL(arg) {
		return arg
	}

	scheme, rest, _ := strings.Cut(arg, "://")
	authority, path, hasPath := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		authority = "***@" + authority[at+1:]
	}

	shown := scheme + "://" + authority
	if hasPath {
		shown += "/" + path
	}

	if scheme = strings.ToLower(scheme); scheme != schemeHTTP && scheme != schemeHTTPS {
		return shown // a question mark is a part of the key, or of a glob
	}

	address, query, hasQuery := strings.Cut(shown, "?")
	if !hasQuery {
		return shown
	}

	query, _, _ = strings.Cut(query, "#")
	var parameters []string
	for parameter := range strings.SplitSeq(query, "&") {
		name, _, hasValue := strings.Cut(parameter, "=")
		if plain, err := url.QueryUnescape(name); hasValue && (err != nil || !publicParameters[plain]) {
			parameter = name + "=***"
		}
		parameters = append(parameters, parameter)
	}

	return address + "?" + strings.Join(parameters, "&")
}
