package modelserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/modelserver/http1"
)

const (
	maxAnswer   = bus.MaxAnswer // longest answer that is read, in bytes
	maxMetadata = 16 << 20      // likewise, of answers about the server itself
	maxHops     = 5             // redirects of a request that are followed
)

var (
	// ErrUnreachable is returned when no connection to the model server can be made, or it
	// reports that it cannot answer now.
	ErrUnreachable = errors.New("model server not reachable")
	// ErrLoading is returned by a model server that is there and loads its model. It wraps
	// ErrUnreachable.
	ErrLoading = fmt.Errorf("%w: it loads its model", ErrUnreachable)
	// ErrKeyRequired is returned by a model server that lists its models only with a key.
	ErrKeyRequired = errors.New("it wants a key")
	// ErrNoGauges is returned when the model server does not report its load.
	ErrNoGauges = errors.New("model server does not report its load")
	// ErrTooLong is returned for an answer that is longer than one that is read.
	ErrTooLong = http1.ErrTooLong
	// ErrOutOfStep is returned if the server sends answers that belong to other requests.
	ErrOutOfStep = http1.ErrOutOfStep

	// ErrFailing is returned by a model server that is there and answers with internal errors. It
	// wraps ErrUnreachable.
	ErrFailing = fmt.Errorf("%w", ErrUnreachable)
)

// Server is an OpenAI-compatible model server. It is safe for concurrent use.
type Server struct {
	givenBase     baseURL // from its URL
	authorization string
	roots         *x509.CertPool // nil: the system's
	at            netip.Addr     // of its host; not valid: any that it has
	dialer        *net.Dialer
	http          *http.Transport
	log           zerolog.Logger

	moveMu         sync.Mutex              // held to set movedBase
	movedBase      atomic.Pointer[baseURL] // after a permanent redirect; nil: there was none
	redirectLogged atomic.Bool

	recognized atomic.Pointer[recognized]
	replicas   replicaDetector
	tryModel   atomic.Pointer[string] // nil: none is named

	answeredTokens, answeredRequests, inFlight atomic.Int64
}

// Option is a setting of a [Server].
type Option func(*Server)

// WithLog sets the log that receives the server's oddities. Defaults to no log.
func WithLog(log zerolog.Logger) Option { return func(s *Server) { s.log = log } }

// WithRoots sets the certificates to trust. Defaults to the system's.
func WithRoots(roots *x509.CertPool) Option { return func(s *Server) { s.roots = roots } }

// New returns the model server at a URL such as "http://localhost:8000", with or without "/v1"
// or another version, or one of its endpoints, at its end. A query is sent with each request; a
// user and password are sent as well, and never shown. key, if not empty, is sent as bearer token
// if the URL has no user.
func New(base, key string, options ...Option) (*Server, error) {
	at, user, err := parseBaseURL(base)
	if err != nil {
		return nil, err
	}

	if key, err = CleanKey(key); err != nil {
		return nil, err
	}

	s := &Server{
		authorization: authorizationHeader(user, key),
		dialer:        &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second},
		log:           zerolog.Nop(),
	}
	for _, set := range options {
		set(s)
	}

	at.client = s.newClient(at)
	s.givenBase = at
	s.http = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         s.dialServer,
		TLSClientConfig:     &tls.Config{RootCAs: s.roots},
		TLSHandshakeTimeout: s.dialer.Timeout,
		// A connection that is used once cannot be out of step, and an idle one does not keep
		// a server of one thread.
		DisableKeepAlives:  true,
		DisableCompression: true, // an answer must come through as it was sent
		WriteBufferSize:    16 << 10,
		ReadBufferSize:     16 << 10,
	}

	return s, nil
}

// newClient returns the HTTP/1.1 client for a base URL; nil if that is left to net/http.
func (s *Server) newClient(at baseURL) *http1.Client {
	u, err := url.Parse(at.origin + at.prefix)
	if err != nil || strings.ContainsFunc(at.query, isUnprintable) {
		return nil
	}

	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); proxy != nil || err != nil {
		return nil
	}

	return http1.New(http1.Config{
		URL:           u,
		Addr:          s.at,
		Authorization: s.authorization,
		Dialer:        s.dialer,
		Roots:         s.roots,
		MaxBody:       maxAnswer,
		Log:           s.log,
	})
}

// currentBase returns the base URL after permanent redirects.
func (s *Server) currentBase() *baseURL {
	if b := s.movedBase.Load(); b != nil {
		return b
	}
	return &s.givenBase
}

