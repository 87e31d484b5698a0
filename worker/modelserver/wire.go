package modelserver

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

const (
	// maxWired is the longest request body, in bytes, that is written before the answer is
	// read. It fits into the kernel's buffers, so a server that answers early is heard.
	maxWired  = 64 << 10
	maxHeader = 10 << 20 // of an answer, in bytes; net/http has the same
	maxIdle   = 90 * time.Second
	// A server of one thread that keeps connections open serves one until that is closed,
	// while requests on others wait: so none is used for longer than this.
	maxAge = 30 * time.Second
)

var (
	errLongHeader  = errors.New("the header of the answer is too long")
	errClosedFirst = errors.New("the server closed the connection before it was asked anything")
)

// wire posts to a model server over HTTP/1.1 without a proxy, which is how nearly all of
// them are reached. Whoever posts writes and reads the connection itself; the two
// goroutines that net/http has for each connection, and the hand-overs between them, cost
// more than all else that it does.
//
// HTTP/1.1 has no numbers: an answer belongs to a request because it comes next on the
// same connection. A server that answers a request twice, or says something unasked, moves
// all answers of that connection to their neighbours. So the wire looks at a connection
// before it writes on it, and doubts an answer that came too soon; see [wire.doubts].
type wire struct {
	origin  string // scheme, host and port, for people
	address string // host and port
	header  string // of requests, from after the path
	dialer  *net.Dialer
	secure  *tls.Config // nil: without TLS
	log     zerolog.Logger

	open func(ctx context.Context) (*conn, error) // makes a connection; dial, but in tests

	greeted atomic.Bool  // a connection was watched, and nothing came on it
	once    atomic.Bool  // each connection is used for one request: the server was seen out of step
	mean    atomic.Int64 // time of an exchange
	least   atomic.Int64 // likewise: few take less
	soon    allowance    // of requests sent again
	same    allowance    // of waits

	mu    sync.Mutex
	idle  []*conn            // the one used last is at the end
	apart map[*conn]struct{} // of answers that were doubted

	cleared int // answers that were doubted and were right

	dropping time.Time // a second began, in which
	dropped  int       // so many connections were closed
}

// newWire returns the wire to the server at a URL, whose user and query do not count. It is
// nil for a server that is left to net/http. authorization is a header's value, or empty.
func newWire(u *url.URL, authorization string, dialer *net.Dialer, roots *x509.CertPool, log zerolog.Logger) *wire {
	if !unescaped(u.Host) || !unescaped(u.Path) {
		return nil
	}

	w := &wire{
		origin:  u.Scheme + "://" + u.Host,
		address: withPort(u.Host, "80"),
		dialer:  dialer,
		log:     log,
		soon:    newAllowance(64, 32),
		same:    newAllowance(16, 64),
		apart:   map[*conn]struct{}{},
	}
	if u.Scheme == "https" {
		w.address = withPort(u.Host, "443")
		w.secure = &tls.Config{
			ServerName:         u.Hostname(),
			RootCAs:            roots,
			ClientSessionCache: tls.NewLRUClientSessionCache(0),
		}
	}

	w.open = w.dial
	w.setHeader(u.Host, authorization)

	return w
}

// setHeader makes the header that all requests have.
func (w *wire) setHeader(host, authorization string) {
	w.header = " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: Go-http-client/1.1\r\n" +
		"Content-Type: application/json\r\nAccept-Encoding: identity\r\n"
	if authorization != "" {
		w.header += "Authorization: " + authorization + "\r\n"
	}
	w.header += "X-Request-Id: " + requestIDPrefix
}

// withPort is a host with its port, or another if it names none.
func withPort(host, port string) string {
	u := url.URL{Host: host}
	if u.Port() != "" {
		return host
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// unescaped reports whether a host or a path can stand in a request as it is.
func unescaped(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' ||
			strings.ContainsRune("/-._:[]", r))
	})
}

// unprintable reports whether a rune cannot stand in a header's value, or is a space.
func unprintable(r rune) bool { return r <= ' ' || r > '~' }

// takes reports whether a request can be posted over the wire.
func (w *wire) takes(path string, body []byte) bool {
	return w != nil && len(body) <= maxWired && unescaped(path)
}

// post is [Server.Post].
func (w *wire) post(ctx context.Context, path string, body []byte) Answer {
	a, sure := w.ask(ctx, path, body, w.once.Load())
	if !sure && ctx.Err() == nil {
		if a, sure = w.ask(ctx, path, body, true); !sure && a.Err == nil {
			a = Answer{Err: errOtherRequest}
		}
	}

	if a.Err != nil {
		a.Err = w.explain(ctx, path, a.Err)
	}

	return a
}

// explain says of an error what failed, and why if that was ctx.
func (w *wire) explain(ctx context.Context, path string, err error) error {
	path, _, _ = strings.Cut(path, "?") // there may be a key behind it
	return &url.Error{Op: "Post", URL: w.origin + path, Err: cmp.Or(ctx.Err(), err)}
}

