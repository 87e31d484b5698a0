package modelserver

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/modelserver/http1"
)

// baseURL is the place of a server, from its URL or from a permanent redirect. It does not change.
type baseURL struct {
	origin  string            // scheme, host and port
	prefix  string            // of all paths
	version string            // replaces "/v1" in the paths of the API
	query   string            // of all requests, with its question mark
	moved   map[string]string // paths that are elsewhere on this host, without query
	client  *http1.Client     // nil: all requests go over net/http
}

// versionPart matches a part of a path that is the version of an API.
var versionPart = regexp.MustCompile(`^v[0-9]+[a-z0-9]*$`)

// parseBaseURL parses a server's URL in the forms that people have: with or without "/v1" or
// another version, "/models" behind that, or an endpoint at its end.
func parseBaseURL(text string) (p baseURL, user *url.Userinfo, err error) {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return p, nil, fmt.Errorf("model server URL %q: must look like http://host:port", Redact(text))
	}

	p.origin = (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
	p.version = "/v1"

	if u.RawQuery != "" {
		p.query = "?" + u.RawQuery
	}

	parts := slices.DeleteFunc(strings.Split(u.EscapedPath(), "/"), func(part string) bool { return part == "" })
	versioned := func() bool { return len(parts) > 0 && versionPart.MatchString(parts[len(parts)-1]) }

	cut := cutEndpoint(parts)
	if n := len(parts); cut == nil && n > 1 && parts[n-1] == "models" && versionPart.MatchString(parts[n-2]) {
		cut = parts[:n-1]
	}

	if cut != nil {
		parts = cut
		p.version = "" // nothing belongs between the prefix and an endpoint
	}

	if versioned() {
		p.version = "/" + parts[len(parts)-1]
		parts = parts[:len(parts)-1]
	}

	for _, part := range parts {
		p.prefix += "/" + part
	}

	return p, u.User, nil
}

// cutEndpoint returns a path without the endpoint at its end, nil if there is none.
func cutEndpoint(parts []string) []string {
	for _, endpoint := range proto.Endpoints {
		end := strings.Split(strings.TrimPrefix(endpoint, "/v1/"), "/")
		if n := len(parts) - len(end); n >= 0 && slices.Equal(parts[n:], end) {
			return append([]string{}, parts[:n]...)
		}
	}
	return nil
}

// displayURL returns the URL for people, without the version if that is the usual one, and
// without secrets.
func (p *baseURL) displayURL() string {
	base := p.origin + p.prefix
	if p.version != "/v1" {
		base += p.version
	}
	return Redact(base + p.query)
}

// resolvePath returns the path and query to request for a path such as "/v1/chat/completions".
func (p *baseURL) resolvePath(path string) string {
	query := p.query
	if query != "" && strings.Contains(path, "?") {
		query = "&" + query[1:]
	}

	if to, ok := p.moved[path]; ok {
		return to + query
	}

	if rest, ok := strings.CutPrefix(path, "/v1/"); ok && p.version != "/v1" {
		return p.prefix + p.version + "/" + rest + query
	}

	return p.prefix + path + query
}

// resolveRedirect returns where a request for a path goes that was sent to a target and
// redirected from there: to is the server's base URL if all its requests go that way, next the
// target of this one. It is not ok if that is another host, which must get neither the key nor
// the prompts. The query of the URL is kept, unless the redirect has one: that is for this
// request alone.
func (p *baseURL) resolveRedirect(path, target, location string) (to baseURL, next string, ok bool) {
	from, err := url.Parse(p.origin + target)
	if err != nil {
		return to, "", false
	}

	u, err := from.Parse(location)
	if err != nil || location == "" || !isSameHost(from, u) || strings.ContainsFunc(u.RequestURI(), isUnprintable) {
		return to, "", false
	}

	to = *p
	if to.origin = (&url.URL{Scheme: u.Scheme, Host: u.Host}).String(); to.origin != p.origin {
		to.client = nil
	}

	where := cmp.Or(u.EscapedPath(), "/")
	next = where + p.query
	if u.RawQuery != "" {
		next = where + "?" + u.RawQuery
	}

	if p.moved[path] == "" {
		usual, _, _ := strings.Cut(p.resolvePath(path), "?")
		end, ours := strings.CutPrefix(usual, p.prefix)
		if prefix, ok := strings.CutSuffix(where, end); ok && ours {
			to.prefix, to.moved = prefix, nil
			return to, next, true
		}
	}

	to.moved = maps.Clone(p.moved)
	if to.moved == nil {
		to.moved = map[string]string{}
	}

	to.moved[path] = where

	return to, next, true
}

// isSameHost reports whether a redirect stays with the host: with its port, or from http to https.
func isSameHost(from, to *url.URL) bool {
	port := func(u *url.URL) string {
		return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	switch {
	case !strings.EqualFold(from.Hostname(), to.Hostname()):
		return false
	case from.Scheme == to.Scheme:
		return port(from) == port(to)
	}

	return from.Scheme == "http" && to.Scheme == "https"
}

// authorizationHeader returns the Authorization header. A user in the URL is for this server,
// and goes before the key, which may be for several.
func authorizationHeader(user *url.Userinfo, key string) string {
	if user != nil {
		password, _ := user.Password()
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
	}

	if key != "" {
		return "Bearer " + key
	}

	return ""
}

// CleanKey returns an API key in one of the forms that people have, without white space around
// it and without the word Bearer. It fails if the rest cannot be sent.
func CleanKey(key string) (string, error) {
	key = strings.TrimSpace(key)
	if word, rest, ok := strings.Cut(key, " "); ok && strings.EqualFold(word, "bearer") {
		key = strings.TrimSpace(rest)
	}

	if strings.ContainsFunc(key, isUnprintable) {
		return "", fmt.Errorf("the key has white space, a line end or another character in it that no header can have")
	}

	return key, nil
}

// secretNames matches parts of the names of query values that are secrets.
var secretNames = regexp.MustCompile(`(?i)key|token|secret|pass|pwd|sig|auth|code|cred`)

// Redact returns a URL without user, password and secrets in its query, so that it can be shown.
func Redact(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" { // its secrets can only be guessed
		text, _, _ = strings.Cut(text, "?")
		if i := strings.LastIndex(text, "@"); i >= 0 {
			scheme, _, _ := strings.Cut(text[:i], "://")
			if text = text[i+1:]; len(scheme) < i {
				text = scheme + "://" + text
			}
		}
		return text
	}

	u.User = nil
	pairs := strings.Split(u.RawQuery, "&")
	for i, pair := range pairs {
		if name, _, ok := strings.Cut(pair, "="); ok && secretNames.MatchString(name) {
			pairs[i] = name + "=xxxxx"
		}
	}

	u.RawQuery = strings.Join(pairs, "&")

	return u.String()
}

// isUnprintable reports whether a rune cannot stand in a header's value, or is a space.
func isUnprintable(r rune) bool { return r <= ' ' || r > '~' }
