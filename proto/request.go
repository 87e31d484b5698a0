package proto

import (
	"bytes"
	"errors"
	"fmt"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"slices"
	"unicode/utf8"
)

// Endpoints are the paths of the OpenAI API that requests may name.
var Endpoints = []string{
	"/v1/chat/completions",
	"/v1/completions",
	"/v1/embeddings",
	"/v1/responses",
	"/v1/rerank",
	"/v1/score",
}

// Request is one line of the input.
type Request struct {
	// Index is the request's number in its run: dense, from 0.
	Index uint32
	// CustomID is the caller's name for the request, as a JSON string with its
	// quotes, just as it stood in the input.
	CustomID []byte
	// URL is one of [Endpoints].
	URL string
	// Body goes to the model server byte for byte: a JSON object on one line.
	Body []byte
	// Refused is why the request is not sent at all; it ends as a failed request.
	// Empty for all others. Only runs that skip invalid lines have any.
	Refused string
}

// AppendRequest appends the wire form of a request, an OpenAI batch line with its
// line feed. The number travels in the shard's header.
func AppendRequest(dst []byte, r Request) []byte {
	dst = append(dst, lineCustomID...)
	dst = append(dst, r.CustomID...)
	if r.Refused != "" {
		dst = append(dst, `,"promptmill_refused":`...)
		dst = append(dst, jsonscan.Quote(r.Refused)...)
		return append(dst, "}\n"...)
	}

	dst = append(dst, lineURL...)
	dst = append(dst, r.URL...)
	dst = append(dst, lineBody...)
	dst = append(dst, r.Body...)

	return append(dst, "}\n"...)
}

// The parts of a request's line around its values.
const (
	lineCustomID = `{"custom_id":`
	lineURL      = `,"method":"POST","url":"`
	lineBody     = `","body":`
)

// ParseRequest reads what [AppendRequest] writes, in any order and spacing. The
// request's parts point into line.
func ParseRequest(s *jsonscan.Scanner, line []byte) (Request, error) {
	if r, ok := parseOwn(line); ok {
		return r, nil
	}

	var r Request
	var url, refused []byte
	s.Reset(line)

	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "custom_id":
			r.CustomID = s.Value()
		case "url":
			url = s.Value()
		case "body":
			r.Body = s.Value()
		case "promptmill_refused":
			refused = s.Value()
		}
	}

	if err := s.End(); err != nil {
		return Request{}, fmt.Errorf("request line: %w", err)
	}

	if len(r.CustomID) == 0 || r.CustomID[0] != '"' {
		return Request{}, errors.New("request line: no custom_id")
	}

	if refused != nil {
		text, err := jsonscan.Unquote(refused)
		if err != nil || len(text) == 0 {
			return Request{}, errors.New("request line: promptmill_refused is not a text")
		}
		r.Refused = string(text)
		return r, nil
	}

	text, err := jsonscan.Unquote(url)
	if err != nil {
		return Request{}, fmt.Errorf("request line: url: %w", err)
	}

	if !slices.Contains(Endpoints, string(text)) {
		return Request{}, fmt.Errorf("request line: url %q is no known endpoint", Excerpt(string(text)))
	}

	if len(r.Body) == 0 || r.Body[0] != '{' {
		return Request{}, errors.New("request line: body is not an object")
	}

	r.URL = string(text)

	return r, nil
}

// parseOwn reads a line that is just as [AppendRequest] writes it, of a request that is
// not refused. What the producer has checked is not checked again: of the body, no more
// than where it ends. That costs a third of reading it as JSON, or less.
func parseOwn(line []byte) (r Request, ok bool) {
	i := bytes.Index(line, []byte(lineURL))
	if i < len(lineCustomID)+2 || string(line[:len(lineCustomID)]) != lineCustomID {
		return r, false
	}

	id, rest := line[len(lineCustomID):i], line[i+len(lineURL):]
	if inner := id[1 : len(id)-1]; id[0] != '"' || id[len(id)-1] != '"' || !utf8.Valid(id) ||
		slices.ContainsFunc(inner, func(c byte) bool { return c < ' ' || c == '"' || c == '\\' }) {
		return r, false
	}

	for _, url := range Endpoints {
		if after, ok := bytes.CutPrefix(rest, []byte(url+lineBody)); ok {
			after, ok = bytes.CutSuffix(after, []byte("}\n"))
			return Request{CustomID: id, URL: url, Body: after}, ok && isObject(after)
		}
	}

	return r, false
}

// isObject reports whether text is one object, as far as brackets and quotes tell.
func isObject(text []byte) bool {
	if len(text) == 0 || text[0] != '{' {
		return false
	}

	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i == len(text)-1
			}
		case '"':
			n := jsonscan.StringEnd(text[i+1:])
			if n < 0 {
				return false
			}
			i += n
		}
	}

	return false
}