// ask sends a request once and reads its answer; alone, on a connection of its own that is
// watched first. It is not sure if the answer may be that of another request.
func (w *wire) ask(ctx context.Context, path string, body []byte, alone bool) (a Answer, sure bool) {
	c, err := w.connect(ctx, alone)
	if err != nil {
		return Answer{Err: err}, true
	}

	digest := requestDigest(path, body)
	id := nextRequestID(digest)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	begin := time.Now()
	a, began, again := c.exchange(w, path, id, digest, body)
	took := time.Since(begin)

	d := accepted
	if a.Err == nil {
		d = w.doubts(c, a, id, digest, begin, began)
	}

	again = stop() && again
	switch {
	case d == apart && again:
		w.watch(c, took)
	case d == accepted && again && !w.once.Load() && time.Since(c.made) < maxAge:
		w.keep(c, took)
	case a.Err == nil:
		w.drop(c)
	default:
		c.Close()
	}

	return a, d == accepted || d == lastOne
}

// connect returns an idle connection that the server has not closed, or a new one. So
// what was sent is never sent again because of that: the model may have begun with it.
func (w *wire) connect(ctx context.Context, alone bool) (*conn, error) {
	for !alone {
		c := w.take()
		if c == nil {
			break
		}

		seen := c.look()
		if seen == quiet {
			return c, nil
		}

		c.Close()
		if seen == stray {
			w.outOfStep("bytes came on an idle connection")
			alone = true
		}
	}

	begin := time.Now()
	c, err := w.open(ctx)
	if err != nil || !alone && w.greeted.Load() {
		return c, err
	}

	// What the server says now, it says unasked. It comes as late as the connection's own
	// answer did if the server is far away.
	select {
	case <-time.After(soonAfter + min(time.Since(begin), time.Second)):
	case <-ctx.Done():
	}

	switch c.look() {
	case quiet:
		c.watched = true
		w.greeted.Store(true)
	case ended:
		c.Close()

		return nil, &net.OpError{
			Op:   "dial",
			Net:  "tcp",
			Addr: c.RemoteAddr(),
			Err:  errClosedFirst,
		} // nothing was sent
	case stray:
		w.outOfStep("bytes came on a new connection")
		c.Close()
		return nil, errSpokeFirst
	}

	return c, nil
}

// take returns the idle connection that was used last, or nil.
func (w *wire) take() *conn {
	w.mu.Lock()
	defer w.mu.Unlock()

	n := len(w.idle) - 1
	if n < 0 {
		return nil
	}

	c := w.idle[n]
	w.idle[n] = nil
	w.idle = w.idle[:n]

	return c
}

// dial makes a connection.
func (w *wire) dial(ctx context.Context) (*conn, error) {
	tcp, err := w.dialer.DialContext(ctx, "tcp", w.address)
	if err != nil {
		return nil, err
	}

	if w.secure == nil {
		return newConn(tcp, tcp)
	}

	c := tls.Client(tcp, w.secure)
	shaking, cancel := context.WithTimeout(ctx, w.dialer.Timeout)
	defer cancel()

	if err := c.HandshakeContext(shaking); err != nil {
		tcp.Close()

		return nil, &net.OpError{
			Op:   "dial",
			Net:  "tcp",
			Addr: tcp.RemoteAddr(),
			Err:  addTrustHint(err),
		} // nothing was sent
	}

	return newConn(c, tcp)
}

// keep makes a connection idle after an exchange that took a time, and closes those that
// have been so for long.
func (w *wire) keep(c *conn, took time.Duration) {
	c.since = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()

	w.learn(took)
	w.soon.earn()
	w.same.earn()

	w.idle = append(w.idle, c)
	if c.since.Sub(w.idle[0].since) > maxIdle {
		w.idle = slices.DeleteFunc(w.idle, func(old *conn) bool {
			stale := c.since.Sub(old.since) > maxIdle
			if stale {
				old.Close()
			}
			return stale
		})
	}
}

// drop closes a connection that has its answer. The end that closes first keeps the port
// for a minute, and there are 28,000; so when many are closed, the others are reset, which
// some servers complain of.
func (w *wire) drop(c *conn) {
	const most = 256 // in a second
	now := time.Now()
	w.mu.Lock()
	if now.Sub(w.dropping) > time.Second {
		w.dropping, w.dropped = now, 0
	}

	w.dropped++
	many := w.dropped > most
	w.mu.Unlock()
	if tcp, ok := c.tcp.(*net.TCPConn); ok && many {
		tcp.SetLinger(0)
	}

	c.Close()
}

// closeIdle closes the connections that wait for a request.
func (w *wire) closeIdle() {
	if w == nil {
		return
	}

	w.mu.Lock()
	defer w.mu.Unlock()

	for _, c := range w.idle {
		c.Close()
	}

	w.idle = nil
}

// closeApart closes the connections whose answer was doubted.
func (w *wire) closeApart() {
	if w == nil {
		return
	}

	w.mu.Lock()
	defer w.mu.Unlock()

	for c := range w.apart {
		c.Close()
	}
}
