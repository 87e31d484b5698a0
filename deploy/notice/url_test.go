package notice

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// startPage starts a server whose page is served by the handler that is set last, and returns its source.
func startPage(t *testing.T, first http.HandlerFunc) (*webPage, func(http.HandlerFunc)) {
	var now atomic.Pointer[http.HandlerFunc]
	now.Store(&first)

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != "/notice?box=7" {
			http.Error(w, "another page", http.StatusTeapot)
			return
		}
		(*now.Load())(w, r)
	}))
	t.Cleanup(server.Close)

	u, err := url.Parse(server.URL + "/notice?box=7")
	if err != nil {
		t.Fatal(err)
	}

	source := newWebPage(u)
	source.every = quick

	return source, func(h http.HandlerFunc) { now.Store(&h) }
}

// answering returns a handler that answers with a status and a text.
func answering(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		w.Write([]byte(text))
	}
}

func TestURL(t *testing.T) {
	tests := []struct {
		name   string
		first  int
		answer http.HandlerFunc
		left   time.Duration
		log    string
	}{
		{"not found before", 404, answering(200, ""), 40 * time.Second, ""},
		{"no content before", 204, answering(200, "90s"), 90 * time.Second, ""},
		{"broken before", 500, answering(200, "90s"), 90 * time.Second, "500 Internal Server Error"},
		{"time", 404, answering(200, "2017-09-18T08:22:00Z"), 0, ""},
		{"junk", 404, answering(200, `{"leave": true}`), 40 * time.Second, "write a time such as"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			source, set := startPage(t, answering(tt.first, ""))
			w := startWatching(t, 40*time.Second, source)
			if tt.first == 500 {
				w.expectLog(tt.log)
			}

			set(tt.answer)
			w.expect(source.String(), "the URL says so", tt.left)
			w.expectLog(tt.log)
		})
	}
}

// TestURLRefused: answers that are no notice.
func TestURLRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		log    string
	}{
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}, "302 Found"},
		"flood": {func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < 100 && r.Context().Err() == nil; i++ {
				if _, err := w.Write([]byte(strings.Repeat("a", 1024))); err != nil {
					return
				}
			}
		}, "longer than 65536 bytes"},
		"error":     {answering(503, "120s"), "503 Service Unavailable"},
		"no answer": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		"torn": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("120s"))
		}, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			source, _ := startPage(t, tt.answer)
			source.url.User = url.UserPassword("box", "secret-1")
			source.client.bases = newWebPage(source.url).client.bases

			w := startWatching(t, 0, source)
			w.expectLog(tt.log)
			w.expectNone()

			if log := w.log.String(); strings.Contains(log, "secret-1") || strings.Contains(log, "box=7") {
				t.Errorf("the log has a secret of the URL:\n%s", log)
			}
		})
	}
}

// TestSlowServer: an answer that takes longer than it may is an error.
func TestSlowServer(t *testing.T) {
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(ended)
	}))
	t.Cleanup(server.Close)

	c := newClient(nil, server.URL)
	defer c.close()

	if a, err := c.request(t.Context(), http.MethodGet, "/", nil, 10*quick); err == nil {
		t.Errorf("the answer is %+v", a)
	}
	<-ended
}

// TestProxies: a proxy of the environment never gets a request for a metadata service.
func TestProxies(t *testing.T) {
	asked := make(chan string, 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- r.URL.String()
	}))
	t.Cleanup(proxy.Close)
	t.Setenv("http_proxy", proxy.URL)
	t.Setenv("HTTP_PROXY", proxy.URL)

	request, err := http.NewRequest(http.MethodGet, linkLocal+"/notice", nil)
	if err != nil {
		t.Fatal(err)
	}

	if p, err := chooseProxy(request); p != nil || err != nil {
		t.Errorf("the proxy of %s is %s, %v", request.URL, p, err)
	}

	service, source := startAWS(t)
	if transport := source.client.http.Transport.(*http.Transport); transport.Proxy != nil {
		t.Error("a metadata service is asked through a proxy")
	}
	startWatching(t, 0, source)
	service.awaitAsked(t, awsAction, 1)

	if len(asked) > 0 {
		t.Errorf("the proxy was asked for %s", <-asked)
	}
}
