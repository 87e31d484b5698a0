package modelserver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/worker/modelserver/http1"
	"github.com/promptmill/promptmill/worker/modelserver/internal/rawserver"
)

// listen starts a server that serves each connection with a function, and then closes it.
func listen(t testing.TB, serve func(c *net.TCPConn, in *bufio.Reader)) *Server {
	t.Helper()
	return connect(t, rawserver.Start(t, serve), "")
}

// httpAnswer returns the bytes of an answer.
func httpAnswer(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		status, len(body), body)
}

// withoutHTTP1 returns a server that posts with net/http alone.
func withoutHTTP1(s *Server) *Server {
	other := &Server{givenBase: s.givenBase, authorization: s.authorization, http: s.http}
	other.givenBase.client = nil
	return other
}

// A server may refuse a request before it has read it.
func TestPostReadsAnEarlyAnswer(t *testing.T) {
	t.Parallel()

	for _, size := range []int{http1.MaxPostBody, 32 << 20} {
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

// The request equals that of net/http, but for the connection's end and the order of headers.
// Each has an id of its own.
func TestPostSendsWhatNetHTTPSends(t *testing.T) {
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
	for _, s := range []*Server{s, withoutHTTP1(s)} {
		if a := s.Post(WithTraceParent(t.Context(), "00-1-2-01"), "/v1/score", []byte("{}")); a.Err != nil {
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
		t.Errorf("(-net/http +http1):\n%s", diff)
	}

	if len(ids) != 2 || ids[""] {
		t.Errorf("ids %v", ids)
	}

	h := got[0].Header
	if h.Get("Accept-Encoding") != "identity" || h.Get("Authorization") != "Bearer key-1" ||
		h.Get("Traceparent") != "00-1-2-01" {
		t.Errorf("header %v", h)
	}
}

// An answer that carries the id of another request is refused, wherever the id stands.
func TestIDOfAnotherRequest(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		answer func(id string) string
	}{
		{"in the header", func(id string) string {
			return "HTTP/1.1 200 OK\r\nX-Request-Id: " + id + "\r\nContent-Length: 2\r\n\r\n{}"
		}},
		{"in the body", func(id string) string { return httpAnswer(200, `{"id":"chatcmpl-`+id+`"}`) }},
		{"in the body with more behind it",
			func(id string) string { return httpAnswer(200, `{"id":"cmpl-`+id+`-0"}`) }},
	} {
		for _, wired := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, wired %v", tt.name, wired), func(t *testing.T) {
				t.Parallel()

				var mu sync.Mutex
				before, n := "", 0
				s := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
					for {
						req, err := http.ReadRequest(in)
						if err != nil {
							return
						}

						io.Copy(io.Discard, req.Body)
						id := req.Header.Get("X-Request-Id")
						mu.Lock()

						if n++; n == 3 || n == 4 && wired { // http1 asks once more
							io.WriteString(c, tt.answer(before))
						} else {
							io.WriteString(c, tt.answer(id))
							before = id
						}

						mu.Unlock()
					}
				})
				if !wired {
					s = withoutHTTP1(s)
				}

				for i := range 5 {
					a := s.Post(t.Context(), "/", fmt.Appendf(nil, "[%d]", i))
					want := error(nil)
					if i == 2 {
						want = ErrOutOfStep
					}

					if !errors.Is(a.Err, want) {
						t.Errorf("request %d: error %v", i, a.Err)
					}
				}
			})
		}
	}
}

// A proxy that keeps answers returns one, with its id, to all requests that are equal: it is
// the right one, and connections are used again.
func TestAnswerOfTheSameRequest(t *testing.T) {
	t.Parallel()

	for _, wired := range []bool{true, false} {
		var kept sync.Map // by path and body
		var opened atomic.Int64
		s := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
			opened.Add(1)
			for {
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}

				body, _ := io.ReadAll(req.Body)
				id, _ := kept.LoadOrStore(req.URL.Path+string(body), req.Header.Get("X-Request-Id"))
				io.WriteString(c, httpAnswer(200, `{"id":"chatcmpl-`+id.(string)+`"}`))
			}
		})
		if !wired {
			s = withoutHTTP1(s)
		}

		for i := range 12 {
			if a := s.Post(t.Context(), "/", fmt.Appendf(nil, "[%d]", i%3)); a.Err != nil {
				t.Errorf("wired %v: request %d: %v", wired, i, a.Err)
			}
		}

		if n := opened.Load(); wired && n > 3 {
			t.Errorf("%d connections", n)
		}

		// The answer of another path or body is not.
		id, _ := kept.Load("/[0]")
		kept.Store("/other[0]", id)
		kept.Store("/[9]", id)

		for _, tt := range []struct{ path, body string }{{"/other", "[0]"}, {"/", "[9]"}} {
			if a := s.Post(t.Context(), tt.path, []byte(tt.body)); !errors.Is(a.Err, ErrOutOfStep) {
				t.Errorf("wired %v: %s %s: error %v", wired, tt.path, tt.body, a.Err)
			}
		}
	}
}

// lockedBuffer is a log for several writers.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A server that sends something before it is asked gives every answer to the next request: it
// counts as unreachable.
func TestProbeOfAServerThatSpeaksFirst(t *testing.T) {
	t.Parallel()

	s := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		io.WriteString(c, httpAnswer(200, `{"data":[]}`))
		rawserver.ReadRequest(in) // until the client is gone
	})

	// The client listens for as long as it took to connect, so a slow connection leaves the
	// server time to speak.
	s.dialer.Control = func(string, string, syscall.RawConn) error {
		time.Sleep(200 * time.Millisecond)
		return nil
	}

	if _, err := s.Probe(t.Context()); !errors.Is(err, ErrUnreachable) || !errors.Is(err, http1.ErrSpokeFirst) {
		t.Errorf("error %v", err)
	}
}
