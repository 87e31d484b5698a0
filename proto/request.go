package proto

import (
	"errors"
	"fmt"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"slices"
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
	// Index is the place of the request in its run, from 0, without gaps.
	Index uint32
	// CustomID is the caller's name for the request, as a JSON string with its quotes,
	// exactly as in the input.
	CustomID []byte
	// URL is one of [Endpoints].
	URL string
	// Body goes to the model server byte for byte: a JSON object on one line.
	Body []byte
	// Refused is the reason why the request is not sent and ends as a failed request; empty for
	// all others. Only runs that skip invalid lines have such requests.
	Refused string
}

// AppendRequest appends the wire form of a request, an OpenAI batch line with its
// line feed. The index travels in the shard's header.
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

// ParseRequest reads a line that [AppendRequest] writes, in any order and spacing. The
// request's parts point into line.
func ParseRequest(s *jsonscan.Scanner, line []byte) (Request, error) {
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
		return Request{CustomID: r.CustomID, Refused: string(text)}, nil
	}

	text, err := jsonscan.Unquote(url)
	if err != nil {
		return Request{}, fmt.Errorf("request line: url: %w", err)
	}

	endpoint := slices.IndexFunc(Endpoints, func(e string) bool { return e == string(text) })
	if endpoint < 0 {
		return Request{}, fmt.Errorf("request line: url %q is not a known endpoint", Excerpt(string(text)))
	}

	if len(r.Body) == 0 || r.Body[0] != '{' {
		return Request{}, errors.New("request line: body is not an object")
	}

	r.URL = Endpoints[endpoint] // a string of its own would cost an allocation a request

	return r, nil
}
