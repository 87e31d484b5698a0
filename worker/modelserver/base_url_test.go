package modelserver

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/worker/modelserver/http1"
)

func TestResolvePath(t *testing.T) {
	t.Parallel()

	const chat = "/v1/chat/completions"
	for _, tt := range []struct{ url, path, want string }{
		{"http://h", chat, "http://h/v1/chat/completions"},
		{"http://h:8000//v1//", chat, "http://h:8000/v1/chat/completions"},
		{"http://h/v1/models", chat, "http://h/v1/chat/completions"},
		{"http://h/v1/models/", "/v1/models", "http://h/v1/models"},
		{"http://h/models", chat, "http://h/models/v1/chat/completions"},
		{"http://h/api/v4", chat, "http://h/api/v4/chat/completions"},
		{"http://h/api/v4/", "/v1/models", "http://h/api/v4/models"},
		{"http://h/api/v4", "/metrics", "http://h/api/metrics"},
		{"http://h/v4/chat/completions", "/v1/embeddings", "http://h/v4/embeddings"},
		{"http://h/v1beta/openai/chat/completions", "/v1/embeddings", "http://h/v1beta/openai/embeddings"},
		{"http://h/v1beta", chat, "http://h/v1beta/chat/completions"},
		{"http://h/vision", chat, "http://h/vision/v1/chat/completions"},
		{"http://h/v1/?api-version=2024-02-01", chat, "http://h/v1/chat/completions?api-version=2024-02-01"},
		{"http://h?a=b", "/metrics", "http://h/metrics?a=b"},
		{"http://h/a%2Fb/v1", chat, "http://h/a%2Fb/v1/chat/completions"},
		{"http://[::1]:8000/v1", chat, "http://[::1]:8000/v1/chat/completions"},
		{"http://[fe80::1%25eth0]:8000", chat, "http://[fe80::1%25eth0]:8000/v1/chat/completions"},
		{"http://u:p@h/v1", chat, "http://h/v1/chat/completions"},
		{" http://h/v1\n", chat, "http://h/v1/chat/completions"},
	} {
		p, _, err := parseBaseURL(tt.url)
		if got := p.origin + p.resolvePath(tt.path); err != nil || got != tt.want {
			t.Errorf("%s of %s is %s, %v; want %s", tt.path, tt.url, got, err, tt.want)
		}
	}
}

func FuzzParseBaseURL(f *testing.F) {
	for _, text := range []string{
		"http://h:1/v1/", "http://u:secret@h/api/v4?key=secret", "https://[::1%25a]/v1/models", "http://h/%2f/score?%",
	} {
		f.Add(text)
	}

	f.Fuzz(func(t *testing.T, text string) {
		p, _, err := parseBaseURL(text)
		if err != nil {
			return
		}

		full := p.origin + p.resolvePath("/v1/chat/completions")
		u, err := url.Parse(full)
		if err != nil {
			t.Fatalf("%q makes %q: %v", text, full, err)
		}

		again, _, err := parseBaseURL(full)
		if err != nil || again.origin+again.resolvePath("/v1/embeddings") != p.origin+p.resolvePath("/v1/embeddings") {
			t.Errorf("%q makes %q, which makes %q, %v",
				text, full, again.origin+again.resolvePath("/v1/embeddings"), err)
		}

		if !strings.HasSuffix(u.EscapedPath(), "/chat/completions") || u.User != nil {
			t.Errorf("%q makes %q", text, full)
		}
	})
}

func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ url, want string }{
		{"http://bob:secret@h/v1", "http://h"},
		{"http://secret@h/v1", "http://h"},
		{"http://h?api-version=2024-02-01&api-key=secret&x=1", "http://h?api-version=2024-02-01&api-key=xxxxx&x=1"},
		{"https://h/api/v4?subscription_key=secret&sig=secret&Token=secret",
			"https://h/api/v4?subscription_key=xxxxx&sig=xxxxx&Token=xxxxx"},
	} {
		s := connect(t, tt.url, "")
		if s.URL() != tt.want {
			t.Errorf("%s is shown as %s", tt.url, s.URL())
		}
	}

	for _, bad := range []string{
		"http://bob:secret@h:port/", "bob:secret@h", "http://bob:secret@[::1", "ftp://h?key=secret",
		"http://bob:secret@h/%zz?key=secret", "http://bob:se@cret@h/%zz",
	} {
		if _, err := New(bad, ""); err == nil || strings.Contains(err.Error(), "cret") {
			t.Errorf("%s: %v", bad, err)
		}
	}

	gone := httptest.NewServer(nil)
	gone.Close()

	s := connect(t, strings.Replace(gone.URL, "http://", "http://bob:secret@", 1)+"/?api-key=secret", "")
	for _, s := range []*Server{s, withoutHTTP1(s)} {
		a := s.Post(t.Context(), "/v1/score", nil)
		_, err := s.Probe(t.Context())
		for _, err := range []error{a.Err, err} {
			if err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v", err)
			}
		}
	}
}

