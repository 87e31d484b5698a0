package modelserver

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// A server with a certificate that is not trusted gets no request, and the error shows how to
// trust it.
func TestCertificates(t *testing.T) {
	t.Parallel()

	var asked atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Write([]byte(otherModels))
	}))

	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it logs each client that does not trust it
	defer server.Close()

	s := connect(t, server.URL, "key-1")
	_, err := s.Probe(t.Context())
	for _, err := range []error{
		s.Post(t.Context(), "/v1/score", nil).Err, withoutHTTP1(s).Post(t.Context(), "/v1/score", nil).Err, err,
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

	if trusting.givenBase.client == nil {
		t.Error("goes by net/http")
	}

	_, err = trusting.Probe(t.Context())
	for _, err := range []error{
		trusting.Post(t.Context(), "/v1/score", nil).Err,
		withoutHTTP1(trusting).Post(t.Context(), "/v1/score", nil).Err, err,
	} {
		if err != nil {
			t.Errorf("error %v", err)
		}
	}
}
