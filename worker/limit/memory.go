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

// Memory is a small file with the limits that were found for model servers, where the next
// search starts. It is no more than that: a limit from the file is neither a bound nor a reason
// to stop searching. Several processes may share a file; the last one to write it wins.
type Memory struct {
	path string
	mu   sync.Mutex // serializes access to the file
}

const (
	maxMemoryServers = 256                 // the servers that were seen longest ago are dropped
	maxMemoryAge     = 30 * 24 * time.Hour // older limits are not believed
	maxMemoryBytes   = 1 << 20             // of the file
)

// memoryFile is the content of the file.
type memoryFile struct {
	Servers map[string]memoryEntry `json:"servers"`
}

// memoryEntry is the limit of one server.
type memoryEntry struct {
	AtOnce int       `json:"at_once"`
	Seen   time.Time `json:"seen"`
}

// NewMemory returns the memory in a file, which need not exist.
func NewMemory(path string) *Memory { return &Memory{path: path} }

// MemoryKey returns the key of a server, from all that makes it the same one: its URL, its
// kind, its models. It is a hash, since a URL may have a password.
func MemoryKey(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:12])
}

// Load returns the limit that was found for a server; 0 if it is unknown.
func (m *Memory) Load(key string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.readFile().Servers[key].AtOnce
}

// Store saves the limit that was found for a server.
func (m *Memory) Store(key string, n int) error {
	m.mu.Lock()
	defer m.mu.Unlock()

	all := m.readFile()
	all.Servers[key] = memoryEntry{n, time.Now().UTC().Truncate(time.Second)}
	for len(all.Servers) > maxMemoryServers {
		oldest := ""
		for key, entry := range all.Servers {
			if oldest == "" || entry.Seen.Before(all.Servers[oldest].Seen) {
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
		return fmt.Errorf("store the limit of the model server: %w", err)
	}

	return nil
}

// readFile reads the file, without the limits that are not to be believed. A damaged file
// counts as none.
func (m *Memory) readFile() memoryFile {
	all := memoryFile{}
	if f, err := os.Open(m.path); err == nil {
		if json.NewDecoder(io.LimitReader(f, maxMemoryBytes)).Decode(&all) != nil {
			all = memoryFile{}
		}
		f.Close()
	}

	now := time.Now()
	for key, entry := range all.Servers {
		if age := now.Sub(entry.Seen); entry.AtOnce < 1 || age < -maxMemoryAge || age > maxMemoryAge {
			delete(all.Servers, key)
		}
	}

	if all.Servers == nil {
		all.Servers = map[string]memoryEntry{}
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
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}

	return err
}
