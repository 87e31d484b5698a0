package objectstore

import (
	"net/url"
	"slices"
	"strings"
)

// secretParameters are parts of the names of parameters that sign or open a URL. Amazon,
// Google, Azure, CloudFront and Hugging Face use them, or they are usual words for a secret.
var secretParameters = []string{
	"x-amz-", "x-goog-", "awsaccesskeyid", "googleaccessid", "signature", "sig", "token", "secret", "password", "auth",
	"credential", "apikey", "api_key", "api-key", "key-pair-id", "policy", "expires",
}

// azureParameters are the names of the other parameters of a shared access signature of Azure.
var azureParameters = []string{"se", "sp", "sr", "st", "sv", "spr", "skoid", "sktid", "skt", "ske", "sks", "skv"}

// isSecret reports whether a parameter of a query is hidden.
func isSecret(name string) bool {
	if plain, err := url.QueryUnescape(name); err == nil {
		name = plain
	}
	name = strings.ToLower(name)

	return name == "key" || slices.Contains(azureParameters, name) ||
		slices.ContainsFunc(secretParameters, func(part string) bool { return strings.Contains(name, part) })
}

// Redact returns a path or URL as it may be shown and stored: without a user name, a password,
// and the parameters of a signature. All of these are hidden, so that the URL is the same when
// it is signed again.
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
		if hasValue && isSecret(name) {
			parameter = name + "=***"
		}
		parameters = append(parameters, parameter)
	}

	return address + "?" + strings.Join(parameters, "&")
}
