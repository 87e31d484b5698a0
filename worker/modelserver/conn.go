package modelserver

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"
)

// conn is a connection with at most one request on it.
type conn struct {
	net.Conn
	tcp  net.Conn        // below TLS, or the same
	raw  syscall.RawConn // of its socket
	in   *bufio.Reader
	left int64 // that may be read, in bytes

	out    []byte // the last request
	digest uint64 // of it
	before uint64 // likewise, of the one before that
	length int    // of the last answer's body
	head   []byte // likewise, its beginning

	uses    int // requests that were sent
	made    time.Time
	watched bool      // nothing came on it for a while before its first request
	since   time.Time // it is idle

	seen   [64]byte // by the last look
	got    int
	failed error
	check  func(fd uintptr) bool // fills seen; kept, so that a look allocates nothing
}

// newConn wraps a connection, or closes it. tcp is what lies below TLS, or the connection
// itself.
func newConn(c, tcp net.Conn) (*conn, error) {
	socket, ok := tcp.(syscall.Conn)
	if !ok {
		c.Close()
		return nil, errors.New("the connection has no socket")
	}

	raw, err := socket.SyscallConn()
	if err != nil {
		c.Close()
		return nil, err
	}

	made := &conn{
		Conn:  c,
		tcp:   tcp,
		raw:   raw,
		made:  time.Now(),
		since: time.Now(),
	}

	made.in = bufio.NewReaderSize(made, 16<<10)
	made.check = func(fd uintptr) bool {
		if made.secure() { // what is there is TLS's
			made.got, _, made.failed = syscall.Recvfrom(int(fd), made.seen[:], syscall.MSG_PEEK)
		} else {
			made.got, made.failed = syscall.Read(int(fd), made.seen[:])
		}
		return true
	}

	return made, nil
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

// sight is what a look at an idle connection has found.
type sight int

const (
	quiet sight = iota // nothing
	ended              // the server has closed it, or says that it will
	stray              // bytes that nobody asked for
)

// secure reports whether TLS is spoken.
func (c *conn) secure() bool { return c.Conn != c.tcp }

// look finds out, without waiting, what has come since the last answer.
func (c *conn) look() sight {
	for c.in.Buffered() > 0 {
		text, _ := c.in.Peek(min(c.in.Buffered(), len(c.seen)))
		if s := meaning(text); s != quiet {
			return s
		}
		c.in.Discard(len(text))
	}

	for {
		if err := c.raw.Read(c.check); err != nil {
			return ended
		}

		switch {
		case c.failed == syscall.EINTR:
			continue
		case c.failed == syscall.EAGAIN && c.secure(): // but TLS may have read more than it gave
			return c.await(0)
		case c.failed == syscall.EAGAIN:
			return quiet
		case c.failed != nil || c.got == 0:
			return ended
		case c.secure(): // perhaps it is TLS's own, such as a ticket
			return c.await(time.Millisecond)
		}

		if s := meaning(c.seen[:c.got]); s != quiet {
			return s
		}
	}
}

// await waits until something comes, at most for a time.
func (c *conn) await(most time.Duration) sight {
	c.SetReadDeadline(time.Now().Add(most))
	defer c.SetReadDeadline(time.Time{})

	c.left = maxHeader
	for {
		_, err := c.in.Peek(1)
		if err == nil {
			text, _ := c.in.Peek(min(c.in.Buffered(), len(c.seen)))
			if s := meaning(text); s != quiet {
				return s
			}
			c.in.Discard(len(text))
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return quiet
		}

		return ended
	}
}

// meaning is what bytes that came on an idle connection say. A line end is no part of any
// answer, and old servers send one behind a body. A 408 announces that the server closes
// the connection (RFC 9110, 15.5.9), and some send it without having been asked.
func meaning(seen []byte) sight {
	if len(bytes.Trim(seen, "\r\n")) == 0 {
		return quiet
	}
	if bytes.HasPrefix(seen, []byte("HTTP/1.1 408")) || bytes.HasPrefix(seen, []byte("HTTP/1.0 408")) {
		return ended
	}
	return stray
}

// posted is all that reading an answer needs to know of its request.
var posted = &http.Request{Method: http.MethodPost}

// exchange sends a request and reads its answer, which began at a time. again says that
// the connection can be used for another.
func (c *conn) exchange(w *wire, path string, id, digest uint64, body []byte) (a Answer, began time.Time, again bool) {
	c.before, c.digest = c.digest, digest
	c.out = append(append(append(c.out[:0], "POST "...), path...), w.header...)
	c.out = append(strconv.AppendInt(appendRequestID(c.out, id), int64(len(body)), 10), "\r\n\r\n"...)
	c.out = append(c.out, body...)
	c.uses++
	_, unsent := c.Write(c.out) // the server may have said why before it closed
	c.left = maxHeader
	err := c.skipLineEnds()
	began = time.Now()

	var res *http.Response
	if err == nil {
		res, err = http.ReadResponse(c.in, posted)
	}

	for err == nil && res.StatusCode/100 == 1 && res.StatusCode != http.StatusSwitchingProtocols {
		res, err = http.ReadResponse(c.in, posted)
	}
	if err != nil {
		if unsent != nil {
			err = unsent
		}
		return Answer{Err: err}, began, false
	}

	c.left = math.MaxInt64
	a = Answer{Status: res.StatusCode, Header: res.Header}
	a.Body, a.Err = readBody(res, maxAnswer)

	return a, began, unsent == nil && a.Err == nil && !res.Close && res.StatusCode >= 200 &&
		res.StatusCode != http.StatusRequestTimeout
}

// skipLineEnds waits for the first byte of an answer, and passes over line ends that old
// servers send behind the body of the one before.
func (c *conn) skipLineEnds() error {
	for {
		first, err := c.in.Peek(1)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil || first[0] != '\r' && first[0] != '\n' || c.uses == 1 {
			return err
		}

		c.in.Discard(1)
	}
}

// repeats reports whether an answer begins like the last one on this connection, and has
// its length, though another request was sent; and remembers it for the next.
func (c *conn) repeats(body []byte) bool {
	const most = 500
	head := body[:min(len(body), most)]
	same := c.length == len(body) && bytes.Equal(c.head, head) && c.uses > 1 && c.digest != c.before
	c.length, c.head = len(body), append(c.head[:0], head...)
	return same
}
