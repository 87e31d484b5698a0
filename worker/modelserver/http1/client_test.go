package http1

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/worker/modelserver/internal/rawserver"
)

// listen starts a server that serves each connection with a function, and then closes it.
func listen(t testing.TB, serve func(c *net.TCPConn, in *bufio.Reader)) *Client {
	t.Helper()
	return connect(t, rawserver.Start(t, serve))
}

// replies are possible answers of a server, which closes the connection after each.
var replies = map[string]string{
	"a length":                  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
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
	"no valid status":           "HTTP/1.1 000 x\r\nContent-Length: 2\r\n\r\n{}",
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
	"no valid length":           "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
	"a length beyond the bound": "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n{}",
	"a coding that is unknown":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
	"a header without colon":    "HTTP/1.1 200 OK\r\nContent-Length 2\r\n\r\n{}",
}

// connect returns a client of the server at a URL.
func connect(t testing.TB, text string) *Client {
	t.Helper()
	return connectWith(t, text, Config{Log: zerolog.Nop()})
}

// connectWith returns a client with a configuration that lacks the URL.
func connectWith(t testing.TB, text string, cfg Config) *Client {
	t.Helper()

	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}

	cfg.URL, cfg.Dialer, cfg.MaxBody = u, &net.Dialer{Timeout: 10 * time.Second}, maxBody
	client := New(cfg)
	t.Cleanup(client.Close)

	return client
}

// maxBody is the longest answer that the tests read.
const maxBody = 64 << 20

// answer is the result of a post.
type answer struct {
	Response
	Err error
}

// post posts with the client.
func post(ctx context.Context, client *Client, path string, body []byte) answer {
	res, err := client.Post(ctx, path, body)
	return answer{res, err}
}

// postWithNetHTTP posts with net/http.
func postWithNetHTTP(ctx context.Context, client *Client, path string, body []byte) answer {
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, client.origin+path, bytes.NewReader(body))
	if err != nil {
		return answer{Err: err}
	}

	res, err := transport.RoundTrip(req)
	if err != nil {
		return answer{Err: err}
	}
	defer res.Body.Close()

	a := answer{Response: Response{Status: res.StatusCode, Header: res.Header}}
	a.Body, a.Err = ReadBody(res, maxBody)

	return a
}

// compareWithNetHTTP fails the test if net/http reads the answer of a server in another way.
func compareWithNetHTTP(t *testing.T, client *Client) {
	t.Helper()

	got := post(t.Context(), client, "/", []byte("{}"))
	want := postWithNetHTTP(t.Context(), client, "/", []byte("{}"))
	client.Close()
	if (got.Err == nil) != (want.Err == nil) {
		t.Fatalf("error %v, of net/http %v", got.Err, want.Err)
	}

	if got.Err != nil {
		got.Body, want.Body = nil, nil // as far as it came
	}

	got.Err, want.Err, got.Doubted = nil, nil, nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-net/http +http1):\n%s", diff)
	}
}

func TestPostAgreesWithNetHTTP(t *testing.T) {
	t.Parallel()

	for name, reply := range replies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compareWithNetHTTP(t, listen(t, func(c *net.TCPConn, in *bufio.Reader) {
				rawserver.ReadRequest(in)
				io.WriteString(c, reply)
			}))
		})
	}
}

func FuzzPost(f *testing.F) {
	for _, reply := range replies {
		f.Add([]byte(reply))
	}

	var reply atomic.Pointer[[]byte]
	client := listen(f, func(c *net.TCPConn, in *bufio.Reader) {
		rawserver.ReadRequest(in)
		c.Write(*reply.Load())
	})

	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.HasPrefix(text, []byte("HTTP/1.1 101")) || bytes.Contains(text, []byte("\nHTTP/1.1 101")) {
			t.Skip("net/http hands over the connection")
		}
		reply.Store(&text)
		compareWithNetHTTP(t, client)
	})
}

func TestPostRefusesALongHeader(t *testing.T) {
	t.Parallel()

	client := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		rawserver.ReadRequest(in)
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for line := "X: " + strings.Repeat("x", 64<<10) + "\r\n"; ; {
			if _, err := io.WriteString(c, line); err != nil {
				return
			}
		}
	})
	if a := post(t.Context(), client, "/", nil); !errors.Is(a.Err, errLongHeader) {
		t.Errorf("error %v", a.Err)
	}
}

// Many requests at once get their own answers, on no more connections than there are requests
// at a time.
func TestPostKeepsConnections(t *testing.T) {
	t.Parallel()

	var opened atomic.Int64
	client := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		opened.Add(1)
		for {
			body, ok := rawserver.ReadRequest(in)
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
				if a := post(t.Context(), client, "/", body); a.Err != nil || !bytes.Equal(a.Body, body) {
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

// A server may close an idle connection, or send something on it, at any time.
func TestPostLeavesAStaleConnection(t *testing.T) {
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
			client := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
				rawserver.ReadRequest(in)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				<-end
				tt.end(c)
				ended <- struct{}{}
				rawserver.ReadRequest(in)
			})
			if a := post(t.Context(), client, "/", nil); a.Err != nil {
				t.Fatal(a.Err)
			}

			end <- struct{}{}
			<-ended

			go func() { end <- struct{}{}; <-ended }()
			if a := post(t.Context(), client, "/", nil); a.Err != nil {
				t.Errorf("after the connection ended: %v", a.Err)
			}
		})
	}
}

