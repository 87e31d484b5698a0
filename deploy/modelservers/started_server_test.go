package modelservers

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/promptmill/promptmill/worker/modelserver"
)

// A server that has given up once and works again is not lost while it is restarted later: the others may
// give up then, and it goes on.
func TestServerThatComesBackIsNotLost(t *testing.T) {
	t.Parallel()

	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()

	server, err := modelserver.New(web.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	s := &startedServer{server: server}
	s.isLost.Store(true)

	if err := s.checkReady(t.Context()); err != nil || s.isLost.Load() {
		t.Errorf("a server that answers: %v, lost %v", err, s.isLost.Load())
	}

	web.Close()
	if err := s.checkReady(t.Context()); !errors.Is(err, modelserver.ErrUnreachable) || s.isLost.Load() {
		t.Errorf("a server that is being restarted: %v, lost %v", err, s.isLost.Load())
	}

	s.isLost.Store(true)
	if s.checkReady(t.Context()); !s.isLost.Load() {
		t.Error("a server that has given up and does not answer is not lost")
	}
}
