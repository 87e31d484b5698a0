package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/deploy/apikey"
	"github.com/promptmill/promptmill/deploy/exit"
)

func TestUsageOfKeys(t *testing.T) {
	t.Parallel()

	keys := map[string]string{"keys.json": `{"keys":[{"id":"key_aaaaaaaaaaaa","name":"alice","sha256":` +
		`"0000000000000000000000000000000000000000000000000000000000000000","created_at":"2026-11-29T00:00:00Z"}]}`}
	broken := map[string]string{"keys.json": "keys:\n"}

	testUsages(t, []usage{
		{
			args: "key lst",
			err:  `unknown command "lst"`,
			hint: "did you mean promptmill key list? promptmill key --help lists all commands",
			code: 2,
		},
		{
			args: "key --name alice",
			err:  "unknown flag --name",
			hint: "promptmill worker and key create have it; promptmill key --help lists all commands",
			code: 2,
		},
		{
			args: "key create alice",
			err:  "unexpected argument alice",
			hint: "usage: promptmill key create [FLAGS]",
			code: 2,
		},
		{
			args: "key create --name=",
			err:  "--name: the name is empty",
			hint: "give a name, or leave out --name",
			code: 2,
		},
		{
			args: "key create --own-only --read-only",
			err:  "--own-only and --read-only make a key that sees nothing: it sees only what it makes, and makes nothing",
			hint: "leave out one of them",
			code: 2,
		},
		{
			args: "key create --name key_mine",
			err:  "--name key_mine: the name cannot be used: it begins with key_, as the ids of keys do",
			hint: "choose another name",
			code: 2,
		},
		{
			args:  "key create --api-key-file keys.json --name alice",
			files: keys,
			err:   `--name alice: the name cannot be used: key_aaaaaaaaaaaa has the name "alice" already`,
			hint:  "choose another name",
			code:  2,
		},
		{
			args:  "key create --api-key-file keys.json",
			files: broken,
			err:   "the API keys in DIR/keys.json cannot be used: it is not what promptmill key create writes",
			hint:  "repair the file, or move it away and make new keys",
			code:  1,
		},
		{
			args: "key create --api-key-file nosuch/keys.json",
			err:  "write the API keys in DIR/nosuch/keys.json: no such file or directory",
			hint: "name another file with --api-key-file",
			code: 1,
		},
		{
			args: "key create --api-key-file .",
			err:  "write the API keys in DIR: it is not a regular file: DIR is a folder",
			hint: "name another file with --api-key-file",
			code: 1,
		},
		{
			args: "key revoke",
			err:  "want the id or the name of one key",
			hint: "promptmill key list shows the keys",
			code: 2,
		},
		{
			args: "key revoke alice",
			err:  "there is no key alice: DIR/state/api-keys.json has none",
			hint: "promptmill key create makes one",
			code: 2,
		},
		{
			args: "key revoke alice --state here",
			err:  "there is no key alice: DIR/here/api-keys.json has none",
			hint: "promptmill key create --state here makes one",
			code: 2,
		},
		{
			args:  "key revoke alicf --api-key-file keys.json",
			files: keys,
			err:   "there is no key alicf in DIR/keys.json",
			hint:  "did you mean alice? promptmill key list --api-key-file keys.json shows the keys",
			code:  2,
		},
		{
			args:  "key list --api-key-file keys.json",
			files: broken,
			err:   "the API keys in DIR/keys.json cannot be used: it is not what promptmill key create writes",
			hint:  "repair the file, or move it away and make new keys",
			code:  1,
		},
		{
			args: "key list --api-key-file .",
			err:  "read the API keys in DIR: is a directory",
			hint: "name another file with --api-key-file",
			code: 1,
		},
	})
}

