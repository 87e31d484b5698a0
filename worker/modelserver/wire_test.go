package modelserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// listen has each connection served by a function, and closes it then.
func listen(t testing.TB, serve func(c *net.TCPConn, in *bufio.Reader)) *Server {
	t.Helper()

	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}

	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}

			served.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(30 * time.Second))
				serve(c, bufio.NewReader(c))
			})
		}
	})

	s := connect(t, "http://"+l.Addr().String(), "")
	t.Cleanup(func() {
		s.Close()
		l.Close()
		served.Wait()
	})

	return s
}

// hear reads a request and returns its body, or false at the end.
func hear(in *bufio.Reader) ([]byte, bool) {
	req, err := http.ReadRequest(in)
	if err != nil {
		return nil, false
	}
	body, err := io.ReadAll(req.Body)
	return body, err == nil
}

// replies are what servers may send; after each the connection is closed.
var replies = map[string]string{
	"told length":               "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
	"no body":                   "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	"chunks":                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n",
	"chunks and a trailer":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n",
	"until it closes":           "HTTP/1.1 200 OK\r\n\r\n{}",
	"HTTP/1.0":                  "HTTP/1.0 200 OK\r\n\r\n{}",
	"bare line feeds":           "HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
	"no words behind status":    "HTTP/1.1 500\r\nContent-Length: 2\r\n\r\n{}",
	"header names in lower":     "HTTP/1.1 429 no\r\ncontent-length: 2\r\nretry-after: 3\r\nx-request-id: 7\r\n\r\n{}",
	"continue first":            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
	"hints first":               "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
	"a status that is none":     "HTTP/1.1 000 x\r\nContent-Length: 2\r\n\r\n{}",
	"only continue":             "HTTP/1.1 100 Continue\r\n\r\n",
	"204 with a length":         "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
	"304":                       "HTTP/1.1 304 Not Modified\r\n\r\n",
	"more than the answer":      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n",
	"nothing":                   "",
	"a status line cut":         "HTTP/1.1 20",
	"a header cut":              "HTTP/1.1 200 OK\r\nContent-Le",
	"a body cut":                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
	"a chunk cut":               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
	"chunks without end":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
	"a chunk of no length":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n{}\r\n",
	"not HTTP":                  "220 mail.example ESMTP\r\n",
	"a status of letters":       "HTTP/1.1 two OK\r\n\r\n",
	"two lengths that differ":   "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
	"a length that is none":     "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
	"a length beyond the bound": "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n{}",
	"a coding that is unknown":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
	"a header without colon":    "HTTP/1.1 200 OK\r\nContent-Length 2\r\n\r\n{}",
}

// byNetHTTP is a server that is asked without the wire.
func byNetHTTP(s *Server) *Server {
	other := &Server{givenBase: s.givenBase, authorization: s.authorization, http: s.http}
	other.givenBase.wire = nil
	return other
}

// agree fails the test if net/http makes something else of what the server says.
func agree(t *testing.T, s *Server) {
	t.Helper()

	other := byNetHTTP(s)
	got, want := s.Post(t.Context(), "/", []byte("{}")), other.Post(t.Context(), "/", []byte("{}"))
	s.Close() // net/http might use a connection again before it sees that it is closed
	if (got.Err == nil) != (want.Err == nil) {
		t.Fatalf("error %v, of net/http %v", got.Err, want.Err)
	}

	if got.Err != nil {
		got.Body, want.Body = nil, nil // as far as it came
	}

	got.Err, want.Err = nil, nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-net/http +wire):\n%s", diff)
	}
}

func TestWireAgreesWithNetHTTP(t *testing.T) {
	t.Parallel()

	for name, reply := range replies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agree(t, listen(t, func(c *net.TCPConn, in *bufio.Reader) {
				hear(in)
				io.WriteString(c, reply)
			}))
		})
	}
}

func FuzzWire(f *testing.F) {
	for _, reply := range replies {
		f.Add([]byte(reply))
	}

	var reply atomic.Pointer[[]byte]
	s := listen(f, func(c *net.TCPConn, in *bufio.Reader) {
		hear(in)
		c.Write(*reply.Load())
	})

	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.HasPrefix(text, []byte("HTTP/1.1 101")) || bytes.Contains(text, []byte("\nHTTP/1.1 101")) {
			t.Skip("net/http hands over the connection")
		}
		reply.Store(&text)
		agree(t, s)
	})
}

