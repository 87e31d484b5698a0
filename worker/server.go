package worker

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
	"strings"
	"time"

	openai "github.com/sashabaranov/go-openai"

	"github.com/promptmill/promptmill/proto"
)

// maxAnswer is the longest answer that is read, in bytes.
const maxAnswer = 256 << 20

// ErrUnreachable is returned when no connection to the model server can be made, or it
// says that it cannot answer now.
var ErrUnreachable = errors.New("model server not reachable")

// Server is an OpenAI-compatible model server.
type Server struct {
	base string
	key  string
	http *http.Client
}

// NewServer returns the model server at a URL such as "http://localhost:8000", with
// or without "/v1" at its end. key, if not empty, is sent as bearer token.
func NewServer(base, key string) (*Server, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("model server URL %q: must look like http://host:port", base)
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/v1")
	return &Server{base: u.String(), key: key, http: &http.Client{
		// Redirects are answers: a redirected POST would lose its body.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 1 << 16, // the limiter bounds them
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
func (s *Server) Close() { s.http.CloseIdleConnections() }

// Models lists the models that the server serves. The error wraps [ErrUnreachable]
// when the server is not there, or not ready.
func (s *Server) Models(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/v1/models", nil)
	if err != nil {
		return nil, err
	}
	s.authorize(req)
	res, err := s.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if res.StatusCode >= 500 { // llama.cpp says 503 while it loads
		return nil, fmt.Errorf("%w: list models of %s: status %s", ErrUnreachable, s.base, res.Status)
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("list models of %s: status %s", s.base, res.Status)
	}
	var list openai.ModelsList
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("list models of %s: %w", s.base, err)
	}
	models := make([]string, len(list.Models))
	for i, m := range list.Models {
		models[i] = m.ID
	}
	return models, nil
}

func (s *Server) authorize(req *http.Request) {
	if s.key != "" {
		req.Header.Set("Authorization", "Bearer "+s.key)
	}
}

// answer is what came of one attempt: an HTTP answer that was read to its end, or err.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// post sends a request's body as it is and reads the answer.
func (s *Server) post(ctx context.Context, r proto.Request) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+r.URL, bytes.NewReader(r.Body))
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	s.authorize(req)
	res, err := s.http.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	body, err := readAll(res)
	return answer{status: res.StatusCode, header: res.Header, body: body, err: err}
}

// readAll reads an answer's body into a buffer of its size, when that is told.
func readAll(res *http.Response) ([]byte, error) {
	if res.ContentLength > maxAnswer {
		return nil, fmt.Errorf("answer of %d bytes is longer than %d", res.ContentLength, maxAnswer)
	}
	if res.ContentLength >= 0 {
		body := make([]byte, res.ContentLength)
		_, err := io.ReadFull(res.Body, body)
		return body, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("answer is longer than %d bytes", maxAnswer)
	}
	return body, err
}
