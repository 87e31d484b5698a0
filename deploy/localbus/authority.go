package localbus

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/promptmill/promptmill/collector/atomicfile"
)

// AuthorityFile is the name of the file in the state folder with the certificate of the [Authority].
const AuthorityFile = "api-ca.pem"

// The times of a server's certificate.
const (
	// leafTime is how long it holds. Apple refuses more than 825 days
	// (https://support.apple.com/en-us/103769).
	leafTime = 397 * 24 * time.Hour
	// leafAge is its age at which the next one is made.
	leafAge = 24 * time.Hour
	// clockDifference is the largest difference between the clocks of a client and of this machine.
	clockDifference = 24 * time.Hour
)

// maxLeafNames is the most names in a certificate that clients have added.
const maxLeafNames = 16

// Authority makes the certificates of servers on this machine that programs of others connect to.
// These check the name that they connect to, and a machine gets other addresses over the years: the
// authority stays, and a server's certificate has the names and addresses of today.
type Authority struct {
	certificate *x509.Certificate
	key         any
	host        string

	// mu guards the fields below.
	mu        sync.Mutex
	names     []string
	addresses []net.IP
	leaf      *tls.Certificate
	made      time.Time
}

// LoadAuthority returns the authority of an identity, whose key it has. hosts are names and addresses of
// this machine besides those that it knows. The file with the authority's certificate is in the state
// folder; clients trust it.
func LoadAuthority(state string, id *Identity, hosts ...string) (a *Authority, path string, err error) {
	path = filepath.Join(state, AuthorityFile)
	key, ok := id.Certificate.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, "", errors.New("the key of the bus's certificate is not one that promptmill makes")
	}

	certificate, err := readAuthority(path, key)
	if err != nil {
		return nil, "", err
	}

	if certificate == nil {
		if certificate, err = makeAuthority(path, key); err != nil {
			return nil, "", fmt.Errorf("make the certificate for clients: %w", err)
		}
	}

	a = &Authority{
		certificate: certificate,
		key:         key,
		names:       []string{"localhost"},
		addresses:   []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		a.host, _, _ = strings.Cut(strings.ToLower(host), ".")
		a.add(host)
	}

	for _, address := range MachineAddresses() {
		a.add(address.String())
	}
	for _, host := range hosts {
		a.add(host)
	}

	return a, path, nil
}

// readAuthority reads the certificate of the authority with a key. It is nil if there is none.
func readAuthority(path string, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the certificate for clients: %w", err)
	}

	block, _ := pem.Decode(data)
	if block == nil {
		return nil, nil
	}

	certificate, err := x509.ParseCertificate(block.Bytes)
	if err == nil && certificate.IsCA && key.PublicKey.Equal(certificate.PublicKey) {
		return certificate, nil
	}

	return nil, nil // it is of an identity that was deleted, or damaged
}

// makeAuthority makes the certificate of an authority and writes its file.
func makeAuthority(path string, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}

	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}

	// Each authority has a subject of its own: a client may trust those of several machines.
	sum := sha256.Sum256(public)
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "promptmill " + hex.EncodeToString(sum[:8])},
		NotBefore:             time.Unix(0, 0),
		NotAfter:              time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 4.1.2.5: no end
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}

	data, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}

	file, err := atomicfile.Create(path, 0o644)
	if err != nil {
		return nil, err
	}
	if err := file.Commit(pem.Encode(file, &pem.Block{Type: "CERTIFICATE", Bytes: data})); err != nil {
		return nil, err
	}

	return x509.ParseCertificate(data)
}

// add adds a name or an address of this machine, and reports whether it was new.
func (a *Authority) add(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	ip := net.ParseIP(strings.Trim(host, "[]"))
	switch {
	case host == "", ip != nil && ip.IsUnspecified():
		return false
	case ip != nil && !slices.ContainsFunc(a.addresses, ip.Equal):
		a.addresses = append(a.addresses, ip)
		return true
	case ip == nil && !slices.Contains(a.names, host):
		a.names = append(a.names, host)
		return true
	}

	return false
}

// GetCertificate is for [tls.Config]. The certificate has the address to which the client has
// connected, and the name, if this machine's host name begins it: head.lan for the host head.
func (a *Authority) GetCertificate(client *tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()

	added := false
	if here, ok := client.Conn.LocalAddr().(*net.TCPAddr); ok {
		added = a.add(here.IP.String())
	}

	first, _, dotted := strings.Cut(strings.ToLower(client.ServerName), ".")
	if dotted && first == a.host && len(a.names) < maxLeafNames {
		added = a.add(client.ServerName) || added
	}

	if a.leaf == nil || added || time.Since(a.made) > leafAge {
		leaf, err := a.issue()
		if err != nil {
			return nil, err
		}
		a.leaf, a.made = leaf, time.Now()
	}

	return a.leaf, nil
}

// issue makes a certificate.
func (a *Authority) issue() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}

	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}

	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "promptmill"},
		DNSNames:              a.names,
		IPAddresses:           a.addresses,
		NotBefore:             time.Now().Add(-clockDifference),
		NotAfter:              time.Now().Add(leafTime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}

	data, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}

	return &tls.Certificate{Certificate: [][]byte{data, a.certificate.Raw}, PrivateKey: key}, nil
}
