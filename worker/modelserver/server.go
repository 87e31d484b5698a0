package modelserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto/bus"
)

// maxAnswer is the longest answer that is read, in bytes. maxTold is the same of what
// the server tells of itself.
const (
	maxAnswer   = bus.MaxAnswer
	maxMetadata = 16 << 20
)

var (
	// ErrUnreachable is returned when no connection to the model server can be made,
	// or it says that it cannot answer now.
	ErrUnreachable = errors.New("model server not reachable")
	// ErrLoading is returned by a model server that is there and loads its model. It
	// wraps ErrUnreachable.
	ErrLoading = fmt.Errorf("%w: it loads its model", ErrUnreachable)
	// ErrKeyRequired is returned by a model server that lists its models only for a key.
	ErrKeyRequired = errors.New("it wants a key")
	// errInternal is returned where a part of the server may work and another does not.
	errInternal = fmt.Errorf("%w", ErrUnreachable)
	// ErrNoGauges is returned when the model server does not tell its load.
	ErrNoGauges = errors.New("model server does not tell its load")
)

// Server is an OpenAI-compatible model server. It is safe for concurrent use.
type Server struct {
	givenBase      baseURL                 // as its URL says
	movedBase      atomic.Pointer[baseURL] // as it says itself; nil: it stays
	moveMu         sync.Mutex              // held to set moved
	redirectLogged atomic.Bool             // it was said that it does
	authorization  string
	roots          *x509.CertPool // nil: the system's
	at             netip.Addr     // of its host; not valid: any that it has
	dialer         *net.Dialer
	http           *http.Transport
	log            zerolog.Logger
	recognized     atomic.Pointer[recognized]
	replicas       replicaDetector

	answeredTokens, answeredRequests, inFlight atomic.Int64
}

// Option is a setting of a [Server].
type Option func(*Server)

// WithLog has the server's oddities written to a log.
func WithLog(log zerolog.Logger) Option { return func(s *Server) { s.log = log } }

// WithRoots names the certificates to trust in place of the system's.
func WithRoots(roots *x509.CertPool) Option { return func(s *Server) { s.roots = roots } }

// New returns the model server at a URL such as "http://localhost:8000", with or without
// "/v1" or another version, or one of its endpoints, at its end. A query is sent with each
// request; a user and password are sent, too, and never shown. key, if not empty, is sent
// as bearer token where the URL has no user.
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

	at.wire = s.wireTo(at)
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

// wireTo returns the wire to a place, nil if that is left to net/http.
func (s *Server) wireTo(at baseURL) *wire {
	u, err := url.Parse(at.origin + at.prefix)
	if err != nil || strings.ContainsFunc(at.query, unprintable) {
		return nil
	}

	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); proxy != nil || err != nil {
		return nil
	}

	w := newWire(u, s.authorization, s.dialer, s.roots, s.log)
	if w != nil {
		w.address = s.pinAddress(w.address)
	}

	return w
}

// currentBase is where the server is, as far as it is known.
func (s *Server) currentBase() *baseURL {
	if p := s.movedBase.Load(); p != nil {
		return p
	}
	return &s.givenBase
}

// URL is the server's base URL for people, without "/v1" and without secrets; with its address
// behind it, where it is one of several of the host.
func (s *Server) URL() string {
	if s.at.IsValid() {
		return s.givenBase.displayURL() + " (" + s.at.String() + ")"
	}
	return s.givenBase.displayURL()
}

// Close drops all connections that have no request.
func (s *Server) Close() {
	s.CloseIdle()
	for _, p := range []*baseURL{&s.givenBase, s.currentBase()} {
		p.wire.closeApart()
	}
}

