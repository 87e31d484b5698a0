package proto

import (
	"errors"
	"fmt"
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
	// Seq is the request's number in its run: dense, from 0.
	Seq uint32
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
	dst = append(dst, `{"custom_id":`...)
	dst = append(dst, r.CustomID...)
	if r.Refused != "" {
		dst = append(dst, `,"promptmill_refused":`...)
		dst = append(dst, Quote(r.Refused)...)
		return append(dst, "}\n"...)
	}
	dst = append(dst, `,"method":"POST","url":"`...)
	dst = append(dst, r.URL...)
	dst = append(dst, `","body":`...)
	dst = append(dst, r.Body...)
	return append(dst, "}\n"...)
}

// ParseRequest reads what [AppendRequest] writes, in any order and spacing. The
// request's parts point into line.
func ParseRequest(s *Scanner, line []byte) (Request, error) {
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
		text, err := Unquote(refused)
		if err != nil || len(text) == 0 {
			return Request{}, errors.New("request line: promptmill_refused is not a text")
		}
		r.Refused = string(text)
		return r, nil
	}
	text, err := Unquote(url)
	if err != nil {
		return Request{}, fmt.Errorf("request line: url: %w", err)
	}
	if len(r.Body) == 0 || r.Body[0] != '{' {
		return Request{}, errors.New("request line: body is not an object")
	}
	r.URL = string(text)
	return r, nil
}
