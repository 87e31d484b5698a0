package modelserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestNew(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ url, want string }{
		{"http://localhost:8000", "http://localhost:8000"},
		{"http://localhost:8000/", "http://localhost:8000"},
		{"http://localhost:8000/v1", "http://localhost:8000"},
		{"http://localhost:8000/v1/", "http://localhost:8000"},
		{"https://host/models/a/v1", "https://host/models/a"},
		{"http://localhost:8000/v1/chat/completions", "http://localhost:8000"},
		{"http://localhost:8000/v1/embeddings/", "http://localhost:8000"},
		{"https://host/v1/account/gateway", "https://host/v1/account/gateway"},
		{"localhost:8000", ""},
		{"ftp://localhost", ""},
		{"http://", ""},
		{"http://[::1", ""},
		{"", ""},
	} {
		s, err := New(tt.url, "")
		if (err == nil) != (tt.want != "") {
			t.Errorf("New(%q): %v", tt.url, err)
		}
		if err == nil && s.URL() != tt.want {
			t.Errorf("New(%q) is at %q, want %q", tt.url, s.URL(), tt.want)
		}
	}
}

// Bodies of requests and answers pass unchanged.
func TestPost(t *testing.T) {
	t.Parallel()

	long := bytes.Repeat([]byte("long "), 100_000)
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" ||
			r.Header.Get("Authorization") != "" {
			t.Errorf("%s with %v", r.Method, r.Header)
		}

		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Request-Id", "id-1")

		switch r.URL.Path {
		case "/v1/refused":
			w.WriteHeader(http.StatusTeapot)
		case "/v1/chunked":
			w.(http.Flusher).Flush()
		case "/v1/redirect":
			http.Redirect(w, r, "/v1/refused", http.StatusTemporaryRedirect)
			return
		}

		w.Write(body)
	}))
	for _, tt := range []struct {
		path   string
		body   []byte
		status int
	}{
		{"/v1/ok", []byte("{\"a\" :\xff1}"), 200},
		{"/v1/ok", long, 200},
		{"/v1/ok", nil, 200},
		{"/v1/chunked", long, 200},
		{"/v1/refused", []byte("{}"), 418},
	} {
		a := s.Post(t.Context(), tt.path, tt.body)
		if a.Err != nil || a.Status != tt.status || !bytes.Equal(a.Body, tt.body) ||
			a.Header.Get("X-Request-Id") != "id-1" {
			t.Errorf("%s: status %d, %d bytes, %v", tt.path, a.Status, len(a.Body), a.Err)
		}
	}

	if a := s.Post(t.Context(), "/v1/redirect", []byte("{}")); a.Err != nil || a.Status != 418 ||
		string(a.Body) != "{}" {
		t.Errorf("redirect: status %d, body %q, %v", a.Status, a.Body, a.Err)
	}
}

// The errors are the HTTP client's own: retries depend on them.
func TestPostErrors(t *testing.T) {
	t.Parallel()

	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			io.Copy(io.Discard, r.Body) // only then does the server see the client go
			<-r.Context().Done()
		case "/short":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "{")
		}
	}))

	gone := httptest.NewServer(nil)
	gone.Close()

	var opErr *net.OpError
	if a := connect(t, gone.URL, "").Post(t.Context(), "/", nil); !errors.As(a.Err, &opErr) || opErr.Op != "dial" {
		t.Errorf("connection refused: %v", a.Err)
	}

	if a := s.Post(t.Context(), "/short", nil); !errors.Is(a.Err, io.ErrUnexpectedEOF) {
		t.Errorf("answer cut: %v", a.Err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()

	if a := s.Post(ctx, "/hang", []byte("{}")); !errors.Is(a.Err, context.DeadlineExceeded) {
		t.Errorf("no answer in time: %v", a.Err)
	}
}