func TestAuthorization(t *testing.T) {
	t.Parallel()

	var got atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get("Authorization") + " " + r.URL.RawQuery)
	}))
	defer server.Close()

	for _, tt := range []struct{ user, query, key, want string }{
		{"", "", "", " "},
		{"", "", "key-1", "Bearer key-1 "},
		{"", "", " key-1\r\n", "Bearer key-1 "},
		{"", "", "Bearer key-1", "Bearer key-1 "},
		{"", "", "bearer  key-1\n", "Bearer key-1 "},
		{"bob:s%40x@", "", "", "Basic Ym9iOnNAeA== "},
		{"bob:s%40x@", "", "key-1", "Basic Ym9iOnNAeA== "},
		{"", "?api-version=1&b=%20c", "k", "Bearer k api-version=1&b=%20c"},
	} {
		s := connect(t, strings.Replace(server.URL, "http://", "http://"+tt.user, 1)+tt.query, tt.key)
		for _, s := range []*Server{s, withoutHTTP1(s)} {
			if a := s.Post(t.Context(), "/v1/score", nil); a.Err != nil || got.Load() != tt.want {
				t.Errorf("%q with key %q: %q, %v", tt.user+tt.query, tt.key, got.Load(), a.Err)
			}
			if s.Probe(t.Context()); got.Load() != tt.want {
				t.Errorf("%q with key %q: %q", tt.user+tt.query, tt.key, got.Load())
			}
		}

		if s.givenBase.client == nil {
			t.Errorf("%q goes by net/http", tt.user+tt.query)
		}
	}

	for _, key := range []string{"two words", "key\x00", "line\nend", "ключ"} {
		if _, err := New("http://h", key); err == nil || strings.Contains(err.Error(), key) {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

// A redirect that keeps method and body is followed on the same host. A permanent one is
// requested once.
func TestRedirects(t *testing.T) {
	t.Parallel()

	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
	}))

	t.Cleanup(secure.Close)
	var other atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { other.Add(1) }))
	t.Cleanup(elsewhere.Close)

	for _, tt := range []struct {
		name     string
		status   int
		location string
		want     int
		asked    int64 // of three requests at the first place
	}{
		{"308 to a path", 308, "/new/v1/score", 200, 1},
		{"307 to a path", 307, "/new/v1/score", 200, 3},
		{"a slash at the end", 308, "/v1/score/", 200, 1},
		{"a slash at the end for now", 307, "/v1/score/", 200, 3},
		{"a path with a query", 308, "/new/v1/score?key=1", 200, 1},
		{"https", 308, secure.URL + "/v1/score", 200, 1},
		{"https for now", 307, secure.URL + "/v1/score", 200, 3},
		{"https at another path", 308, secure.URL + "/x", 200, 1},
		{"301", 301, "/new/v1/score", 301, 3},
		{"302", 302, "/new/v1/score", 302, 3},
		{"303", 303, "/new/v1/score", 303, 3},
		{"another port", 308, elsewhere.URL + "/v1/score", 308, 3},
		{"another host", 308, strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1) + "/v1/score", 308, 3},
		{"itself", 308, "/v1/score", 308, 18},
		{"no place", 308, "", 308, 3},
		{"no URL", 308, "http://[", 308, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var asked atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if r.URL.Path == "/v1/score" {
					asked.Add(1)
					if tt.location != "" {
						w.Header().Set("Location", tt.location)
					}
					w.WriteHeader(tt.status)
					return
				}

				w.Write(body)
			}))
			defer server.Close()

			for _, wired := range []bool{true, false} {
				var logged lockedBuffer
				s, err := New(server.URL, "key-1", WithLog(zerolog.New(&logged)), WithRoots(rootsOf(secure)))
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()

				size := 10
				if !wired {
					size = http1.MaxPostBody + 1
				}

				asked.Store(0)
				for range 3 {
					body := bytes.Repeat([]byte("a"), size)
					a := s.Post(t.Context(), "/v1/score", body)
					if a.Err != nil || a.Status != tt.want || a.Status == 200 && !bytes.Equal(a.Body, body) {
						t.Errorf("wired %v: status %d, %d bytes, %v", wired, a.Status, len(a.Body), a.Err)
					}

					if a.Status != 200 && a.Location() != tt.location {
						t.Errorf("wired %v: location %q", wired, a.Location())
					}
				}

				if asked.Load() != tt.asked {
					t.Errorf("wired %v: asked %d times", wired, asked.Load())
				}

				if n := strings.Count(logged.String(), "redirects"); tt.want == 200 && n != 1 || n > 1 {
					t.Errorf("wired %v: logged %s", wired, logged.String())
				}
			}
		})
	}

	t.Cleanup(func() {
		if n := other.Load(); n > 0 {
			t.Errorf("another server was asked %d times", n)
		}
	})
}