// A request is not sent again: the model may have answered it.
func TestPostSendsOnce(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, part string }{
		{"closed before the answer", ""},
		{"closed within the answer", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var heard atomic.Int64
			client := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
				for range 2 {
					if _, ok := rawserver.ReadRequest(in); !ok {
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
			if a := post(t.Context(), client, "/", nil); a.Err != nil {
				t.Fatal(a.Err)
			}

			if a := post(t.Context(), client, "/", nil); a.Err == nil {
				t.Error("no error")
			}

			if n := heard.Load(); n != 2 {
				t.Errorf("%d requests came for 2", n)
			}
		})
	}
}

func TestPostEndsWithItsContext(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, part string }{
		{"before the answer", ""},
		{"within the header", "HTTP/1.1 200 OK\r\nContent-"},
		{"within the body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			ctx, cancel := context.WithCancel(t.Context())
			client := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
				rawserver.ReadRequest(in)
				io.WriteString(c, tt.part)
				cancel()
				rawserver.ReadRequest(in) // until the client is gone
			})
			if a := post(ctx, client, "/", nil); !errors.Is(a.Err, context.Canceled) {
				t.Errorf("error %v", a.Err)
			}

			if n := len(client.idle); n != 0 {
				t.Errorf("%d connections are kept", n)
			}
		})
	}
}

// A server whose host or path needs escaping is left to net/http.
func TestNew(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		url     string
		want    bool
		address string
	}{
		{"http://localhost:8000", true, "localhost:8000"},
		{"http://[::1]:8000/models/a", true, "[::1]:8000"},
		{"http://localhost", true, "localhost:80"},
		{"https://localhost", true, "localhost:443"},
		{"http://user:word@localhost", true, "localhost:80"},
		{"http://localhost/?a=b", true, "localhost:80"},
		{"http://localhost/a%20b", false, ""},
		{"http://bücher.example", false, ""},
		{"http://[fe80::1%25eth0]", false, ""},
	} {
		c := connect(t, tt.url)
		if (c != nil) != tt.want || c != nil &&
			(c.address != tt.address || (c.tlsConfig != nil) != strings.HasPrefix(tt.url, "https")) {
			t.Errorf("%s: %+v", tt.url, c)
		}
	}

	c := connect(t, "http://localhost")
	if c.CanPost("/a b", nil) || c.CanPost("/a\r\nX: y", nil) ||
		c.CanPost("/", make([]byte, MaxPostBody+1)) || !c.CanPost("/v1/chat/completions", nil) {
		t.Error("CanPost is wrong")
	}
}

// A connection that the server closes before it is asked anything has sent nothing.
func TestPostFindsANewConnectionClosed(t *testing.T) {
	t.Parallel()

	var heard atomic.Int64
	client := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		c.CloseWrite()
		if _, ok := rawserver.ReadRequest(in); ok {
			heard.Add(1)
		}
	})
	for range 2 {
		a := post(t.Context(), client, "/", nil)
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

	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the other end reads: %v", err)
	}
}

// A connection that is watched for a second answer outlives the idle ones.
func TestCloseIdle(t *testing.T) {
	t.Parallel()

	client := listen(t, func(_ *net.TCPConn, in *bufio.Reader) {
		rawserver.ReadRequest(in) // until the client is gone
	})

	open := func() *conn {
		c, err := client.dialConn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}

	idle, watched := open(), open()
	client.keepIdle(idle, time.Millisecond)
	client.doubted[watched] = struct{}{}

	client.CloseIdle()
	if idle.SetDeadline(time.Time{}) == nil || watched.SetDeadline(time.Time{}) != nil {
		t.Error("the wrong connections are closed")
	}

	client.Close()
	if watched.SetDeadline(time.Time{}) == nil {
		t.Error("a watched connection stays open")
	}
}

// Connections with TLS are kept, and checked, like others.
func TestPostOverTLS(t *testing.T) {
	t.Parallel()

	var opened, heard atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if heard.Add(1) == 20 {
			c, buffered, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()

			answer := httpAnswer(200, sumOf(body))
			io.WriteString(buffered, answer+answer)
			buffered.Flush()
			io.Copy(io.Discard, bufio.NewReader(c))

			return
		}

		io.WriteString(w, sumOf(body))
	}))

	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}

	server.StartTLS()
	defer server.Close()

	var logged lockedBuffer
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	client := connectWith(t, server.URL, Config{Roots: roots, Log: zerolog.New(&logged)})

	postNumber := func(n int) {
		body := bytes.Repeat(fmt.Appendf(nil, "%d", n), 8<<10)
		if a := post(t.Context(), client, "/v1/score", body); a.Err != nil || string(a.Body) != sumOf(body) {
			t.Errorf("%d: %q, %v", n, a.Body, a.Err)
		}
	}
	for n := range 19 {
		postNumber(n)
	}

	if opened.Load() != 1 || logged.String() != "" {
		t.Errorf("%d connections; %s", opened.Load(), logged.String())
	}

	postNumber(19)
	postNumber(20)

	if !strings.Contains(logged.String(), "unrequested answers") {
		t.Errorf("no warning: %q", logged.String())
	}
}
