package apikey

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"
)

// Key describes an API key.
type Key struct {
	// ID names the key in lists and logs. It is no secret.
	ID string `json:"id"`
	// Name is a name for people.
	Name string `json:"name,omitempty"`
	// Hash is the SHA-256 of the secret, in hexadecimal digits.
	Hash string `json:"sha256"`
	Rights
	CreatedAt time.Time `json:"created_at"`
}

// Rights limit what a key may do. The zero value: all.
type Rights struct {
	// OwnOnly reports that the key sees only the files, batches and runs that it made.
	OwnOnly bool `json:"own_only,omitempty"`
	// ReadOnly reports that the key changes nothing: it makes and deletes no files and batches, and does not pause,
	// resume, cancel or retry runs.
	ReadOnly bool `json:"read_only,omitempty"`
}

const (
	// secretPrefix begins each secret, so that people and scanners of source code recognise one.
	secretPrefix = "pm-"
	// secretBytes is the number of random bytes of a secret.
	secretBytes = 32
	// idPrefix begins each id.
	idPrefix = "key_"
)

// generate returns a new key and its secret: pm- and 43 characters of A-Z, a-z, 0-9, - and _.
func generate() (secret string, key Key) {
	random := make([]byte, secretBytes)
	rand.Read(random) // never fails (crypto/rand, Go 1.24)

	secret = secretPrefix + base64.RawURLEncoding.EncodeToString(random)

	return secret, Key{
		ID:        idPrefix + strings.ToLower(rand.Text()[:12]), // 60 bits
		Hash:      hashText(secret),
		CreatedAt: time.Now().UTC().Truncate(time.Second),
	}
}

// hashText returns the hash of a secret as the file has it. A plain SHA-256 is enough: functions that are
// slow on purpose, such as bcrypt, protect passwords that can be guessed, and nothing guesses 256
// random bits.
func hashText(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
