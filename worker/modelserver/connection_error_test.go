package modelserver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
)

// An error of the connection is put into words, and still wraps the error.
func TestConnectionErrors(t *testing.T) {
	t.Parallel()

	gone := httptest.NewServer(nil)
	gone.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(silent.Close)

	for _, tt := range []struct{ url, text string }{
		{gone.URL, "connection refused: no server listens there"},
		{strings.Replace(plain.URL, "http:", "https:", 1), "it does not use TLS: write http:// in place of https://"},
		{secure.URL, "the authority of its certificate is not known here; --model-ca FILE names the certificates to trust"},
		{silent.URL, "the server closed the connection before the end of its answer"},
	} {
		s := connect(t, tt.url, "")
		want := "list models of " + s.URL() + ": model server not reachable: " + tt.text
		if _, err := s.Probe(t.Context()); err == nil || err.Error() != want {
			t.Errorf("probe: %v\nwant %s", err, want)
		}

		if a := s.Post(t.Context(), "/v1/completions", []byte("{}")); a.Err == nil || a.Err.Error() != tt.text {
			t.Errorf("post: %v\nwant %s", a.Err, tt.text)
		}
	}

	for _, tt := range []struct {
		err  error
		text string
	}{
		{&net.DNSError{Name: "gpu9", IsNotFound: true}, "no address has the name gpu9"},
		{&net.DNSError{Name: "gpu9", IsTimeout: true},
			"the address of gpu9 cannot be looked up: the name server does not answer"},
		{&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, "there is no route to it from this machine"},
		{&net.OpError{Op: "dial", Err: context.DeadlineExceeded}, "no connection in time: nothing answers at this address"},
		{context.DeadlineExceeded, "no answer in time"},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET},
			"the server reset the connection before the end of its answer"},
		{ErrTooLong, ErrTooLong.Error()},
		{context.Canceled, context.Canceled.Error()},
	} {
		if err := describeConnectionError(tt.err); err.Error() != tt.text || !errors.Is(err, tt.err) {
			t.Errorf("%v: %v, want %s", tt.err, err, tt.text)
		}
	}
}
