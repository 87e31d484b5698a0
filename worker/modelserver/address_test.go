package modelserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAddresses(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		base  string // empty: http://llm:8000
		found string // by DNS, in its order
		want  string
	}{
		{"a headless service", "", "10.0.0.7 10.0.0.5 10.0.0.6", "10.0.0.5 10.0.0.6 10.0.0.7"},
		{"one that names an address twice", "", "10.0.0.5 10.0.0.6 10.0.0.5", "10.0.0.5 10.0.0.6"},
		{"hosts with both families", "", "fd00::5 10.0.0.5 fd00::6 10.0.0.6", "fd00::5 fd00::6"},
		{"hosts with both, that are reached by IPv4", "", "10.0.0.5 10.0.0.6 fd00::5 fd00::6", "10.0.0.5 10.0.0.6"},
		{"IPv4 within IPv6", "", "::ffff:10.0.0.5 10.0.0.6", "10.0.0.5 10.0.0.6"},
		{"a virtual address", "", "10.0.0.5", "10.0.0.5"},
		{"one host with both families", "", "fd00::5 10.0.0.5", "fd00::5"},
		{"this machine", "http://localhost:8000", "::1 127.0.0.1", "::1"},
		{"two on this machine", "", "127.0.0.2 127.0.0.3", "127.0.0.2 127.0.0.3"},
		{"a carrier's network", "", "100.64.0.2 100.64.0.3", "100.64.0.2 100.64.0.3"},
		{"a load balancer in the open", "https://api.example.com", "104.18.6.192 104.18.7.192", ""},
		{"and its second family", "https://api.example.com", "10.0.0.5 104.18.7.192", ""},
		{"an address", "http://10.0.0.5:8000", "10.0.0.5 10.0.0.6", ""},
		{"an address of IPv6", "http://[fd00::5]:8000/v1", "10.0.0.5 10.0.0.6", ""},
		{"nothing", "", "", ""},
	} {
		base := tt.base
		if base == "" {
			base = "http://llm:8000"
		}

		got, err := resolveAddresses(t.Context(), base,
			func(context.Context, string, string) (list []netip.Addr, err error) {
				for text := range strings.FieldsSeq(tt.found) {
					list = append(list, netip.MustParseAddr(text))
				}
				return list, nil
			})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}

		var texts []string
		for _, a := range got {
			texts = append(texts, a.String())
		}

		if diff := cmp.Diff(tt.want, strings.Join(texts, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}

	unknown := errors.New("no such host")
	_, err := resolveAddresses(t.Context(), "http://llm:8000",
		func(context.Context, string, string) ([]netip.Addr, error) { return nil, unknown })
	if !errors.Is(err, unknown) {
		t.Errorf("of a name that is not known: %v", err)
	}
}

// A server at one address of its host gets its requests there, with the name of the host in the
// header and in TLS.
func TestWithAddress(t *testing.T) {
	t.Parallel()

	const body = `{"object":"list","data":[{"id":"m"}]}`
	var mu sync.Mutex
	var hosts, names []string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		hosts, names = append(hosts, r.Host), append(names, r.TLS.ServerName)
		w.Write([]byte(body))
	}))

	listener, err := net.Listen("tcp", "127.0.0.2:0") // nothing else is there
	if err != nil {
		t.Skip("this system has no 127.0.0.2: ", err)
	}

	server.Listener.Close()
	server.Listener = listener
	server.TLS = &tls.Config{}
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate()) // it is for example.com

	_, port, _ := net.SplitHostPort(listener.Addr().String())
	s, err := New("https://example.com:"+port, "", WithAddress(netip.MustParseAddr("127.0.0.2")), WithRoots(roots))
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(s.Close)
	if a := s.Post(t.Context(), "/v1/chat/completions", []byte("{}")); a.Err != nil || string(a.Body) != body {
		t.Errorf("posted: %s, %v", a.Body, a.Err)
	}

	if _, err := s.Probe(t.Context()); err != nil {
		t.Errorf("looked at: %v", err)
	}

	mu.Lock()
	defer mu.Unlock()

	for i := range hosts {
		if hosts[i] != "example.com:"+port || names[i] != "example.com" {
			t.Errorf("request %d was for the host %q, by TLS for %q", i, hosts[i], names[i])
		}
	}

	if want := "https://example.com:" + port + " (127.0.0.2)"; s.URL() != want {
		t.Errorf("it is called %s, want %s", s.URL(), want)
	}
}
