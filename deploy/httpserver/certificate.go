package httpserver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/files"
)

// Certificate is a certificate in files. It is read again when they change: programs such as certbot
// renew them every two months.
type Certificate struct {
	certFile, keyFile string
	log               zerolog.Logger

	// mu guards the fields below.
	mu    sync.Mutex
	pair  *tls.Certificate
	files [2]os.FileInfo // as they were read last
	fault string         // why files that have changed cannot be used; it is logged once
}

// LoadCertificate reads a certificate and its key. The error names the file that cannot be used.
func LoadCertificate(certFile, keyFile string, log zerolog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log}
	files, err := c.statFiles()
	if err != nil {
		return nil, err
	}

	if c.pair, err = c.readPair(); err != nil {
		return nil, err
	}
	c.files = files

	return c, nil
}

// GetCertificate is for [tls.Config]. Files that cannot be used, for example while only one of them is
// the new one, leave the old certificate in place.
func (c *Certificate) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()

	found, err := c.statFiles()
	if err == nil && files.IsUnchanged(found[0], c.files[0]) && files.IsUnchanged(found[1], c.files[1]) {
		return c.pair, nil
	}

	var pair *tls.Certificate
	if err == nil {
		c.files = found
		pair, err = c.readPair()
	}

	switch {
	case err == nil:
		c.pair, c.fault = pair, ""
		c.log.Info().Str("file", c.certFile).Msg("a changed certificate is in use")
	case err.Error() != c.fault:
		c.fault = err.Error()
		c.log.Warn().Err(err).Msg("failed to read a changed certificate; the old one stays in use")
	}

	return c.pair, nil
}

// statFiles looks at the files.
func (c *Certificate) statFiles() (files [2]os.FileInfo, err error) {
	for i, path := range []string{c.certFile, c.keyFile} {
		if files[i], err = os.Stat(path); err != nil {
			return files, describeFileError(path, err)
		}
	}
	return files, nil
}

// readPair reads the files.
func (c *Certificate) readPair() (*tls.Certificate, error) {
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return nil, describeFileError(c.certFile, err)
	}

	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return nil, describeFileError(c.keyFile, err)
	}

	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, describePairError(c.certFile, c.keyFile, string(cert), string(key), err)
	}

	return &pair, nil
}

// describePairError says what is wrong with a certificate and its key.
func describePairError(certFile, keyFile, cert, key string, err error) error {
	switch {
	case !strings.Contains(cert, "-----BEGIN CERTIFICATE-----"):
		return fmt.Errorf("%s has no certificate in PEM form", certFile)
	case !strings.Contains(key, "PRIVATE KEY-----"):
		return fmt.Errorf("%s has no private key in PEM form", keyFile)
	case strings.Contains(key, "ENCRYPTED"):
		return fmt.Errorf("the private key in %s has a passphrase", keyFile)
	case strings.Contains(err.Error(), "does not match"):
		return fmt.Errorf("the private key in %s is not that of the certificate in %s", keyFile, certFile)
	}

	return fmt.Errorf("the certificate in %s or the private key in %s is damaged", certFile, keyFile)
}

// describeFileError returns the error of a file in the words of the system.
func describeFileError(path string, err error) error {
	if fault, ok := errors.AsType[*os.PathError](err); ok {
		err = fault.Err
	}
	return fmt.Errorf("read %s: %w", path, err)
}