func TestWireRefusesALongHeader(t *testing.T) {
	t.Parallel()

	s := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		hear(in)
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for line := "X: " + strings.Repeat("x", 64<<10) + "\r\n"; ; {
			if _, err := io.WriteString(c, line); err != nil {
				return
			}
		}
	})
	if a := s.Post(t.Context(), "/", nil); !errors.Is(a.Err, errLongHeader) {
		t.Errorf("error %v", a.Err)
	}
}

// All requests, and all at once, get their own answers, on as many connections as there
// are requests at a time.
func TestWireKeepsConnections(t *testing.T) {
	t.Parallel()

	var opened atomic.Int64
	s := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		opened.Add(1)
		for {
			body, ok := hear(in)
			if !ok {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	})

	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			for j := range 50 {
				body := fmt.Appendf(nil, "%d %d", i, j)
				if a := s.Post(t.Context(), "/", body); a.Err != nil || !bytes.Equal(a.Body, body) {
					t.Errorf("%s: answer %q, %v", body, a.Body, a.Err)
				}
			}
		})
	}

	clients.Wait()
	if n := opened.Load(); n > 8 {
		t.Errorf("%d connections", n)
	}
}

// A server may close a connection that is idle, or say something on it, at any time.
func TestWireLeavesAStaleConnection(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		end  func(c *net.TCPConn)
	}{
		{"closed", func(c *net.TCPConn) { c.Close() }},
		{"reset", func(c *net.TCPConn) { c.SetLinger(0); c.Close() }},
		{"with a word", func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 408 Timeout\r\n\r\n") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			end, ended := make(chan struct{}), make(chan struct{})
			s := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
				hear(in)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				<-end
				tt.end(c)
				ended <- struct{}{}
				hear(in)
			})
			if a := s.Post(t.Context(), "/", nil); a.Err != nil {
				t.Fatal(a.Err)
			}

			end <- struct{}{}
			<-ended

			go func() { end <- struct{}{}; <-ended }()
			if a := s.Post(t.Context(), "/", nil); a.Err != nil {
				t.Errorf("after the connection ended: %v", a.Err)
			}
		})
	}
}

// What was sent is not sent again: the model may have answered it.
func TestWireSendsOnce(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, part string }{
		{"closed before the answer", ""},
		{"closed within the answer", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var heard atomic.Int64
			s := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
				for range 2 {
					if _, ok := hear(in); !ok {
						return
					}

					if heard.Add(1) == 2 {
						io.WriteString(c, tt.part)
						c.SetLinger(0)
						return
					}

					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
			if a := s.Post(t.Context(), "/", nil); a.Err != nil {
				t.Fatal(a.Err)
			}

			if a := s.Post(t.Context(), "/", nil); a.Err == nil {
				t.Error("no error")
			}

			if n := heard.Load(); n != 2 {
				t.Errorf("%d requests came for 2", n)
			}
		})
	}
}

func TestWireEndsWithItsContext(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, part string }{
		{"before the answer", ""},
		{"within the header", "HTTP/1.1 200 OK\r\nContent-"},
		{"within the body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			ctx, cancel := context.WithCancel(t.Context())
			s := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
				hear(in)
				io.WriteString(c, tt.part)
				cancel()
				hear(in) // until the client is gone
			})
			if a := s.Post(ctx, "/", nil); !errors.Is(a.Err, context.Canceled) {
				t.Errorf("error %v", a.Err)
			}

			if n := len(s.givenBase.wire.idle); n != 0 {
				t.Errorf("%d connections are kept", n)
			}
		})
	}
}

// A server may refuse a request before it has read it.
func TestWireHearsAnEarlyAnswer(t *testing.T) {
	t.Parallel()

	for _, size := range []int{maxWired, 32 << 20} {
		s := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
			in.ReadSlice('\n')
			io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
			c.CloseWrite()
			io.Copy(io.Discard, in)
		})
		if a := s.Post(t.Context(), "/", make([]byte, size)); a.Err != nil || a.Status != 413 {
			t.Errorf("%d bytes: status %d, %v", size, a.Status, a.Err)
		}
	}
}

