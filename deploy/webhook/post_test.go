package webhook

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// receive starts a receiver until the end of the test.
func receive(t *testing.T, answer http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return s
}

// send sends an event to an address, signed with the secrets.
func send(t *testing.T, address string, e Event, secrets ...string) Answer {
	t.Helper()

	u, err := ParseURL(address)
	must(t, err)
	signer, err := NewSigner(secrets)
	must(t, err)

	client := NewClient()
	defer client.CloseIdleConnections()

	return NewURLEndpoint(u, signer, client, "promptmill/test").Send(t.Context(), e.withID())
}

// The official Go SDK verifies events, with each of two secrets, and finds the batch.
func TestOpenAIUnwraps(t *testing.T) {
	t.Parallel()

	old, err := LoadOwnSecrets(t.TempDir())
	must(t, err)
	secrets, err := LoadOwnSecrets(t.TempDir())
	must(t, err)
	secrets = append(secrets, old...)

	for _, kind := range []string{Completed, Failed, Expired, Cancelled} {
		e := Event{Type: kind, BatchID: "batch_r", At: time.Unix(1795000000, 5)}
		received := 0
		s := receive(t, func(w http.ResponseWriter, r *http.Request) {
			received++
			body, _ := io.ReadAll(r.Body)
			for _, secret := range secrets {
				client := openai.NewClient(option.WithAPIKey("k"), option.WithWebhookSecret(secret))
				got, err := client.Webhooks.Unwrap(body, r.Header)
				if err != nil {
					t.Errorf("%s: %v", kind, err)
					return
				}

				if got.Type != kind || got.ID != r.Header.Get("webhook-id") || got.Data.ID != "batch_r" ||
					got.CreatedAt != 1795000000 || got.Object != "event" {
					t.Errorf("%s: %+v", kind, got)
				}
			}

			forged := strings.Replace(string(body), "batch_r", "batch_x", 1)
			client := openai.NewClient(option.WithAPIKey("k"), option.WithWebhookSecret(secrets[0]))
			if _, err := client.Webhooks.Unwrap([]byte(forged), r.Header); err == nil {
				t.Error("a forged event is verified")
			}
		})

		if a := send(t, s.URL, e, secrets...); !a.Delivered || a.Text != "200 OK" || received != 1 {
			t.Errorf("%s: %+v", kind, a)
		}
	}
}

// The answers of receivers, in words.
func TestAnswers(t *testing.T) {
	t.Parallel()

	answer := func(status int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}

	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   Answer
	}{
		"taken": {answer(201, "thanks"), Answer{Delivered: true, Status: 201, Text: "201 Created"}},
		"endless answer": {answer(200, strings.Repeat("x", 1<<20)),
			Answer{Delivered: true, Status: 200, Text: "200 OK"}},
		"refused":        {answer(401, "no\nthanks"), Answer{Status: 401, Text: "401 Unauthorized: no"}},
		"unknown status": {answer(599, ""), Answer{Status: 599, Text: "599"}},
		"escapes": {answer(500, "\x1b[31mred\x00"),
			Answer{Status: 500, Text: "500 Internal Server Error:  [31mred "}},
		"gone": {answer(410, "bye"),
			Answer{Final: true, Status: 410, Text: "410 Gone: the endpoint does not want the event"}},
		"seconds": {answer(503, "", "Retry-After", "120"),
			Answer{Status: 503, Text: "503 Service Unavailable", RetryAfter: 2 * time.Minute}},
		"negative": {answer(503, "", "Retry-After", "-1"), Answer{Status: 503, Text: "503 Service Unavailable"}},
		"a long pause": {answer(429, "", "Retry-After", "99999999999999999"),
			Answer{Status: 429, Text: "429 Too Many Requests", RetryAfter: maxRetryAfter}},
		"a year": {answer(429, "", "Retry-After", "31536000"),
			Answer{Status: 429, Text: "429 Too Many Requests", RetryAfter: maxRetryAfter}},
		"no time": {answer(429, "", "Retry-After", "soon"), Answer{Status: 429, Text: "429 Too Many Requests"}},
		"a date that was": {answer(429, "", "Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"),
			Answer{Status: 429, Text: "429 Too Many Requests"}},
		"redirect": {answer(307, "", "Location", "https://u:p@example.com/a/0123456789abcdefghij?token=x"), Answer{
			Status: 307,
			Text: "307 Temporary Redirect to https://example.com/a/0123...?..., and redirects are not followed: " +
				"give --webhook the address that it leads to",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := receive(t, tt.answer)
			got := send(t, s.URL, NewTestEvent())
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

// A receiver that gives no answer, in words and without the address, which may have secrets.
func TestNoAnswer(t *testing.T) {
	t.Parallel()

	quiet := log.New(io.Discard, "", 0)
	plain := receive(t, func(http.ResponseWriter, *http.Request) {})
	closing := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		c.Close()
	})

	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = quiet
	secure.StartTLS()
	t.Cleanup(secure.Close)
	garbage := httptest.NewUnstartedServer(nil)
	garbage.Listener.Close()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l.Close()

	for address, want := range map[string]string{
		"http://" + l.Addr().String() + "/secret": "connection refused",
		"http://nosuch.invalid/secret":            "no address has the name nosuch.invalid",
		closing.URL + "/secret":                   "it closed the connection without an answer",
		secure.URL +
			"/secret": "the authority of its certificate is not known here",
		strings.Replace(plain.URL, "http", "https", 1) +
			"/secret": "it does not use TLS: give --webhook its address with http://",
	} {
		got := send(t, address, NewTestEvent())
		if strings.Contains(address, "nosuch") && strings.HasPrefix(got.Text, "the address of") {
			continue // no name server here
		}

		if got != (Answer{Text: want}) {
			t.Errorf("%s: %+v, want %q", address, got, want)
		}
	}
}

// An attempt ends after its time.
func TestHangingReceiver(t *testing.T) {
	t.Parallel()

	end := make(chan struct{})
	s := receive(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-end:
		}
	})
	defer close(end)

	u, err := ParseURL(s.URL)
	must(t, err)
	client := NewClient()
	defer client.CloseIdleConnections()

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()

	if a := NewURLEndpoint(u, &Signer{}, client, "").
		Send(ctx, NewTestEvent()); a != (Answer{Text: "no answer within 15s"}) {
		t.Errorf("%+v", a)
	}
}

