// Package apikey keeps the keys of the batch API: their hashes are in one file, and the keys are
// nowhere.
package apikey

import "time"

// Key describes an API key.
type Key struct {
	// ID names the key in lists and logs. It is no secret.
	ID string `json:"id"`
	// Name is a name for people.
	Name string `json:"name,omitempty"`
	// Hash is the SHA-256 of the secret, in hexadecimal digits.
	Hash string `json:"sha256"`
	// OwnOnly reports that the key sees only the files and batches that it made.
	OwnOnly   bool      `json:"own_only,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}
