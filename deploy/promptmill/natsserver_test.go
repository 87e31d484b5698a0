package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/promptmill/promptmill/proto"
)

// startNATSServer starts a NATS server with the text of a configuration, and returns its HOST:PORT.
// STORE in the text is a folder for JetStream.
func startNATSServer(t *testing.T, config string) (address string) {
	t.Helper()
	return startNATSServerAt(t, "127.0.0.1:-1", config).Addr().String()
}

// startNATSServerAt is startNATSServer at an address.
func startNATSServerAt(t *testing.T, address, config string) *server.Server {
	t.Helper()

	dir := t.TempDir()
	path := filepath.Join(dir, "nats.conf")
	config = fmt.Sprintf("listen: %q\n", address) +
		strings.ReplaceAll(config, "STORE", fmt.Sprintf("%q", filepath.Join(dir, "store")))
	must(t, os.WriteFile(path, []byte(config), 0o600))
	opts, err := server.ProcessConfigFile(path)
	must(t, err)

	return startNATSWith(t, opts)
}

// startNATSWith starts a NATS server without signals and log, and waits until it is ready.
func startNATSWith(t *testing.T, opts *server.Options) *server.Server {
	t.Helper()

	opts.NoSigs, opts.NoLog = true, true
	s, err := server.NewServer(opts)
	must(t, err)

	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})

	if !s.ReadyForConnections(pollTime) {
		t.Fatal("the NATS server does not get ready")
	}

	return s
}

// natsAccounts are the accounts of nats-config, in which the password of a user is secret-of-USER.
func natsAccounts(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	must(t, proto.WriteAccounts(&b, func(user string) string { return `"secret-of-` + user + `"` }))
	return "jetstream { store_dir: STORE }\nmax_payload: 16777216\n" + b.String()
}

// authority signs certificates. Its own is in file.
type authority struct {
	t    *testing.T
	dir  string
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()

	a := &authority{t: t, dir: t.TempDir(), key: newKey(t)}
	a.cert = &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	a.file = a.write("ca", a.cert, a.key)

	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

// sign signs a certificate and returns its file. Its key lies beside it, see keyOf.
func (a *authority) sign(name string, notAfter time.Time, hosts ...string) (file string) {
	a.t.Helper()

	c := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    notAfter.Add(-24 * time.Hour),
		NotAfter:     notAfter,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, host)
		}
	}

	return a.write(name, c, newKey(a.t))
}

// write signs a certificate and writes it and its key.
func (a *authority) write(name string, c *x509.Certificate, key *ecdsa.PrivateKey) (file string) {
	a.t.Helper()

	cert, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	must(a.t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(a.t, err)

	file = filepath.Join(a.dir, name+".pem")
	must(a.t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	must(a.t, os.WriteFile(keyOf(file), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))

	return file
}

func keyOf(certificate string) string { return strings.TrimSuffix(certificate, ".pem") + ".key" }

// tlsConfig is the part of a server's configuration for a certificate.
func tlsConfig(certificate, more string) string {
	return fmt.Sprintf("tls { cert_file: %q, key_file: %q %s }\n", certificate, keyOf(certificate), more)
}

// startTalker listens, and begins each connection with a text. It returns its HOST:PORT.
func startTalker(t *testing.T, text string) (address string) {
	t.Helper()

	return serveConnections(t, func(conn net.Conn) { fmt.Fprint(conn, text) })
}

// serveConnections listens, and calls serve for each connection, which stays open until the end of
// the test. It returns its HOST:PORT.
func serveConnections(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })

	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go serve(conn)
		}
	}()

	return l.Addr().String()
}