// URL returns the server's base URL for people, without "/v1" and without secrets; with its
// address behind it, if it is one of several of the host.
func (s *Server) URL() string {
	if s.at.IsValid() {
		return s.givenBase.displayURL() + " (" + s.at.String() + ")"
	}
	return s.givenBase.displayURL()
}

// Close closes all connections that have no request.
func (s *Server) Close() {
	s.http.CloseIdleConnections()
	for _, b := range []*baseURL{&s.givenBase, s.currentBase()} {
		b.client.Close()
	}
}

// CloseIdle closes idle connections. Those that are watched for a second answer stay.
func (s *Server) CloseIdle() {
	s.http.CloseIdleConnections()
	for _, b := range []*baseURL{&s.givenBase, s.currentBase()} {
		b.client.CloseIdle()
	}
}

// Answer is the result of a request: an HTTP answer that was read to its end, or Err, which
// wraps the errors of the network, of its end and of the context.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Err    error

	// Doubted is the answer that came before, to the same request; nil: there was none.
	Doubted *DoubtedAnswer
}

// DoubtedAnswer is an answer that may have been that of another request, so the request was sent again.
type DoubtedAnswer = http1.DoubtedAnswer

// Location returns the target of a redirect that was not followed; empty for other answers.
func (a Answer) Location() string {
	if a.Status < http.StatusMultipleChoices || a.Status >= http.StatusBadRequest {
		return ""
	}
	return Redact(a.Header.Get("Location"))
}

// WithTraceParent returns a context whose posts have the header traceparent (W3C Trace Context) with
// the value, so that the spans of a server that makes some belong to the trace of the request.
func WithTraceParent(ctx context.Context, value string) context.Context {
	return http1.WithTraceParent(ctx, value)
}

// Post sends a request's body as it is and reads the answer. A redirect that keeps the method
// is followed if it stays with the host: a permanent one (308) is remembered, a temporary one
// (307) is followed each time.
func (s *Server) Post(ctx context.Context, path string, body []byte) Answer {
	s.inFlight.Add(1)
	defer s.inFlight.Add(-1)

	b := s.currentBase()
	target := b.resolvePath(path)
	for hop := 0; ; hop++ {
		a := s.postOnce(ctx, b, path, target, body)
		if hop == maxHops {
			return a
		}

		to, next := s.followRedirect(b, path, target, a)
		if to == nil {
			return a
		}

		b, target = to, next
	}
}

// postOnce posts without following a redirect: with the base URL's own client where that can,
// and otherwise with net/http.
func (s *Server) postOnce(ctx context.Context, b *baseURL, path, target string, body []byte) Answer {
	if b.client.CanPost(path, body) {
		res, err := b.client.Post(ctx, target, body)
		a := Answer{
			Status:  res.Status,
			Header:  res.Header,
			Body:    res.Body,
			Err:     describeConnectionError(err),
			Doubted: res.Doubted,
		}

		a.decodeBody(maxAnswer)

		return a
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.origin+target, bytes.NewReader(body))
	if err != nil {
		return Answer{Err: err}
	}

	id := http1.NewRequestID(target, body)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Request-Id", id.String())
	if value := http1.TraceParent(ctx); value != "" {
		req.Header.Set("traceparent", value)
	}

	a := s.roundTrip(req, maxAnswer)
	if a.Err == nil && id.IsOther(a.Header, a.Body) {
		a = Answer{Err: http1.ErrOtherRequest}
	}

	return a
}

// followRedirect returns the next target of a request that was sent to a target; nil if its answer is
// no redirect to follow. A permanent redirect from the server's base URL is its new one; a
// redirect after a temporary one is not.
func (s *Server) followRedirect(b *baseURL, path, target string, a Answer) (to *baseURL, next string) {
	if a.Err != nil || a.Status != http.StatusTemporaryRedirect && a.Status != http.StatusPermanentRedirect {
		return nil, ""
	}

	there, next, ok := b.resolveRedirect(path, target, a.Header.Get("Location"))
	if !ok {
		return nil, ""
	}

	if a.Status == http.StatusTemporaryRedirect {
		s.warnRedirect(a,
			"the model server redirects each request for now; with the new place as --url they need one step less")
		return &there, next
	}

	s.moveMu.Lock()
	defer s.moveMu.Unlock()

	if s.currentBase() != b { // another request was there before, or this one is on a detour
		return &there, next
	}

	if there.client == nil {
		there.client = s.newClient(there)
		b.client.Close()
	}

	s.movedBase.Store(&there)
	s.warnRedirect(a, "the model server redirects; using its new place from now on")

	return &there, next
}

