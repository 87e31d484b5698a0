package localbus

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// connectTLS connects to a server with an authority's certificates.
func connectTLS(t *testing.T, a *Authority, trusted *x509.CertPool, name string) error {
	t.Helper()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	served := make(chan struct{})
	go func() {
		defer close(served)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		tls.Server(conn, &tls.Config{GetCertificate: a.GetCertificate}).HandshakeContext(t.Context())
	}()

	conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{ServerName: name, RootCAs: trusted})
	if err == nil {
		conn.Close()
	}
	listener.Close()
	<-served

	return err
}

// loadTrusted returns the authority of a state folder and the certificates that its clients trust.
func loadTrusted(t *testing.T, state string, hosts ...string) (*Authority, *x509.CertPool) {
	t.Helper()

	id, err := LoadIdentity(state)
	if err != nil {
		t.Fatal(err)
	}

	a, path, err := LoadAuthority(state, id, hosts...)
	if err != nil {
		t.Fatal(err)
	}

	data, err := os.ReadFile(path)
	trusted := x509.NewCertPool()
	if err != nil || !trusted.AppendCertsFromPEM(data) {
		t.Fatalf("the file for clients: %v\n%s", err, data)
	}

	return a, trusted
}

// Clients reach the server under each name and address of the machine, and trust it over restarts.
func TestAuthority(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	a, trusted := loadTrusted(t, state, "head.example", "198.51.100.7", "0.0.0.0")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}

	names := []string{"localhost", "127.0.0.1", "::1", "head.example", "198.51.100.7", host, a.host + ".lan"}
	for _, address := range MachineAddresses() {
		names = append(names, address.String())
	}
	for _, name := range names {
		if err := connectTLS(t, a, trusted, name); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}

	for _, name := range []string{"api.example", "other." + a.host, "0.0.0.0"} {
		if err := connectTLS(t, a, trusted, name); err == nil {
			t.Errorf("as %s: the certificate has that name", name)
		}
	}

	again, _ := loadTrusted(t, state)
	if err := connectTLS(t, again, trusted, "localhost"); err != nil {
		t.Errorf("after a restart: %v", err)
	}

	other, _ := loadTrusted(t, t.TempDir())
	if err := connectTLS(t, other, trusted, "localhost"); err == nil {
		t.Error("the authority of another machine is trusted")
	}

	// Names that clients make up do not fill the certificate.
	for i := range 3 * maxLeafNames {
		connectTLS(t, a, trusted, a.host+"."+string(rune('a'+i%26))+string(rune('a'+i/26)))
	}
	if len(a.names) > maxLeafNames {
		t.Errorf("%d names", len(a.names))
	}
}

// The certificate is made again before it ends, and the file for clients when the identity is another.
func TestAuthorityRenewal(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	a, trusted := loadTrusted(t, state)
	if err := connectTLS(t, a, trusted, "localhost"); err != nil {
		t.Fatal(err)
	}

	first := a.leaf
	if connectTLS(t, a, trusted, "localhost"); a.leaf != first {
		t.Error("each connection makes a certificate")
	}

	a.made = time.Now().Add(-leafAge - time.Minute)
	if err := connectTLS(t, a, trusted, "localhost"); err != nil || a.leaf == first {
		t.Errorf("no new certificate after %s: %v", leafAge, err)
	}

	if err := os.Remove(filepath.Join(state, IdentityFile)); err != nil {
		t.Fatal(err)
	}

	b, _ := loadTrusted(t, state)
	if err := connectTLS(t, b, trusted, "localhost"); err == nil {
		t.Error("clients trust the authority of an identity that was deleted")
	}
}
