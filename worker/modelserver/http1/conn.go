package http1

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
	tcp      net.Conn        // below TLS, or the same
	raw      syscall.RawConn // of its socket
	in       *bufio.Reader
	readLeft int64 // bytes that may still be read

	request    []byte // the last one
	digest     uint64 // of it
	prevDigest uint64 // of the request before that
	lastLength int    // of the last answer's body
	lastHead   []byte // the beginning of that body

	uses      int // requests that were sent
	madeAt    time.Time
	watched   bool // nothing came on it for a while before its first request
	idleSince time.Time

	// The result of peek, a function that is kept so that it allocates nothing.
	peeked    [64]byte
	peekedLen int
	peekErr   error
	peek      func(fd uintptr) bool
}

// newConn wraps a connection, or closes it. tcp is the connection below TLS, or the connection
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

	k := &conn{
		Conn:      c,
		tcp:       tcp,
		raw:       raw,
		madeAt:    time.Now(),
		idleSince: time.Now(),
	}

	k.in = bufio.NewReaderSize(k, 16<<10)
	k.peek = func(fd uintptr) bool {
		k.peekedLen, k.peekErr = readSocket(fd, k.peeked[:], k.isSecure()) // the bytes belong to TLS
		return true
	}

	return k, nil
}

// Read reads at most readLeft bytes.
func (k *conn) Read(p []byte) (int, error) {
	if k.readLeft <= 0 {
		return 0, errLongHeader
	}
	n, err := k.Conn.Read(p[:min(int64(len(p)), k.readLeft)])
	k.readLeft -= int64(n)
	return n, err
}

// isSecure reports whether the connection uses TLS.
func (k *conn) isSecure() bool { return k.Conn != k.tcp }

// errWouldWait is returned by readSocket on a system where only a read that waits sees what has come.
var errWouldWait = errors.New("a read of the socket waits")

// idleState classifies the bytes on an idle connection.
type idleState int

const (
	quiet  idleState = iota // nothing
	closed                  // the server has closed it, or announces that it will
	stray                   // bytes that were not asked for
)

// checkIdle reports, without waiting, which bytes have come since the last answer.
func (k *conn) checkIdle() idleState {
	for k.in.Buffered() > 0 {
		text, _ := k.in.Peek(min(k.in.Buffered(), len(k.peeked)))
		if s := classifyBytes(text); s != quiet {
			return s
		}
		k.in.Discard(len(text))
	}

	for {
		if err := k.raw.Read(k.peek); err != nil {
			return closed
		}

		switch {
		case errors.Is(k.peekErr, errWouldWait):
			return k.awaitBytes(time.Millisecond)
		case errors.Is(k.peekErr, syscall.EINTR):
			continue
		case errors.Is(k.peekErr, syscall.EAGAIN) && k.isSecure(): // but TLS may have read more than it gave
			return k.awaitBytes(0)
		case errors.Is(k.peekErr, syscall.EAGAIN):
			return quiet
		case k.peekErr != nil || k.peekedLen == 0:
			return closed
		case k.isSecure(): // perhaps these bytes are TLS's own, such as a ticket
			return k.awaitBytes(time.Millisecond)
		}

		if s := classifyBytes(k.peeked[:k.peekedLen]); s != quiet {
			return s
		}
	}
}

// awaitBytes waits until something comes, at most for a time.
func (k *conn) awaitBytes(most time.Duration) idleState {
	k.SetReadDeadline(time.Now().Add(most))
	defer k.SetReadDeadline(time.Time{})

	k.readLeft = maxHeaderBytes
	for {
		_, err := k.in.Peek(1)
		if err == nil {
			text, _ := k.in.Peek(min(k.in.Buffered(), len(k.peeked)))
			if s := classifyBytes(text); s != quiet {
				return s
			}
			k.in.Discard(len(text))
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return quiet
		}

		return closed
	}
}

// classifyBytes classifies bytes that came on an idle connection. A line end is no part of any
// answer, and old servers send one behind a body. A 408 announces that the server closes the
// connection (RFC 9110, 15.5.9), and some send it without having been asked.
func classifyBytes(text []byte) idleState {
	if len(bytes.Trim(text, "\r\n")) == 0 {
		return quiet
	}
	if bytes.HasPrefix(text, []byte("HTTP/1.1 408")) || bytes.HasPrefix(text, []byte("HTTP/1.0 408")) {
		return closed
	}
	return stray
}

// postRequest is the part of a request that http.ReadResponse needs.
var postRequest = &http.Request{Method: http.MethodPost}

// roundTrip sends a request and reads its answer, of at most maxBody bytes, into x. header is
// common to the requests of a client.
func (k *conn) roundTrip(x *exchange, path, header string, body []byte, maxBody int64) {
	k.prevDigest, k.digest = k.digest, x.id.digest

	k.request = append(append(append(k.request[:0], "POST "...), path...), header...)
	k.request = x.id.appendDigits(k.request)
	if x.traceParent != "" {
		k.request = append(append(k.request, "\r\ntraceparent: "...), x.traceParent...)
	}
	k.request = append(k.request, "\r\nContent-Length: "...)
	k.request = append(strconv.AppendInt(k.request, int64(len(body)), 10), "\r\n\r\n"...)
	k.request = append(k.request, body...)

	k.uses++
	_, writeErr := k.Write(k.request) // the server may have said why before it closed
	k.readLeft = maxHeaderBytes
	err := k.skipLineEnds()
	x.began = time.Now()

	var res *http.Response
	if err == nil {
		res, err = http.ReadResponse(k.in, postRequest)
	}

	for err == nil && res.StatusCode/100 == 1 && res.StatusCode != http.StatusSwitchingProtocols {
		res, err = http.ReadResponse(k.in, postRequest)
	}
	if err != nil {
		if writeErr != nil {
			err = writeErr
		}
		x.err = err
		return
	}

	k.readLeft = math.MaxInt64
	x.res = Response{Status: res.StatusCode, Header: res.Header}
	x.res.Body, x.err = ReadBody(res, maxBody)
	x.reusable = writeErr == nil && x.err == nil && !res.Close && res.StatusCode >= 200 &&
		res.StatusCode != http.StatusRequestTimeout
}

// skipLineEnds waits for the first byte of an answer, and skips line ends that old servers send
// behind the body of the one before.
func (k *conn) skipLineEnds() error {
	for {
		first, err := k.in.Peek(1)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil || first[0] != '\r' && first[0] != '\n' || k.uses == 1 {
			return err
		}

		k.in.Discard(1)
	}
}

// repeatsLast reports whether an answer begins like the last one on this connection, and has
// its length, though another request was sent. It remembers the answer for the next call.
func (k *conn) repeatsLast(body []byte) bool {
	const compared = 500
	head := body[:min(len(body), compared)]
	same := k.lastLength == len(body) && bytes.Equal(k.lastHead, head) && k.uses > 1 && k.digest != k.prevDigest
	k.lastLength, k.lastHead = len(body), append(k.lastHead[:0], head...)
	return same
}
