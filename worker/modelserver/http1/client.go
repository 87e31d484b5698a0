package http1

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

const (
	// MaxPostBody is the longest request body, in bytes, that is written before the answer is
	// read. It fits into the kernel's buffers, so an answer that comes early is still read.
	MaxPostBody    = 64 << 10
	maxHeaderBytes = 10 << 20 // of an answer; net/http has the same
	maxIdleTime    = 90 * time.Second

	// A server of one thread that keeps connections open serves one until that is closed, while
	// requests on others wait: so no connection is used for longer than maxConnAge.
	maxConnAge = 30 * time.Second

	// maxCloses is the number of connections that are closed per second in the usual way. The
	// end that closes first keeps the port for a minute, and there are 28,000; so further ones
	// are reset, which some servers complain of.
	maxCloses = 256
)

var (
	// ErrOutOfStep is returned if the server sends answers that belong to other requests.
	ErrOutOfStep = errors.New("the model server is out of step with its requests")
	// ErrSpokeFirst is returned if the server sends something on a new connection. It wraps
	// ErrOutOfStep.
	ErrSpokeFirst = fmt.Errorf("%w: it sends an answer before it is asked anything", ErrOutOfStep)
	// ErrOtherRequest is returned for an answer with the id of another request. It wraps
	// ErrOutOfStep.
	ErrOtherRequest = fmt.Errorf("%w: the answer carries the id of another one", ErrOutOfStep)

	errLongHeader  = errors.New("the header of the answer is too long")
	errClosedFirst = errors.New("the server closed the connection before it was asked anything")
)

// Config configures a [Client].
type Config struct {
	// URL is the server's URL, of which scheme, host and path count. Required.
	URL *url.URL
	// Addr is the address of the host to connect to. Defaults to any that its name has.
	Addr netip.Addr
	// Authorization is the value of that header. Defaults to no such header.
	Authorization string
	// Dialer makes the connections; its Timeout also bounds a TLS handshake. Defaults to one
	// with 10 s.
	Dialer *net.Dialer
	// Roots are the certificates to trust. Defaults to the system's.
	Roots *x509.CertPool
	// MaxBody is the longest answer that is read, in bytes. Defaults to no bound.
	MaxBody int64
	// Log receives a warning about a server that is out of step. Defaults to no log.
	Log zerolog.Logger
}

// Client posts to one server. It is safe for concurrent use. The methods of a nil Client post
// nothing and close nothing.
type Client struct {
	origin    string // scheme, host and port
	address   string // host and port
	header    string // of requests, from after the path
	dialer    *net.Dialer
	tlsConfig *tls.Config // nil: without TLS
	maxBody   int64
	log       zerolog.Logger

	openConn func(ctx context.Context) (*conn, error) // dialConn; tests replace it

	foundSilent atomic.Bool // a connection was watched, and nothing came on it
	singleUse   atomic.Bool // each connection is used for one request: the server was out of step
	timing      timing

	// mu guards the fields below.
	mu      sync.Mutex
	idle    []*conn            // the one used last is at the end
	doubted map[*conn]struct{} // connections of answers that were doubted

	resends allowance // of requests sent again
	waits   allowance // of waits for a second answer

	closeWindow time.Time // start of a second
	closes      int       // connections closed in it
}

// New returns a client, or nil for a server that the caller must leave to net/http: its host or
// its path needs escaping.
func New(cfg Config) *Client {
	u := cfg.URL
	if u == nil || !isPlain(u.Host) || !isPlain(u.Path) {
		return nil
	}

	if cfg.Dialer == nil {
		cfg.Dialer = &net.Dialer{Timeout: 10 * time.Second}
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = math.MaxInt64 - 1 // one byte more is read to see that a body is too long
	}

	c := &Client{
		origin:  u.Scheme + "://" + u.Host,
		address: addPort(u.Host, "80"),
		dialer:  cfg.Dialer,
		maxBody: cfg.MaxBody,
		log:     cfg.Log,
		resends: newAllowance(64, 32),
		waits:   newAllowance(16, 64),
		doubted: map[*conn]struct{}{},
	}
	if u.Scheme == "https" {
		c.address = addPort(u.Host, "443")
		c.tlsConfig = &tls.Config{
			ServerName:         u.Hostname(),
			RootCAs:            cfg.Roots,
			ClientSessionCache: tls.NewLRUClientSessionCache(0),
		}
	}

	if _, port, err := net.SplitHostPort(c.address); err == nil && cfg.Addr.IsValid() {
		c.address = net.JoinHostPort(cfg.Addr.String(), port)
	}

	c.openConn = c.dialConn
	c.header = buildHeader(u.Host, cfg.Authorization)

	return c
}

