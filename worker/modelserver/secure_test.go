package modelserver

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"
)

// A server with a certificate that is not trusted is not talked to, and the way to trust it
// is named.
func TestCertificates(t *testing.T) {
	t.Parallel()

	var asked atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Write([]byte(somebodysModels))
	}))

	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains of who does not trust it
	defer server.Close()

	s := connect(t, server.URL, "key-1")
	_, err := s.Probe(t.Context())
	for _, err := range []error{
		s.Post(t.Context(), "/v1/score", nil).Err, byNetHTTP(s).Post(t.Context(), "/v1/score", nil).Err, err,
	} {
		if err == nil || !strings.Contains(err.Error(), "--model-ca FILE names the certificates to trust") {
			t.Errorf("error %v", err)
		}
	}

	if n := asked.Load(); n > 0 {
		t.Errorf("asked %d times", n)
	}

	trusting, err := New(server.URL, "key-1", WithRoots(rootsOf(server)))
	if err != nil {
		t.Fatal(err)
	}
	defer trusting.Close()

	if trusting.givenBase.wire == nil {
		t.Error("goes by net/http")
	}

	_, err = trusting.Probe(t.Context())
	for _, err := range []error{
		trusting.Post(t.Context(), "/v1/score", nil).Err,
		byNetHTTP(trusting).Post(t.Context(), "/v1/score", nil).Err, err,
	} {
		if err != nil {
			t.Errorf("error %v", err)
		}
	}
}

// Connections with TLS are kept, and looked at, like others.
func TestSecureWire(t *testing.T) {
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

			answer := message(200, sumOf(body))
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

	var said lockedBuffer
	s, err := New(server.URL, "", WithRoots(rootsOf(server)), WithLog(zerolog.New(&said)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	post := func(n int) {
		body := bytes.Repeat(fmt.Appendf(nil, "%d", n), 8<<10)
		if a := s.Post(t.Context(), "/v1/score", body); a.Err != nil || string(a.Body) != sumOf(body) {
			t.Errorf("%d: %q, %v", n, a.Body, a.Err)
		}
	}
	for n := range 19 {
		post(n)
	}

	if opened.Load() != 1 || said.String() != "" {
		t.Errorf("%d connections; %s", opened.Load(), said.String())
	}

	post(19)
	post(20)

	if !strings.Contains(said.String(), "nobody asked for") {
		t.Errorf("nothing was said: %q", said.String())
	}
}