// Only TLS that the machine trusts is spoken, and no other protocol than HTTP.
func TestClient(t *testing.T) {
	t.Parallel()

	transport := NewClient().Transport.(*http.Transport)
	if transport.TLSClientConfig.InsecureSkipVerify || transport.TLSClientConfig.MinVersion < tls.VersionTLS12 {
		t.Errorf("TLS %+v", transport.TLSClientConfig)
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()

	for address, want := range map[string]string{
		"https://example.com":            "",
		"http://[::1]:8080/a?b=c":        "",
		"example.com/hooks":              "must begin with http:// or https://",
		"ftp://example.com":              "must begin with http:// or https://",
		"localhost:9000":                 "must begin with http:// or https://",
		"file:///etc/passwd":             "must begin with http:// or https://",
		"":                               "must begin with http:// or https://",
		"https://u:p@example.com":        "must have no user or password: events are signed, and the receiver verifies that",
		"https://":                       "it names no host",
		"http:example.com":               "it names no host",
		"http://:80/":                    "it names no host",
		"http://example.com:":            "its port is not a number from 1 to 65535",
		"http://example.com:99999":       "its port is not a number from 1 to 65535",
		"http://example.com:0":           "its port is not a number from 1 to 65535",
		"http://example.com/#x":          "must have no # part, which is never sent",
		"http://exa mple.com":            "it is not a URL",
		"http://example.com:port/secret": "it is not a URL",
	} {
		_, err := ParseURL(address)
		got := ""
		if err != nil {
			got = err.Error()
		}

		if got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

// The name of an endpoint has none of its secrets.
func TestNameOf(t *testing.T) {
	t.Parallel()

	for address, want := range map[string]string{
		"https://example.com":                                  "https://example.com",
		"https://example.com:444/hooks/promptmill":             "https://example.com:444/hooks/promptmill",
		"https://hooks.example.com/T0/B0/XXXXxxxxXXXXxxxxXXXX": "https://hooks.example.com/T0/B0/XXXX...",
		"https://example.com/h?token=1":                        "https://example.com/h?...",
	} {
		u, err := url.Parse(address)
		must(t, err)
		if got := NameOf(u); got != want {
			t.Errorf("%s is named %s, want %s", address, got, want)
		}
	}
}

// A secret is made once, for its owner alone. A file that has none is refused.
func TestSecrets(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	first, err := LoadOwnSecrets(state)
	must(t, err)
	again, err := LoadOwnSecrets(state)
	must(t, err)
	if diff := cmp.Diff(first, again); diff != "" || len(first) != 1 || !strings.HasPrefix(first[0], "whsec_") {
		t.Errorf("secrets %q and then %q", first, again)
	}

	if mode := statMode(t, SecretFile(state)); mode != 0o600 {
		t.Errorf("the file has mode %o", mode)
	}

	path := filepath.Join(state, "given")
	for text, want := range map[string]string{
		"":                         path + ": it has no signing secret of webhooks",
		"secret":                   path + ": line 1: the signing secret of webhooks must begin with whsec_",
		first[0] + "\n\nwhsec_ä":   path + ": line 3: the signing secret of webhooks must be base64 after whsec_",
		"whsec_c2hvcnQ=":           path + ": line 1: the signing secret of webhooks has 5 bytes, must have 24 to 64",
		first[0] + "\r\n":          "",
		first[0] + "\n" + first[0]: "",
	} {
		writeText(t, path, text)
		_, err := LoadSecrets(path)
		got := ""
		if err != nil {
			got = err.Error()
		}

		if got != want {
			t.Errorf("%s: %q, want %q", strconv.Quote(text), got, want)
		}
	}
}
