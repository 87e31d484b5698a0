package notice

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// gcpService is a metadata service of Google: it waits for changes, and refuses requests without its header.
type gcpService struct {
	*httptest.Server

	mu      sync.Mutex
	values  map[string]string
	changed chan struct{} // closed at a change
	waiting map[string]int
	foreign bool // it lacks the header of its answers
}

func startGCP(t *testing.T) (*gcpService, *gcp) {
	s := &gcpService{
		values:  map[string]string{"preempted": "FALSE", "maintenance-event": "NONE"},
		changed: make(chan struct{}),
		waiting: map[string]int{},
	}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)

	source := newGCP(s.URL)
	source.every = quick

	return s, source
}

func (s *gcpService) serve(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Metadata-Flavor") != "Google" {
		w.WriteHeader(http.StatusForbidden)
		return
	}

	name := r.URL.Path[len(gcpFolder):]
	s.mu.Lock()
	changed, value, foreign := s.changed, s.values[name], s.foreign
	if waits := r.FormValue("wait_for_change") == "true"; waits && r.FormValue("last_etag") == "etag-"+value {
		s.waiting[name]++
		s.mu.Unlock()

		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}

		s.mu.Lock()
		value, foreign = s.values[name], s.foreign
	}
	s.mu.Unlock()

	if !foreign {
		w.Header().Set("Metadata-Flavor", "Google")
	}

	w.Header().Set("ETag", "etag-"+value)
	w.Write([]byte(value + "\n"))
}

func (s *gcpService) set(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.values[name] = value
	close(s.changed)
	s.changed = make(chan struct{})
}

// awaitWait waits until a client waits for another value.
func (s *gcpService) awaitWait(t *testing.T, name string) {
	t.Helper()

	for end := time.Now().Add(patience); ; time.Sleep(quick) {
		s.mu.Lock()
		waiting := s.waiting[name]
		s.mu.Unlock()

		if waiting > 0 {
			return
		}

		if time.Now().After(end) {
			t.Fatalf("nobody waits for a change of %s", name)
		}
	}
}

func TestGCP(t *testing.T) {
	service, source := startGCP(t)
	w := startWatching(t, 0, source)
	service.awaitWait(t, "preempted")
	service.awaitWait(t, "maintenance-event")

	service.set("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE") // the machine lives on
	service.set("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
	w.expect("gcp", "host maintenance", time.Hour)

	service.set("preempted", "TRUE")
	w.expect("gcp", "spot instance: preempted", 30*time.Second)
	w.expectNone()
}

// TestGCPForeign: an answer of another server than Google's is no notice.
func TestGCPForeign(t *testing.T) {
	service, source := startGCP(t)
	service.foreign = true
	service.values["preempted"] = "TRUE"

	w := startWatching(t, 0, source)
	w.expectLog("not from Google's metadata service")
	w.expectNone()
}

// TestGCPJunk: another value is no notice.
func TestGCPJunk(t *testing.T) {
	service, source := startGCP(t)
	service.values["preempted"] = "<html>TRUE</html>"

	w := startWatching(t, 0, source)
	service.awaitWait(t, "preempted")
	w.expectNone()
}
