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
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// Identity is the certificate of this machine's buses and the secret from which the passwords of
// the roles are derived. It outlives runs, so a join string stays valid.
type Identity struct {
	// Certificate is the self-signed certificate with its key.
	Certificate tls.Certificate

	secret [32]byte
	id     string // see [Identity.ID]
}

// IdentityFile is the name of the identity's file in the state folder.
const IdentityFile = "identity.pem"

// LoadIdentity reads the identity from the state folder and creates it the first time. Deleting
// its file revokes all join strings.
func LoadIdentity(state string) (*Identity, error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, exit.WithHint(fmt.Errorf("make the state folder: %w", err), "choose another place with --state DIR")
	}

	path := filepath.Join(state, IdentityFile)
	id, err := readIdentity(path)
	if !errors.Is(err, os.ErrNotExist) {
		return id, err
	}

	data, err := generateIdentity()
	if err != nil {
		return nil, fmt.Errorf("make the bus's certificate: %w", err)
	}

	// A temporary file and a link let two processes that start at once agree.
	tmp, err := os.CreateTemp(state, IdentityFile+".*")
	if err != nil {
		return nil, fmt.Errorf("store the bus's certificate: %w", err)
	}
	defer os.Remove(tmp.Name())

	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Link(tmp.Name(), path)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("store the bus's certificate: %w", err)
	}

	return readIdentity(path)
}

// generateIdentity returns a self-signed certificate, its key and a secret as PEM.
func generateIdentity() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}

	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}

	// Our own clients pin the certificate itself and ignore its names and dates. Other programs
	// check the name that they connect to.
	names, addresses := []string{"promptmill", "localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host)
	}

	for _, a := range MachineAddresses() {
		addresses = append(addresses, a.AsSlice())
	}

	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "promptmill"},
		DNSNames:     names,
		IPAddresses:  addresses,
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 4.1.2.5: no end
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}

	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}

	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}

	var secret [32]byte
	rand.Read(secret[:]) // never fails (crypto/rand, Go 1.24)
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	out = append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyBytes})...)

	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PROMPTMILL SECRET", Bytes: secret[:]})...), nil
}

func readIdentity(path string) (*Identity, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the bus's certificate: %w", err)
	}

	id := &Identity{}
	if id.Certificate, err = tls.X509KeyPair(data, data); err != nil {
		return nil, exit.WithHint(fmt.Errorf("read the bus's certificate %s: %w", path, err),
			"delete it: a new one is made, and old join strings end")
	}

	sum := sha256.Sum256(id.Certificate.Certificate[0])
	id.id = hex.EncodeToString(sum[:8])

	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "PROMPTMILL SECRET" && copy(id.secret[:], block.Bytes) == len(id.secret) {
			return id, nil
		}
	}

	return nil, exit.WithHint(fmt.Errorf("read the bus's certificate %s: there is no secret in it", path),
		"delete it: a new one is made, and old join strings end")
}

// WriteCertificate writes the certificate without its key into the state folder, for other programs
// that check it, and returns the path of the file.
func (id *Identity) WriteCertificate(state string) (string, error) {
	path := filepath.Join(state, "certificate.pem")
	return path, os.WriteFile(path, id.certificatePEM(), 0o644)
}

// Join returns the join string of a role for a bus at some addresses.
func (id *Identity) Join(role proto.Role, addresses []string) proto.Join {
	j := proto.Join{Addresses: addresses, Role: role, Fingerprint: sha256.Sum256(id.Certificate.Certificate[0])}
	sum := sha256.Sum256(append(id.secret[:], role...))
	copy(j.Token[:], sum[:])
	return j
}