func TestWireIsForPlainHosts(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		url, key string
		want     bool
		address  string
	}{
		{"http://localhost:8000", "", true, "localhost:8000"},
		{"http://[::1]:8000/models/a", "key-1", true, "[::1]:8000"},
		{"http://localhost", "", true, "localhost:80"},
		{"https://localhost", "", true, "localhost:443"},
		{"http://user:word@localhost", "", true, "localhost:80"},
		{"http://localhost/?a=b", "", true, "localhost:80"},
		{"http://localhost/a%20b", "", false, ""},
		{"http://bücher.example", "", false, ""},
		{"http://[fe80::1%25eth0]", "", false, ""},
	} {
		w := connect(t, tt.url, tt.key).givenBase.wire
		if (w != nil) != tt.want || w != nil &&
			(w.address != tt.address || (w.secure != nil) != strings.HasPrefix(tt.url, "https")) {
			t.Errorf("%s with key %q: %+v", tt.url, tt.key, w)
		}
	}

	if _, err := New("http://localhost", "key\r\nX: y"); err == nil {
		t.Error("a key with a line end is taken")
	}

	s := connect(t, "http://localhost", "")
	if w := s.givenBase.wire; w.takes("/a b", nil) || w.takes("/a\r\nX: y", nil) ||
		w.takes("/", make([]byte, maxWired+1)) || !w.takes("/v1/chat/completions", nil) {
		t.Error("takes what it should not, or not what it should")
	}
}

// The request is what net/http sends, but for the connection's end and the order of
// headers. Each has an id of its own.
func TestWireSendsWhatNetHTTPSends(t *testing.T) {
	t.Parallel()

	type seen struct {
		Host, Path string
		Header     http.Header
		Body       string
	}

	var got []seen
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, seen{r.Host, r.URL.Path, r.Header, string(body)})
	}))
	defer server.Close()

	s := connect(t, server.URL+"/models/a/v1", "key-1")
	for _, s := range []*Server{s, byNetHTTP(s)} {
		if a := s.Post(t.Context(), "/v1/score", []byte("{}")); a.Err != nil {
			t.Fatal(a.Err)
		}
	}

	ids := map[string]bool{}
	for _, r := range got {
		ids[r.Header.Get("X-Request-Id")] = true
		r.Header.Del("X-Request-Id")
		r.Header.Del("Connection")
	}

	if diff := cmp.Diff(got[1], got[0]); diff != "" {
		t.Errorf("(-net/http +wire):\n%s", diff)
	}

	if len(ids) != 2 || ids[""] {
		t.Errorf("ids %v", ids)
	}

	if h := got[0].Header; h.Get("Accept-Encoding") != "identity" || h.Get("Authorization") != "Bearer key-1" {
		t.Errorf("header %v", h)
	}
}

// A connection that the server closes before it is asked anything has sent nothing.
func TestWireFindsANewConnectionClosed(t *testing.T) {
	t.Parallel()

	var heard atomic.Int64
	s := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		c.CloseWrite()
		if _, ok := hear(in); ok {
			heard.Add(1)
		}
	})
	for range 2 {
		a := s.Post(t.Context(), "/", nil)
		if opErr, ok := errors.AsType[*net.OpError](a.Err); !ok || opErr.Op != "dial" ||
			!errors.Is(a.Err, errClosedFirst) {
			t.Errorf("error %v", a.Err)
		}
	}

	if n := heard.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// A connection that cannot be used is closed.
func TestNewConnCloses(t *testing.T) {
	t.Parallel()

	near, far := net.Pipe()
	if _, err := newConn(near, near); err == nil {
		t.Fatal("no error")
	}

	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the other end reads: %v", err)
	}
}

// A connection that is watched for a second answer outlives the idle ones.
func TestCloseIdle(t *testing.T) {
	t.Parallel()

	s := listen(t, func(_ *net.TCPConn, in *bufio.Reader) {
		hear(in) // until the client is gone
	})

	w := s.givenBase.wire
	open := func() *conn {
		c, err := w.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}

	idle, watched := open(), open()
	w.keep(idle, time.Millisecond)
	w.apart[watched] = struct{}{}

	s.CloseIdle()
	if idle.SetDeadline(time.Time{}) == nil || watched.SetDeadline(time.Time{}) != nil {
		t.Error("the wrong connections are closed")
	}

	s.Close()
	if watched.SetDeadline(time.Time{}) == nil {
		t.Error("a watched connection stays open")
	}
}