// buildHeader returns the header that all requests have, up to the digits of their ids.
func buildHeader(host, authorization string) string {
	header := " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: Go-http-client/1.1\r\n" +
		"Content-Type: application/json\r\nAccept-Encoding: identity\r\n"
	if authorization != "" {
		header += "Authorization: " + authorization + "\r\n"
	}
	return header + "X-Request-Id: " + requestIDPrefix
}

// addPort returns a host with its port, or with the default one.
func addPort(host, port string) string {
	u := url.URL{Host: host}
	if u.Port() != "" {
		return host
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// isPlain reports whether a host or a path can stand in a request as it is.
func isPlain(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' ||
			strings.ContainsRune("/-._:[]", r))
	})
}

// CanPost reports whether the client can post a body to a path.
func (c *Client) CanPost(path string, body []byte) bool {
	return c != nil && len(body) <= MaxPostBody && isPlain(path)
}

// Post posts a JSON body to a path, with its query, and reads the answer. If that may be the answer of
// another request, it posts once more. With an error, the Response has the status of the answer if that
// came, and Doubted. The error is a [url.Error].
func (c *Client) Post(ctx context.Context, path string, body []byte) (Response, error) {
	begin := time.Now()
	res, isOwn, err := c.postOnce(ctx, path, body, c.singleUse.Load())
	if !isOwn && err == nil && ctx.Err() == nil {
		var doubted *DoubtedAnswer
		if res.Status != http.StatusRequestTimeout { // the server reports that no request came
			doubted = &DoubtedAnswer{Took: time.Since(begin), Resent: time.Now(), Body: res.Body}
		}

		res, isOwn, err = c.postOnce(ctx, path, body, true)
		res.Doubted = doubted
	}

	if !isOwn && err == nil { // also if there was no time to post once more
		res, err = Response{Doubted: res.Doubted}, ErrOtherRequest
	}

	if err != nil {
		return res, c.wrapError(ctx, path, err)
	}

	return res, nil
}

// wrapError adds the URL to an error. If the context has ended, that is the cause.
func (c *Client) wrapError(ctx context.Context, path string, err error) error {
	path, _, _ = strings.Cut(path, "?") // the query may hold a key
	return &url.Error{Op: "Post", URL: c.origin + path, Err: cmp.Or(ctx.Err(), err)}
}

// postOnce sends a request once and reads its answer; if fresh is set, on a connection of its
// own that is watched first. isOwn is false if the answer may be that of another request.
func (c *Client) postOnce(
	ctx context.Context, path string, body []byte, fresh bool,
) (res Response, isOwn bool, err error) {
	k, err := c.getConn(ctx, fresh)
	if err != nil {
		return Response{}, true, err
	}

	x := exchange{id: NewRequestID(path, body), traceParent: TraceParent(ctx)}
	stop := context.AfterFunc(ctx, func() { k.Close() })

	x.begin = time.Now()
	k.roundTrip(&x, path, c.header, body, c.maxBody)
	took := time.Since(x.begin)

	v := accept
	if x.err == nil {
		v = c.judgeAnswer(k, &x)
	}

	reusable := stop() && x.reusable
	switch {
	case v == refuseAndWatch && reusable:
		c.watchDoubted(k, took)
	case v == accept && reusable && !c.singleUse.Load() && time.Since(k.madeAt) < maxConnAge:
		c.keepIdle(k, took)
	case x.err == nil:
		c.closeAnswered(k)
	default:
		k.Close()
	}

	return x.res, v == accept || v == acceptLast, x.err
}

// CheckSilence checks once whether the server sends something on a new connection before it is
// asked: no answer of such a server can be trusted. It returns [ErrSpokeFirst] then, and nil if
// there is no connection.
func (c *Client) CheckSilence(ctx context.Context) error {
	if c == nil || c.foundSilent.Load() {
		return nil
	}

	k, err := c.getConn(ctx, true)
	if errors.Is(err, ErrSpokeFirst) {
		return err
	}
	if err == nil {
		k.Close()
	}

	return nil // the requests find all other errors
}

