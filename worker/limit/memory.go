package limit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Memory is a small file that keeps how many requests at once model servers were found to
// take, as a place to begin at the next start. It is no more than that: what it says is
// neither a bound nor a reason to stop searching. Several processes may have one file; the
// last one to write it wins.
type Memory struct {
	path string
	mu   sync.Mutex
}

const (
	memoryMost  = 256                 // servers; those that were met longest ago go
	memoryAge   = 30 * 24 * time.Hour // of what is believed
	memoryBytes = 1 << 20             // of the file
)

// memories is the file.
type memories struct {
	Servers map[string]memoryOf `json:"servers"`
}

// memoryOf is what is kept of one server.
type memoryOf struct {
	AtOnce int       `json:"at_once"`
	Seen   time.Time `json:"seen"`
}

// NewMemory returns the memory that a file holds, or will hold.
func NewMemory(path string) *Memory { return &Memory{path: path} }

// MemoryKey names a server by all that makes it the same one: its URL, its kind, its models. It
// is a hash, since a URL may have a password.
func MemoryKey(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:12])
}

// Load is how many requests at once a server was found to take; 0 if that is unknown.
func (m *Memory) Load(key string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read().Servers[key].AtOnce
}

// Store notes how many requests at once a server takes.
func (m *Memory) Store(key string, n int) error {
	m.mu.Lock()
	defer m.mu.Unlock()

	all := m.read()
	all.Servers[key] = memoryOf{n, time.Now().UTC().Truncate(time.Second)}
	for len(all.Servers) > memoryMost {
		oldest := ""
		for key, kept := range all.Servers {
			if oldest == "" || kept.Seen.Before(all.Servers[oldest].Seen) {
				oldest = key
			}
		}

		delete(all.Servers, oldest)
	}

	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}

	if err := replaceFile(m.path, text); err != nil {
		return fmt.Errorf("keep the number of requests at once: %w", err)
	}

	return nil
}

// read reads what the file holds and what can be believed of it. A file that is damaged is as
// good as none.
func (m *Memory) read() memories {
	all := memories{}
	if f, err := os.Open(m.path); err == nil {
		if json.NewDecoder(io.LimitReader(f, memoryBytes)).Decode(&all) != nil {
			all = memories{}
		}
		f.Close()
	}

	now := time.Now()
	for key, kept := range all.Servers {
		if age := now.Sub(kept.Seen); kept.AtOnce < 1 || age < -memoryAge || age > memoryAge {
			delete(all.Servers, key)
		}
	}

	if all.Servers == nil {
		all.Servers = map[string]memoryOf{}
	}

	return all
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}

	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}

	_, err = f.Write(text)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}

	return err
}