// warnRedirect logs where the first redirect leads.
func (s *Server) warnRedirect(a Answer, message string) {
	if !s.redirectLogged.Swap(true) {
		s.log.Warn().Str("server", s.URL()).Str("location", a.Location()).Msg(message)
	}
}

// roundTrip sends a request with net/http and reads at most limit bytes of its answer. A
// redirect is an answer here.
func (s *Server) roundTrip(req *http.Request, limit int64) Answer {
	if s.authorization != "" {
		req.Header.Set("Authorization", s.authorization)
	}

	req.Header.Set("Accept-Encoding", "identity")

	res, err := s.http.RoundTrip(req)
	if err != nil {
		op := req.Method[:1] + strings.ToLower(req.Method[1:])
		return Answer{Err: describeConnectionError(&url.Error{Op: op, URL: Redact(req.URL.String()), Err: err})}
	}
	defer res.Body.Close()

	a := Answer{Status: res.StatusCode, Header: res.Header}
	a.Body, a.Err = http1.ReadBody(res, limit)
	a.Err = describeConnectionError(a.Err)
	a.decodeBody(limit)

	return a
}

// getPath asks for something that the server reports about itself. The error wraps
// [ErrUnreachable] when there is no answer, or one that means "not now".
func (s *Server) getPath(ctx context.Context, path string) (Answer, error) {
	return s.getAccepting(ctx, path, "")
}

// getAccepting is getPath with an Accept header; empty: none.
func (s *Server) getAccepting(ctx context.Context, path, accept string) (Answer, error) {
	var a Answer
	b := s.currentBase()
	target := b.resolvePath(path)
	for hop := 0; ; hop++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.origin+target, nil)
		if err != nil {
			return Answer{}, err
		}

		if accept != "" {
			req.Header.Set("Accept", accept)
		}

		if a = s.roundTrip(req, maxMetadata); hop == maxHops {
			break
		}

		to, next := s.followRedirect(b, path, target, a)
		if to == nil {
			break
		}

		b, target = to, next
	}

	return a, checkAnswer(path, a)
}

// checkAnswer returns the error of an answer that reports nothing about the server.
func checkAnswer(path string, a Answer) error {
	switch {
	case errors.Is(a.Err, ErrTooLong):
		return a.Err
	case a.Err != nil:
		return fmt.Errorf("%w: %w", ErrUnreachable, a.Err)
	case a.Status == http.StatusServiceUnavailable && isLoadingError(a.Body):
		return ErrLoading
	case a.Status == http.StatusInternalServerError:
		return fmt.Errorf("%w: %s returned status %s", ErrFailing, path, describeRefusal(a))
	case a.Status >= 500 && a.Status != http.StatusNotImplemented: // llama.cpp answers 501 for "not switched on"
		return fmt.Errorf("%w: %s returned status %s", ErrUnreachable, path, describeRefusal(a))
	}

	return nil
}

// describeRefusal returns the status of an answer, and the server's own words about it.
func describeRefusal(a Answer) string {
	text := statusText(a.Status)
	if words := proto.ErrorText(a.Body); words != "" {
		text += ": " + words
	}
	return text
}

// getJSON asks for something in JSON. A status other than 200 is an error.
func (s *Server) getJSON(ctx context.Context, path string, v any) error {
	a, err := s.getPath(ctx, path)
	if err != nil {
		return err
	}

	if a.Status != http.StatusOK {
		return fmt.Errorf("%s returned status %s", path, statusText(a.Status))
	}

	return json.Unmarshal(a.Body, v)
}

// isLoadingError distinguishes llama.cpp's answer while it loads from a proxy's about a server
// that is away.
func isLoadingError(body []byte) bool {
	var reply struct {
		Error struct{ Type string }
	}
	return json.Unmarshal(body, &reply) == nil && reply.Error.Type == "unavailable_error"
}

// isUnloadedError reports whether a refusal comes from llama.cpp's router because a model is not
// loaded, or not any more (tools/server/server-models.cpp, router_validate_model and
// proxy_request).
func isUnloadedError(body []byte) bool {
	return bytes.Contains(body, []byte("model is not loaded")) || bytes.Contains(body, []byte("is not running"))
}

// statusText returns a status code with its text.
func statusText(code int) string {
	return strings.TrimSpace(fmt.Sprint(code, " ", http.StatusText(code)))
}