// getConn returns an idle connection that the server has not closed, or a new one, so that
// no request is sent twice because of a closed connection: the model may have begun to work on it.
// If fresh is set, the connection is new and is watched first.
func (c *Client) getConn(ctx context.Context, fresh bool) (*conn, error) {
	for !fresh {
		k := c.takeIdle()
		if k == nil {
			break
		}

		state := k.checkIdle()
		if state == quiet {
			return k, nil
		}

		k.Close()
		if state == stray {
			c.markOutOfStep("bytes came on an idle connection")
			fresh = true
		}
	}

	begin := time.Now()
	k, err := c.openConn(ctx)
	if err != nil || !fresh && c.foundSilent.Load() {
		return k, err
	}

	// Bytes that the server sends now are unasked. They come as late as the connection's own
	// answer did if the server is far away.
	select {
	case <-time.After(duplicateDelay + min(time.Since(begin), time.Second)):
	case <-ctx.Done():
	}

	switch k.checkIdle() {
	case quiet:
		k.watched = true
		c.foundSilent.Store(true)
	case closed:
		k.Close()

		return nil, &net.OpError{
			Op:   "dial",
			Net:  "tcp",
			Addr: k.RemoteAddr(),
			Err:  errClosedFirst,
		} // nothing was sent
	case stray:
		c.markOutOfStep("bytes came on a new connection")
		k.Close()
		return nil, ErrSpokeFirst
	}

	return k, nil
}

// takeIdle returns the idle connection that was used last, or nil.
func (c *Client) takeIdle() *conn {
	c.mu.Lock()
	defer c.mu.Unlock()

	n := len(c.idle) - 1
	if n < 0 {
		return nil
	}

	k := c.idle[n]
	c.idle[n] = nil
	c.idle = c.idle[:n]

	return k
}

// dialConn makes a connection.
func (c *Client) dialConn(ctx context.Context) (*conn, error) {
	tcp, err := c.dialer.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, err
	}

	if c.tlsConfig == nil {
		return newConn(tcp, tcp)
	}

	secure := tls.Client(tcp, c.tlsConfig)
	handshake, cancel := context.WithTimeout(ctx, c.dialer.Timeout)
	defer cancel()

	if err := secure.HandshakeContext(handshake); err != nil {
		tcp.Close()

		return nil, &net.OpError{
			Op:   "dial",
			Net:  "tcp",
			Addr: tcp.RemoteAddr(),
			Err:  err,
		} // nothing was sent
	}

	return newConn(secure, tcp)
}

// keepIdle makes a connection idle after an exchange that took a time, and closes those that
// have been idle for long.
func (c *Client) keepIdle(k *conn, took time.Duration) {
	k.idleSince = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()

	c.timing.recordTime(took)
	c.resends.earnOne()
	c.waits.earnOne()

	c.idle = append(c.idle, k)
	if k.idleSince.Sub(c.idle[0].idleSince) > maxIdleTime {
		c.idle = slices.DeleteFunc(c.idle, func(old *conn) bool {
			stale := k.idleSince.Sub(old.idleSince) > maxIdleTime
			if stale {
				old.Close()
			}
			return stale
		})
	}
}

// closeAnswered closes a connection that has its answer.
func (c *Client) closeAnswered(k *conn) {
	now := time.Now()
	c.mu.Lock()
	if now.Sub(c.closeWindow) > time.Second {
		c.closeWindow, c.closes = now, 0
	}

	c.closes++
	many := c.closes > maxCloses
	c.mu.Unlock()

	if tcp, ok := k.tcp.(*net.TCPConn); ok && many {
		tcp.SetLinger(0)
	}

	k.Close()
}

// Close closes all connections that have no request.
func (c *Client) Close() {
	if c == nil {
		return
	}

	c.CloseIdle()

	c.mu.Lock()
	defer c.mu.Unlock()

	for k := range c.doubted {
		k.Close()
	}
}

// CloseIdle closes the connections that wait for a request. Those that are watched for a second
// answer stay.
func (c *Client) CloseIdle() {
	if c == nil {
		return
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	for _, k := range c.idle {
		k.Close()
	}

	c.idle = nil
}