// What serve and run refuse of their flags for the batch API changes nothing.
func TestUsageOfAPI(t *testing.T) {
	t.Parallel()

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { taken.Close() })

	dir := t.TempDir()
	cert, key := writeCertificate(t, dir, "one")
	_, otherKey := writeCertificate(t, dir, "two")
	broken := map[string]string{"keys.json": "keys:\n"}
	none := map[string]string{"keys.json": `{"keys":[]}`}
	inputs := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n"}

	testUsages(t, []usage{
		{
			args: "serve --api head",
			err:  "--api head: it has no port",
			hint: "for example --api 8080 or --api 0.0.0.0:8080",
			code: 2,
		},
		{
			args: "serve --api=",
			err:  "--api: it has no port",
			hint: "for example --api 8080 or --api 0.0.0.0:8080",
			code: 2,
		},
		{
			args: "serve --api http://127.0.0.1:8080",
			err:  "--api http://127.0.0.1:8080: leave out http://",
			hint: "for example --api 8080 or --api 0.0.0.0:8080",
			code: 2,
		},
		{
			args: "serve --api ::1:8080",
			err:  "--api ::1:8080: an IPv6 address is written in brackets, as in [::]:8080",
			hint: "for example --api 8080 or --api 0.0.0.0:8080",
			code: 2,
		},
		{
			args: "serve --api 99999",
			err:  `--api 99999: port "99999" is not a number from 0 to 65535`,
			hint: "for example --api 8080 or --api 0.0.0.0:8080",
			code: 2,
		},
		{
			args: "serve --page http://127.0.0.1:8080",
			err:  "--page http://127.0.0.1:8080: leave out http://",
			hint: "for example --page 8080 or --page 0.0.0.0:8080",
			code: 2,
		},
		{
			args: "serve --page=",
			err:  "--page: it has no port",
			hint: "for example --page 8080 or --page 0.0.0.0:8080",
			code: 2,
		},
		{
			args: "serve --api 8080 --page 127.0.0.1:8080",
			err:  "--page 127.0.0.1:8080: the batch API has this address",
			hint: "give --page another port",
			code: 2,
		},
		{
			args: "serve --page 0.0.0.0:0",
			err:  "--page 0.0.0.0:0: other machines can connect there, and there is no API key in DIR/state/api-keys.json",
			hint: "make one: promptmill key create",
			code: 2,
		},
		{
			args: "run in.jsonl --sim --page 0.0.0.0:0",
			err:  "--page 0.0.0.0:0: other machines can connect there, and there is no API key in DIR/state/api-keys.json",
			hint: "make one: promptmill key create",
			code: 2,
		},
		{
			args: "serve --api 0.0.0.0:0",
			err:  "--api 0.0.0.0:0: other machines can connect there, and there is no API key in DIR/state/api-keys.json",
			hint: "make one: promptmill key create",
			code: 2,
		},
		{
			args: "serve --api 0.0.0.0:0 --state here",
			err:  "--api 0.0.0.0:0: other machines can connect there, and there is no API key in DIR/here/api-keys.json",
			hint: "make one: promptmill key create --state here",
			code: 2,
		},
		{
			args:  "serve --api 0.0.0.0:0 --api-key-file keys.json",
			files: none,
			err:   "--api 0.0.0.0:0: other machines can connect there, and there is no API key in DIR/keys.json",
			hint:  "make one: promptmill key create --api-key-file keys.json",
			code:  2,
		},
		{
			args: "serve --api 0 --api-key-file nosuch.json",
			err:  "--api-key-file nosuch.json: there is no API key in it",
			hint: "make one: promptmill key create --api-key-file nosuch.json",
			code: 2,
		},
		{
			args: "serve --api 0",
			env:  []string{"PROMPTMILL_API_KEY_FILE=nosuch.json"},
			err:  "--api-key-file nosuch.json: there is no API key in it",
			hint: "make one: promptmill key create",
			code: 2,
		},
		{
			args:  "serve --api 0 --state .",
			files: map[string]string{"api-keys.json": `{"keys":[]}`},
			err: "there is no API key left in DIR/api-keys.json, and without one the batch API would accept all " +
				"requests",
			hint: "make one: promptmill key create --state .",
			code: 2,
		},
		{
			args:  "serve --api 0 --api-key-file keys.json",
			files: broken,
			err:   "the API keys in DIR/keys.json cannot be used: it is not what promptmill key create writes",
			hint:  "repair the file, or move it away and make new keys",
			code:  2,
		},
		{
			args: "serve --api 127.0.0.1:0 --api-tls --api-cert x.pem",
			err:  "--api-tls makes a certificate, and --api-cert names another one",
			hint: "leave out one of them",
			code: 2,
		},
		{
			args:  "run in.jsonl --api=",
			files: inputs,
			err:   "--api: it has no port",
			hint:  "for example --api 8080 or --api 0.0.0.0:8080",
			code:  2,
		},
		{
			args:  "run in.jsonl --api head",
			files: inputs,
			err:   "--api head: it has no port",
			hint:  "for example --api 8080 or --api 0.0.0.0:8080",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim --api 0.0.0.0:0",
			files: inputs,
			err:   "--api 0.0.0.0:0: other machines can connect there, and there is no API key in DIR/state/api-keys.json",
			hint:  "make one: promptmill key create",
			code:  2,
		},
		{
			env:   []string{"PROMPTMILL_API="},
			args:  "run in.jsonl --sim --api-log -",
			files: inputs,
			err:   "--api-log needs --api or --page",
			hint:  "give --api too, or leave out --api-log",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim --api-log -",
			files: inputs,
			err:   "--api-log needs --api or --page",
			hint:  "give --api too, or leave out --api-log",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim --api 198.51.100.1:8080 --api-key-file " + keyFile(t, t.TempDir()),
			files: inputs,
			err:   "--api 198.51.100.1:8080: this machine has no address 198.51.100.1",
			hint:  "0.0.0.0 is all IPv4 addresses of this machine",
			code:  2,
		},
		{
			args: "serve --api-tls",
			err:  "--api-tls needs --api or --page",
			hint: "give --api too, or leave out --api-tls",
			code: 2,
		},
		{
			args: "serve --api-log -",
			err:  "--api-log needs --api or --page",
			hint: "give --api too, or leave out --api-log",
			code: 2,
		},
		{
			args: "serve --api-key-file keys.json",
			err:  "--api-key-file needs --api or --page",
			hint: "give --api too, or leave out --api-key-file",
			code: 2,
		},
		{
			args: "serve --api 0 --api-cert-key key.pem",
			err:  "--api-cert-key needs --api-cert",
			hint: "give --api-cert too, or leave out --api-cert-key",
			code: 2,
		},
		{
			args: "serve --api 0 --api-cert nosuch.pem",
			err:  "--api-cert nosuch.pem: read nosuch.pem: no such file or directory",
			hint: "give the certificate and its key as PEM files with --api-cert and --api-cert-key",
			code: 2,
		},
		{
			args:  "serve --api 0 --api-cert keys.json",
			files: none,
			err:   "--api-cert keys.json: keys.json has no certificate in PEM form",
			hint:  "give the certificate and its key as PEM files with --api-cert and --api-cert-key",
			code:  2,
		},
		{
			args: "serve --api 0 --api-cert " + cert,
			err:  "--api-cert " + cert + ": " + cert + " has no private key in PEM form",
			hint: "give the certificate and its key as PEM files with --api-cert and --api-cert-key",
			code: 2,
		},
		{
			args: "serve --api 0 --api-cert " + cert + " --api-cert-key " + otherKey,
			err: "--api-cert " + cert + ": the private key in " + otherKey + " is not that of the certificate in " +
				cert,
			hint: "give the certificate and its key as PEM files with --api-cert and --api-cert-key",
			code: 2,
		},
		{
			args: "serve --api 198.51.100.1:8080 --api-key-file " + keyFile(t, dir),
			err:  "--api 198.51.100.1:8080: this machine has no address 198.51.100.1",
			hint: "0.0.0.0 is all IPv4 addresses of this machine",
			code: 2,
		},
		{
			args: "serve --api 0 --api-cert " + cert + " --api-cert-key " + key + " --api-log nosuch/log",
			err:  "--api-log nosuch/log: the file cannot be written: no such file or directory",
			hint: "name another file with --api-log, or - for standard output",
			code: 2,
		},
	})

	c := newCommand(t)
	must(t, os.MkdirAll(c.state, 0o700))
	before := c.left()
	said, code := c.run("serve", "--api", taken.Addr().String(), "--api-tls")
	if code != exit.CodeUsage ||
		!strings.Contains(said, "error: cannot listen at "+taken.Addr().String()+": another process has this port already\n") ||
		!strings.Contains(said, "hint: choose another port with --api [HOST:]PORT, for example 127.0.0.1:") {
		t.Errorf("a port that is taken: exit code %d:\n%s", code, said)
	}
	if diff := cmp.Diff(before, c.left()); diff != "" {
		t.Errorf("the refusal changes the folder (-before +after):\n%s", diff)
	}
}

// keyFile writes a file with a key and returns its path.
func keyFile(t *testing.T, dir string) string {
	t.Helper()

	path := filepath.Join(dir, "keys.json")
	_, _, err := apikey.Open(path).Create("", apikey.Rights{})
	must(t, err)

	return path
}

// writeCertificate writes a certificate for this machine and its key, and returns their paths.
func writeCertificate(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()

	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)

	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	data, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(t, err)
	keyData, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)

	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: data}), 0o600))
	must(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyData}), 0o600))

	return cert, key
}
