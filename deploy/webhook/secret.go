package webhook

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/statedir"
)

// secretPrefix begins a secret.
const secretPrefix = "whsec_"

// Bounds of a secret's length in bytes, of the specification of Standard Webhooks.
const (
	minSecret = 24
	maxSecret = 64
)

// Signer signs events with one or more secrets. A receiver accepts each of them.
type Signer struct{ keys []*standardwebhooks.Webhook }

// SecretFile is the file of the signing secret in a state folder.
func SecretFile(state string) string { return filepath.Join(state, "webhook-secret") }

// LoadOwnSecrets returns the secrets of a state folder, the first for new receivers. The first
// call makes one.
func LoadOwnSecrets(state string) ([]string, error) {
	path := SecretFile(state)
	secrets, err := LoadSecrets(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return secrets, err
	}

	if err := statedir.Make(state, state); err != nil {
		return nil, err
	}

	if err := makeSecret(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, exit.WithHint(fmt.Errorf("write the signing secret of webhooks: %w", err),
			"choose another place with --state DIR, or give the secret with --webhook-secret-file FILE")
	}

	return LoadSecrets(path)
}

// makeSecret writes a file with a new secret. It returns [fs.ErrExist] if another process was
// faster.
func makeSecret(path string) error {
	file, err := atomicfile.Create(path, 0o600)
	if err != nil {
		return err
	}

	file.CheckBeforeCommit(func() error {
		if files.Exists(path) {
			return fs.ErrExist
		}
		return nil
	})

	random := make([]byte, 32)
	rand.Read(random)
	_, err = fmt.Fprintln(file, secretPrefix+base64.StdEncoding.EncodeToString(random))

	return file.Commit(err)
}

// LoadSecrets reads a file of secrets, one a line. More than one is for the time in which
// receivers change from one to the other: events are signed with all.
func LoadSecrets(path string) (secrets []string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the signing secret of webhooks in %s: %w", path, files.WithoutPath(err))
	}

	for i, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}

		if err := checkSecret(line); err != nil {
			return nil, exit.Usage("promptmill webhooks secret prints a secret in that form",
				"%s: line %d: the signing secret of webhooks %w", path, i+1, err)
		}

		secrets = append(secrets, line)
	}

	if len(secrets) == 0 {
		return nil, exit.Usage("promptmill webhooks secret prints a secret in that form",
			"%s: it has no signing secret of webhooks", path)
	}

	return secrets, nil
}

// checkSecret returns an error that says what is wrong with a secret.
func checkSecret(secret string) error {
	encoded, ok := strings.CutPrefix(secret, secretPrefix)
	if !ok {
		return errors.New("must begin with " + secretPrefix)
	}

	key, err := base64.StdEncoding.DecodeString(encoded)
	switch {
	case err != nil:
		return errors.New("must be base64 after " + secretPrefix)
	case len(key) < minSecret || len(key) > maxSecret:
		return fmt.Errorf("has %d bytes, must have %d to %d", len(key), minSecret, maxSecret)
	}

	return nil
}

// NewSigner returns the signer with secrets that [LoadSecrets] has returned.
func NewSigner(secrets []string) (*Signer, error) {
	s := &Signer{}
	for _, secret := range secrets {
		key, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return nil, err
		}
		s.keys = append(s.keys, key)
	}

	return s, nil
}

// sign returns the headers of a message.
func (s *Signer) sign(id string, at time.Time, body []byte) (map[string]string, error) {
	var signatures []string
	for _, key := range s.keys {
		signature, err := key.Sign(id, at, body)
		if err != nil {
			return nil, err
		}
		signatures = append(signatures, signature)
	}

	return map[string]string{
		standardwebhooks.HeaderWebhookID:        id,
		standardwebhooks.HeaderWebhookTimestamp: strconv.FormatInt(at.Unix(), 10),
		standardwebhooks.HeaderWebhookSignature: strings.Join(signatures, " "),
	}, nil
}
