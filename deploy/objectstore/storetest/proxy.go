package storetest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Request is a request that a [Proxy] has got.
type Request struct {
	// Number counts the requests of the proxy, from 1.
	Number int
	// Method is the method, and Path the path, unescaped.
	Method, Path string
	// Range is the range that it asks for, such as bytes=0-9. Empty: all.
	Range string
	// Query is the query.
	Query url.Values
	// Header is the header.
	Header http.Header
	// Length is the length of the body in bytes. -1: not known.
	Length int64
	// Body is the body. Only a [Fault] may read it, and the server does not get the bytes that it reads.
	Body io.Reader
}

// Fault answers a request in place of the server and returns nil, or returns the writer through
// which the server answers: the one that it was given, or one that damages or delays the answer. It
// is called by several goroutines at a time.
type Fault func(w http.ResponseWriter, r Request) http.ResponseWriter

// Proxy passes requests on to a server. Its methods are safe for concurrent use.
type Proxy struct {
	// URL is the URL of the proxy.
	URL string

	// mu guards the fields below.
	mu       sync.Mutex
	fault    Fault
	requests []Request
}

// StartProxy starts a proxy before a server.
func StartProxy(t *testing.T, target string) *Proxy {
	t.Helper()

	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}

	p := &Proxy{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Host = r.In.Host // the signature covers it
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault, request := p.count(r)
		if fault != nil {
			request.Body = r.Body
			w = fault(w, request)
		}
		if w != nil {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)

	p.URL = server.URL

	return p
}

// count counts a request, and returns the fault that it may get.
func (p *Proxy) count(r *http.Request) (Fault, Request) {
	p.mu.Lock()
	defer p.mu.Unlock()

	request := Request{
		Number: len(p.requests) + 1,
		Method: r.Method,
		Path:   r.URL.Path,
		Range:  r.Header.Get("Range"),
		Query:  r.URL.Query(),
		Header: r.Header.Clone(),
		Length: r.ContentLength,
	}
	p.requests = append(p.requests, request)

	return p.fault, request
}

// SetFault applies a fault to all requests from now on. Nil: none.
func (p *Proxy) SetFault(fault Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.fault = fault
}

// Requests returns the requests so far.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()

	return append([]Request{}, p.requests...)
}

// Reset forgets the requests so far.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.requests = nil
}

// AnswerError answers as S3 does.
func AnswerError(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code><Message>no</Message></Error>") // the client may have gone
}

// CutAnswer returns a writer whose connection breaks behind some bytes of the body.
func CutAnswer(w http.ResponseWriter, size int) http.ResponseWriter {
	return &cutWriter{ResponseWriter: w, left: size}
}

// cutWriter is an answer whose connection breaks.
type cutWriter struct {
	http.ResponseWriter

	left int
}

// Write implements io.Writer.
func (w *cutWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p[:min(len(p), w.left)])
	if w.left -= n; n < len(p) {
		w.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}

	return n, err
}

// SlowAnswer returns a writer that waits before each piece of the body.
func SlowAnswer(w http.ResponseWriter, pause time.Duration) http.ResponseWriter {
	return &slowWriter{ResponseWriter: w, pause: pause}
}

// slowWriter is an answer whose bytes come slowly.
type slowWriter struct {
	http.ResponseWriter

	pause time.Duration
}

// Write implements io.Writer.
func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(w.pause)
	n, err := w.ResponseWriter.Write(p)
	w.ResponseWriter.(http.Flusher).Flush()

	return n, err
}

// ChangeAnswer returns a writer that replaces the status of an answer, and may change its header.
func ChangeAnswer(w http.ResponseWriter, change func(status int, header http.Header) int) http.ResponseWriter {
	return &changeWriter{ResponseWriter: w, change: change}
}

// changeWriter is an answer with another status or header.
type changeWriter struct {
	http.ResponseWriter

	change func(status int, header http.Header) int
}

// WriteHeader implements http.ResponseWriter.
func (w *changeWriter) WriteHeader(status int) {
	if status >= http.StatusOK {
		status = w.change(status, w.Header())
	}
	w.ResponseWriter.WriteHeader(status)
}