// CloseIdle drops idle connections. Those that are watched for a second answer stay.
func (s *Server) CloseIdle() {
	s.http.CloseIdleConnections()
	for _, p := range []*baseURL{&s.givenBase, s.currentBase()} {
		p.wire.closeIdle()
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

// maxHops is how many redirects of a request are followed.
const maxHops = 5

// Post sends a request's body as it is and reads the answer. A redirect that keeps the
// method is followed where it stays with the host: a permanent one (308) is remembered, a
// temporary one (307) is asked for each time.
func (s *Server) Post(ctx context.Context, path string, body []byte) Answer {
	s.inFlight.Add(1)
	defer s.inFlight.Add(-1)

	p := s.currentBase()
	target := p.resolvePath(path)
	for hop := 0; ; hop++ {
		a := s.postOnce(ctx, p, path, target, body)
		if hop == maxHops {
			return a
		}

		to, next := s.followRedirect(p, path, target, a)
		if to == nil {
			return a
		}

		p, target = to, next
	}
}

func (s *Server) postOnce(ctx context.Context, p *baseURL, path, target string, body []byte) Answer {
	if p.wire.takes(path, body) {
		a := p.wire.post(ctx, target, body)
		a.decodeBody(maxAnswer)
		return a
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.origin+target, bytes.NewReader(body))
	if err != nil {
		return Answer{Err: err}
	}

	digest := requestDigest(target, body)
	id := nextRequestID(digest)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Request-Id", requestIDPrefix+strconv.FormatUint(id, 36))

	a := s.roundTrip(req, maxAnswer)
	if a.Err == nil && otherRequest(a, id, digest) {
		a = Answer{Err: errOtherRequest}
	}

	return a
}

// followRedirect returns where a request goes that was sent to a place and a target there, nil if its
// answer is no redirect to go after. A permanent redirect from the server's place is its new
// one; what comes after a temporary redirect is not.
func (s *Server) followRedirect(p *baseURL, path, target string, a Answer) (to *baseURL, next string) {
	if a.Err != nil || a.Status != http.StatusTemporaryRedirect && a.Status != http.StatusPermanentRedirect {
		return nil, ""
	}

	there, next, ok := p.resolveRedirect(path, target, a.Header.Get("Location"))
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

	if s.currentBase() != p { // another request has been there already, or this one is on a detour
		return &there, next
	}

	if there.wire == nil {
		there.wire = s.wireTo(there)
		p.wire.closeIdle()
		p.wire.closeApart()
	}

	s.movedBase.Store(&there)
	s.warnRedirect(a, "the model server redirects; using its new place from now on")

	return &there, next
}

// warnRedirect says of the first redirect where it leads.
func (s *Server) warnRedirect(a Answer, what string) {
	if !s.redirectLogged.Swap(true) {
		s.log.Warn().Str("server", s.URL()).Str("location", a.Location()).Msg(what)
	}
}

func (s *Server) roundTrip(req *http.Request, most int64) Answer {
	if s.authorization != "" {
		req.Header.Set("Authorization", s.authorization)
	}

	req.Header.Set("Accept-Encoding", "identity")

	res, err := s.http.RoundTrip(req) // redirects are answers here
	if err != nil {
		op := req.Method[:1] + strings.ToLower(req.Method[1:])
		return Answer{Err: &url.Error{Op: op, URL: Redact(req.URL.String()), Err: addTrustHint(err)}}
	}
	defer res.Body.Close()

	a := Answer{Status: res.StatusCode, Header: res.Header}
	a.Body, a.Err = readBody(res, most)
	a.decodeBody(most)

	return a
}

// addTrustHint says of an error what to do where the server's certificate is not trusted.
func addTrustHint(err error) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("%w; --model-ca FILE names the certificates to trust", err)
	}
	return err
}

// ErrTooLong is returned for an answer that is longer than one that is read.
var ErrTooLong = errors.New("answer is too long")

// readBody reads an answer's body into a buffer of its size, when that is told.
func readBody(res *http.Response, most int64) ([]byte, error) {
	if res.ContentLength > most {
		return nil, fmt.Errorf("%w: of %d bytes, %d are read at most", ErrTooLong, res.ContentLength, most)
	}

	if res.ContentLength >= 0 {
		body := make([]byte, res.ContentLength)
		_, err := io.ReadFull(res.Body, body)
		return body, err
	}

	body, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	if err == nil && int64(len(body)) > most {
		err = fmt.Errorf("%w: longer than %d bytes", ErrTooLong, most)
	}

	return body, err
}

// getPath asks for something that the server tells of itself. The error wraps
// [ErrUnreachable] when there is no answer, or one that says not now.
func (s *Server) getPath(ctx context.Context, path string) (Answer, error) {
	return s.getAccepting(ctx, path, "")
}

// getAccepting is get for an answer of a content type, as an Accept header has it; empty: any.
func (s *Server) getAccepting(ctx context.Context, path, accept string) (Answer, error) {
	var a Answer
	p := s.currentBase()
	target := p.resolvePath(path)
	for hop := 0; ; hop++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.origin+target, nil)
		if err != nil {
			return Answer{}, err
		}

		if accept != "" {
			req.Header.Set("Accept", accept)
		}

		if a = s.roundTrip(req, maxMetadata); hop == maxHops {
			break
		}

		to, next := s.followRedirect(p, path, target, a)
		if to == nil {
			break
		}

		p, target = to, next
	}

	switch {
	case errors.Is(a.Err, ErrTooLong):
		return a, a.Err
	case a.Err != nil:
		return a, fmt.Errorf("%w: %w", ErrUnreachable, a.Err)
	case a.Status == http.StatusServiceUnavailable && isLoadingError(a.Body):
		return a, ErrLoading
	case a.Status == http.StatusInternalServerError:
		return a, fmt.Errorf("%w: %s says status %s", errInternal, path, statusText(a.Status))
	case a.Status >= 500 && a.Status != http.StatusNotImplemented: // that one is llama.cpp's for "not switched on"
		return a, fmt.Errorf("%w: %s says status %s", ErrUnreachable, path, statusText(a.Status))
	}

	return a, nil
}

// getJSON asks for something in JSON, and wants a good status.
func (s *Server) getJSON(ctx context.Context, path string, v any) error {
	a, err := s.getPath(ctx, path)
	if err != nil {
		return err
	}

	if a.Status != http.StatusOK {
		return fmt.Errorf("%s says status %s", path, statusText(a.Status))
	}

	return json.Unmarshal(a.Body, v)
}

// isLoadingError tells llama.cpp's answer while it loads from what a proxy says of a
// server that is away.
func isLoadingError(body []byte) bool {
	var reply struct {
		Error struct{ Type string }
	}
	return json.Unmarshal(body, &reply) == nil && reply.Error.Type == "unavailable_error"
}

// isUnloadedError reports whether a refusal is that of llama.cpp's router for a model that is not
// loaded, or not any more (tools/server/server-models.cpp, router_validate_model and
// proxy_request).
func isUnloadedError(body []byte) bool {
	return bytes.Contains(body, []byte("model is not loaded")) || bytes.Contains(body, []byte("is not running"))
}

func statusText(code int) string {
	return strings.TrimSpace(fmt.Sprint(code, " ", http.StatusText(code)))
}
