package modelserver

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// maxWired is the longest request body, in bytes, that is written before the answer is
	// read. It fits into the kernel's buffers, so a server that answers early is heard.
	maxWired  = 64 << 10
	maxHeader = 10 << 20 // of an answer, in bytes; net/http has the same
	maxIdle   = 90 * time.Second
)

var errLongHeader = errors.New("the header of the answer is too long")

// wire posts to a model server over HTTP/1.1 without encryption or proxy, which is how
// nearly all of them are reached. Whoever posts writes and reads the connection itself;
// the two goroutines that net/http has for each connection, and the hand-overs between
// them, cost more than all else that it does.
type wire struct {
	address string // host and port
	prefix  string // of paths
	header  string // of requests, from after the path
	dialer  *net.Dialer

	mu   sync.Mutex
	idle []*conn // the one used last is at the end
}

// newWire returns nil for a server that is left to net/http.
func newWire(u *url.URL, key string, dialer *net.Dialer) *wire {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u})
	if u.Scheme != "http" || proxy != nil || err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		!unescaped(u.Host) || !unescaped(u.Path) || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil
	}
	w := &wire{address: u.Host, prefix: u.Path, dialer: dialer}
	if u.Port() == "" {
		w.address = net.JoinHostPort(u.Hostname(), "80")
	}
	w.header = " HTTP/1.1\r\nHost: " + u.Host + "\r\nUser-Agent: Go-http-client/1.1\r\nContent-Type: application/json\r\n"
	if key != "" {
		w.header += "Authorization: Bearer " + key + "\r\n"
	}
	w.header += "Content-Length: "
	return w
}

// unescaped reports whether a host or a path can stand in a request as it is.
func unescaped(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/-._:[]", r))
	})
}

// takes reports whether a request can be posted over the wire.
func (w *wire) takes(path string, body []byte) bool {
	return w != nil && len(body) <= maxWired && unescaped(path)
}

// post is [Server.Post].
func (w *wire) post(ctx context.Context, path string, body []byte) Answer {
	c, err := w.connect(ctx)
	if err != nil {
		return Answer{Err: w.explain(ctx, path, err)}
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	a, again := c.exchange(w, path, body)
	if stop() && again {
		w.keep(c)
	} else {
		c.Close()
	}
	if a.Err != nil {
		a.Err = w.explain(ctx, path, a.Err)
	}
	return a
}

// explain says of an error what failed, and why if that was ctx.
func (w *wire) explain(ctx context.Context, path string, err error) error {
	return &url.Error{Op: "Post", URL: "http://" + w.address + w.prefix + path, Err: cmp.Or(ctx.Err(), err)}
}

// connect returns an idle connection that the server has not closed, or a new one. So
// what was sent is never sent again: the model may have begun with it.
func (w *wire) connect(ctx context.Context) (*conn, error) {
	for {
		w.mu.Lock()
		n := len(w.idle) - 1
		if n < 0 {
			w.mu.Unlock()
			break
		}
		c := w.idle[n]
		w.idle[n] = nil
		w.idle = w.idle[:n]
		w.mu.Unlock()
		if c.quiet() {
			return c, nil
		}
		c.Close()
	}
	tcp, err := w.dialer.DialContext(ctx, "tcp", w.address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: tcp}
	c.in = bufio.NewReaderSize(c, 16<<10)
	return c, nil
}

// keep makes a connection idle, and closes those that have been so for long.
func (w *wire) keep(c *conn) {
	c.since = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
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

// close closes the idle connections.
func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.idle {
		c.Close()
	}
	w.idle = nil
}

// conn is a connection with at most one request on it.
type conn struct {
	net.Conn
	in    *bufio.Reader
	left  int64 // that may be read, in bytes
	out   []byte
	since time.Time // it is idle
}

// Read reads no more than is left.
func (c *conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errLongHeader
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// quiet reports whether nothing has come since the last answer, not even the end.
func (c *conn) quiet() bool {
	raw, err := c.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	var got error
	err = raw.Read(func(fd uintptr) bool {
		_, got = syscall.Read(int(fd), make([]byte, 1))
		return true
	})
	return err == nil && got == syscall.EAGAIN
}

// posted is all that reading an answer needs to know of its request.
var posted = &http.Request{Method: http.MethodPost}

// exchange sends a request and reads its answer. again says that the connection can be
// used for another.
func (c *conn) exchange(w *wire, path string, body []byte) (a Answer, again bool) {
	c.out = append(append(append(append(c.out[:0], "POST "...), w.prefix...), path...), w.header...)
	c.out = append(strconv.AppendInt(c.out, int64(len(body)), 10), "\r\n\r\n"...)
	c.out = append(c.out, body...)
	_, unsent := c.Write(c.out) // the server may have said why before it closed
	c.left = maxHeader
	res, err := http.ReadResponse(c.in, posted)
	for err == nil && res.StatusCode/100 == 1 && res.StatusCode != http.StatusSwitchingProtocols {
		res, err = http.ReadResponse(c.in, posted)
	}
	if err != nil {
		return Answer{Err: cmp.Or(unsent, err)}, false
	}
	c.left = math.MaxInt64
	a = Answer{Status: res.StatusCode, Header: res.Header}
	a.Body, a.Err = readAll(res, maxAnswer)
	return a, unsent == nil && a.Err == nil && !res.Close && res.StatusCode >= 200 && c.in.Buffered() == 0
}
