package apikey

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file has a version. One without it is of version 1, and one of a later version is refused as such.
func TestVersion(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), FileName)
	if _, _, err := Open(path).Create("a", Rights{}); err != nil {
		t.Fatal(err)
	}

	data, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(data), `"version": 1`) {
		t.Errorf("%s, %v", data, err)
	}

	for version, good := range map[string]bool{`"version": 1,`: true, "": true, `"version": 3,`: false} {
		text := strings.Replace(string(data), `"version": 1,`, version, 1)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}

		keys, err := Open(path).Keys()
		if good != (err == nil && len(keys) == 1) || !good && (!errors.Is(err, ErrContent) ||
			!strings.Contains(err.Error(), "a later promptmill (version 3, this one reads 2)")) {
			t.Errorf("%s: %v, %v", version, keys, err)
		}
	}
}

// A program that knows no keys which change nothing refuses a file with one: it would let the key change all.
func TestVersionOfReadOnlyKeys(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), FileName)
	_, key, err := Open(path).Create("a", Rights{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}

	if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data), `"version": 2`) {
		t.Errorf("%s, %v", data, err)
	}
	if found, ok, err := Open(path).Find(key.ID); err != nil || !ok || !found.ReadOnly {
		t.Errorf("%+v, %t, %v", found, ok, err)
	}

	if _, err := Open(path).Revoke(key.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(path).Create("b", Rights{}); err != nil {
		t.Fatal(err)
	}

	if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data), `"version": 1`) {
		t.Errorf("without such a key: %s, %v", data, err)
	}
	if found, ok, err := Open(path).Find(key.ID); err != nil || ok {
		t.Errorf("a revoked key: %+v, %t, %v", found, ok, err)
	}
}
