package modelserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// maxAnswer is the longest answer that is read, in bytes. maxTold is the same of what
// the server tells of itself.
const (
	maxAnswer = 256 << 20
	maxTold   = 16 << 20
)

var (
	// ErrUnreachable is returned when no connection to the model server can be made,
	// or it says that it cannot answer now.
	ErrUnreachable = errors.New("model server not reachable")
	// ErrLoading is returned by a model server that is there and loads its model. It
	// wraps ErrUnreachable.
	ErrLoading = fmt.Errorf("%w: it loads its model", ErrUnreachable)
	// ErrNoGauges is returned when the model server does not tell its load.
	ErrNoGauges = errors.New("model server does not tell its load")
)

// Server is an OpenAI-compatible model server. It is safe for concurrent use.
type Server struct {
	base  string
	key   string
	http  *http.Client
	wire  *wire // nil: all goes by http
	known atomic.Pointer[known]
}

// New returns the model server at a URL such as "http://localhost:8000", with or
// without "/v1" or one of its endpoints at its end. key, if not empty, is sent as bearer token.
func New(base, key string) (*Server, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("model server URL %q: must look like http://host:port", base)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	for _, end := range append(slices.Clone(proto.Endpoints), "/v1") {
		u.Path = strings.TrimSuffix(u.Path, end)
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &Server{base: u.String(), key: key, wire: newWire(u, key, dialer), http: &http.Client{
		// Redirects are answers: a redirected POST would lose its body.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         dialer.DialContext,
			MaxIdleConnsPerHost: 1 << 16, // the caller's limit on what is in flight bounds them
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true, // an answer must come through as it was sent
			WriteBufferSize:     16 << 10,
			ReadBufferSize:      16 << 10,
		},
	}}, nil
}

// URL is the server's base URL, without "/v1".
func (s *Server) URL() string { return s.base }

// Close drops idle connections.
func (s *Server) Close() {
	s.http.CloseIdleConnections()
	if s.wire != nil {
		s.wire.close()
	}
}

// Answer is what came of one request: an HTTP answer that was read to its end, or Err,
// which wraps those of the network, of its end and of the context.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Err    error
}

// Post sends a request's body as it is and reads the answer.
func (s *Server) Post(ctx context.Context, path string, body []byte) Answer {
	if s.wire.takes(path, body) {
		return s.wire.post(ctx, path, body)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+path, bytes.NewReader(body))
	if err != nil {
		return Answer{Err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	return s.send(req, maxAnswer)
}

func (s *Server) send(req *http.Request, most int64) Answer {
	if s.key != "" {
		req.Header.Set("Authorization", "Bearer "+s.key)
	}
	res, err := s.http.Do(req)
	if err != nil {
		return Answer{Err: err}
	}
	defer res.Body.Close()
	body, err := readAll(res, most)
	return Answer{Status: res.StatusCode, Header: res.Header, Body: body, Err: err}
}

var errTooLong = errors.New("answer is too long")

// readAll reads an answer's body into a buffer of its size, when that is told.
func readAll(res *http.Response, most int64) ([]byte, error) {
	if res.ContentLength > most {
		return nil, fmt.Errorf("%w: of %d bytes, %d are read at most", errTooLong, res.ContentLength, most)
	}
	if res.ContentLength >= 0 {
		body := make([]byte, res.ContentLength)
		_, err := io.ReadFull(res.Body, body)
		return body, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	if err == nil && int64(len(body)) > most {
		err = fmt.Errorf("%w: longer than %d bytes", errTooLong, most)
	}
	return body, err
}

// get asks for something that the server tells of itself. The error wraps
// [ErrUnreachable] when there is no answer, or one that says not now.
func (s *Server) get(ctx context.Context, path string) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		return Answer{}, err
	}
	a := s.send(req, maxTold)
	switch {
	case errors.Is(a.Err, errTooLong):
		return a, a.Err
	case a.Err != nil:
		return a, fmt.Errorf("%w: %w", ErrUnreachable, a.Err)
	case a.Status == http.StatusServiceUnavailable && saysLoading(a.Body):
		return a, ErrLoading
	case a.Status >= 500 && a.Status != http.StatusNotImplemented: // that one is llama.cpp's for "not switched on"
		return a, fmt.Errorf("%w: %s says status %s", ErrUnreachable, path, status(a.Status))
	}
	return a, nil
}

// getJSON asks for something in JSON, and wants a good status.
func (s *Server) getJSON(ctx context.Context, path string, v any) error {
	a, err := s.get(ctx, path)
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK {
		return fmt.Errorf("%s says status %s", path, status(a.Status))
	}
	return json.Unmarshal(a.Body, v)
}

// saysLoading tells llama.cpp's answer while it loads from what a proxy says of a
// server that is away.
func saysLoading(body []byte) bool {
	var reply struct {
		Error struct{ Type string }
	}
	return json.Unmarshal(body, &reply) == nil && reply.Error.Type == "unavailable_error"
}

func status(code int) string {
	return strings.TrimSpace(fmt.Sprint(code, " ", http.StatusText(code)))
}
