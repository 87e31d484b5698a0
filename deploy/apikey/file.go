package apikey

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/promptmill/promptmill/deploy/recordfile"
)

// FileName is the usual name of the file, in the state folder.
const FileName = "api-keys.json"

var (
	// ErrUnknown is returned for a key that the file does not have.
	ErrUnknown = errors.New("there is no such key")
	// ErrContent is returned for a file that has other content than this package writes.
	ErrContent = errors.New("it is not what promptmill key create writes")
	// ErrName is returned for a name that another key has, or that cannot be a name.
	ErrName = errors.New("the name cannot be used")
)

// The versions of the format of files. A program that reads the first one alone would let a key change what it may
// only see, and so refuses the second one.
const (
	firstVersion    = 1
	readOnlyVersion = 2 // a key has Rights.ReadOnly
)

// format is the format of the file.
var format = recordfile.Format{
	Subject:    "the API keys",
	Version:    readOnlyVersion,
	ErrContent: ErrContent,
}

// content is the content of a file.
type content struct {
	// Version is the lowest version that has all of the content. 0 means 1.
	Version int `json:"version"`
	// Keys are the keys, the oldest first.
	Keys []Key `json:"keys"`
}

// File is a file of keys. Several goroutines and processes may use it at once.
type File struct {
	path string

	// mu guards the fields below.
	mu   sync.Mutex
	look recordfile.Look
	// keys are the keys of the file, with hashes that are decoded.
	keys []decodedKey
	// required reports that a secret is wanted although there may be no key.
	required bool
}

// decodedKey is a key with the bytes of its hash.
type decodedKey struct {
	Key

	hash [sha256.Size]byte
}

// Open returns the file at a path. The file need not be there: it is made with the first key.
func Open(path string) *File { return &File{path: path} }

// Path returns the path of the file.
func (f *File) Path() string { return f.path }

// Keys returns the keys, oldest first. The error is for people: it names the file.
func (f *File) Keys() ([]Key, error) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if err := f.refresh(); err != nil {
		return nil, err
	}

	keys := make([]Key, 0, len(f.keys))
	for _, k := range f.keys {
		keys = append(keys, k.Key)
	}

	return keys, nil
}

// Require has Authenticate refuse all secrets while there is no key.
func (f *File) Require() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.required = true
}

// Required reports whether a secret is wanted. It is false while the file was never there, see
// [File.Require]. The error is that of a file that cannot be read.
func (f *File) Required() (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.refresh()
	return f.required || err != nil, err
}

// Authenticate returns the key with a secret, and whether there is one. The zero Key is returned for
// any secret while none is wanted, see [File.Required]. The time that it takes does not depend on the
// secret's likeness to those of the keys, nor on which of the keys it is. An error means that the
// file cannot be read: nothing is known of any key then.
func (f *File) Authenticate(secret string) (Key, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if err := f.refresh(); err != nil {
		return Key{}, false, err
	}

	if !f.required {
		return Key{}, true, nil
	}

	// The hash of a guess is no step towards the hash of a key, so even a comparison that stops at the
	// first difference would give away nothing of use. This one does not stop.
	sum, found := sha256.Sum256([]byte(secret)), -1
	for i := range f.keys {
		equal := subtle.ConstantTimeCompare(sum[:], f.keys[i].hash[:])
		found = subtle.ConstantTimeSelect(equal, i, found)
	}

	if found < 0 {
		return Key{}, false, nil
	}

	return f.keys[found].Key, true, nil
}

// Find returns the key with an id, and whether there is one. The error is that of a file that cannot be read.
func (f *File) Find(id string) (Key, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if err := f.refresh(); err != nil {
		return Key{}, false, err
	}

	i := slices.IndexFunc(f.keys, func(k decodedKey) bool { return k.ID == id })
	if i < 0 {
		return Key{}, false, nil
	}

	return f.keys[i].Key, true, nil
}