// A server that redirects more than once gets these requests, one by one.
func TestRedirectsInTurn(t *testing.T) {
	t.Parallel()

	type hop struct {
		status   int
		location string
	}

	for _, tt := range []struct {
		name string
		base string
		hops map[string]hop // by path
		want string         // the paths of two requests for /v1/score and one for /v1/rerank
	}{
		{
			name: "to a path that is shorter than the base, and on",
			base: "/proxy/llm",
			hops: map[string]hop{"/proxy/llm/v1/score": {308, "/login"}, "/login": {308, "/in"}},
			want: "/proxy/llm/v1/score /login /in; /in; /proxy/llm/v1/rerank",
		},
		{
			name: "the same for now",
			base: "/proxy/llm",
			hops: map[string]hop{"/proxy/llm/v1/score": {307, "/login"}, "/login": {307, "/in"}},
			want: "/proxy/llm/v1/score /login /in; /proxy/llm/v1/score /login /in; /proxy/llm/v1/rerank",
		},
		{
			name: "for good after for now",
			hops: map[string]hop{"/v1/score": {307, "/a"}, "/a": {308, "/b"}},
			want: "/v1/score /a /b; /v1/score /a /b; /v1/rerank",
		},
		{
			name: "for now after for good",
			hops: map[string]hop{"/v1/score": {308, "/new/v1/score"}, "/new/v1/score": {307, "/b"}},
			want: "/v1/score /new/v1/score /b; /new/v1/score /b; /new/v1/rerank",
		},
		{
			name: "a query for this request",
			base: "?key=1",
			hops: map[string]hop{"/v1/score": {307, "/v1/score/?session=x"}},
			want: "/v1/score?key=1 /v1/score/?session=x; /v1/score?key=1 /v1/score/?session=x; /v1/rerank?key=1",
		},
		{
			name: "a query of one that is for good",
			base: "?key=1",
			hops: map[string]hop{"/v1/score": {308, "/new/v1/score?session=x"}},
			want: "/v1/score?key=1 /new/v1/score?session=x; /new/v1/score?key=1; /new/v1/rerank?key=1",
		},
		{
			name: "the given query stays",
			base: "?key=1",
			hops: map[string]hop{"/v1/score": {308, "/other"}},
			want: "/v1/score?key=1 /other?key=1; /other?key=1; /v1/rerank?key=1",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var mu sync.Mutex
			var asked []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				mu.Lock()
				defer mu.Unlock()

				asked = append(asked, r.URL.RequestURI())
				if h, ok := tt.hops[r.URL.Path]; ok {
					w.Header().Set("Location", h.location)
					w.WriteHeader(h.status)
				}
			}))
			defer server.Close()

			for _, size := range []int{10, http1.MaxPostBody + 1} {
				s := connect(t, server.URL+tt.base, "")
				var got []string
				for _, path := range []string{"/v1/score", "/v1/score", "/v1/rerank"} {
					if a := s.Post(t.Context(), path, make([]byte, size)); a.Err != nil || a.Status != 200 {
						t.Errorf("%s: status %d, %v", path, a.Status, a.Err)
					}

					mu.Lock()
					got = append(got, strings.Join(asked, " "))
					asked = nil
					mu.Unlock()
				}

				if got := strings.Join(got, "; "); got != tt.want {
					t.Errorf("with %d bytes: asked %s\nwant  %s", size, got, tt.want)
				}
			}
		})
	}
}