// Create makes a key and returns its secret, which is kept nowhere. The name may be empty; another
// key must not have it.
func (f *File) Create(name string, rights Rights) (secret string, key Key, err error) {
	if err := checkName(name); err != nil {
		return "", Key{}, err
	}

	secret, key = generate()
	key.Name, key.Rights = name, rights

	err = f.change(func(keys []Key) ([]Key, error) {
		if i := slices.IndexFunc(keys, func(k Key) bool { return name != "" && k.Name == name }); i >= 0 {
			return nil, fmt.Errorf("%w: %s has the name %q already", ErrName, keys[i].ID, name)
		}
		return append(keys, key), nil
	})
	if err != nil {
		return "", Key{}, err
	}

	return secret, key, nil
}

// Revoke removes the key with an id, or else a name. It returns [ErrUnknown] if there is none.
func (f *File) Revoke(idOrName string) (revoked Key, err error) {
	err = f.change(func(keys []Key) ([]Key, error) {
		i := slices.IndexFunc(keys, func(k Key) bool { return k.ID == idOrName })
		if i < 0 {
			i = slices.IndexFunc(keys, func(k Key) bool { return idOrName != "" && k.Name == idOrName })
		}
		if i < 0 {
			return nil, ErrUnknown
		}

		revoked = keys[i]

		return slices.Delete(keys, i, i+1), nil
	})

	return revoked, err
}

// checkName refuses names that a table cannot show or that look like ids.
func checkName(name string) error {
	switch {
	case len(name) > 64:
		return fmt.Errorf("%w: it is longer than 64 bytes", ErrName)
	case strings.HasPrefix(name, idPrefix):
		return fmt.Errorf("%w: it begins with %s, as the ids of keys do", ErrName, idPrefix)
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }):
		return fmt.Errorf("%w: it has characters that cannot be printed", ErrName)
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("%w: it begins or ends with a space", ErrName)
	}

	return nil
}

// change replaces the keys of the file.
func (f *File) change(edit func([]Key) ([]Key, error)) error {
	var old []Key
	parseOld := func(data []byte) (err error) {
		old, err = parse(data)
		return err
	}

	return format.Change(f.path, parseOld, func() (any, error) {
		keys, err := edit(old)
		return content{versionOf(keys), append([]Key{}, keys...)}, err
	})
}

// versionOf returns the lowest version of the format that has some keys.
func versionOf(keys []Key) int {
	if slices.ContainsFunc(keys, func(k Key) bool { return k.ReadOnly }) {
		return readOnlyVersion
	}
	return firstVersion
}

// refresh reads the file if it has changed. The caller holds mu.
func (f *File) refresh() error {
	var keys []Key
	changed, err := format.Refresh(f.path, &f.look, func(data []byte) (err error) {
		keys, err = parse(data)
		return err
	})
	if !changed {
		return err
	}

	f.keys = nil
	if err != nil || !f.look.Exists() {
		return err
	}

	f.keys = make([]decodedKey, len(keys))
	for i, k := range keys {
		f.keys[i].Key = k
		hex.Decode(f.keys[i].hash[:], []byte(k.Hash)) // parse has checked it
	}

	f.required = true

	return nil
}

// parse parses the content of a file.
func parse(data []byte) ([]Key, error) {
	var c content
	if err := format.Decode(data, &c); err != nil {
		return nil, err
	}
	if c.Keys == nil {
		return nil, ErrContent
	}

	ids := map[string]bool{}
	for i, k := range c.Keys {
		hash, err := hex.DecodeString(k.Hash)
		switch {
		case k.ID == "" || ids[k.ID]:
			return nil, fmt.Errorf("%w: key %d has no id of its own", ErrContent, i+1)
		case err != nil || len(hash) != sha256.Size:
			return nil, fmt.Errorf("%w: the hash of %q is no SHA-256", ErrContent, k.ID)
		}
		ids[k.ID] = true
	}

	return c.Keys, nil
}
