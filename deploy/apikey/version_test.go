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
	if _, _, err := Open(path).Create("a", false); err != nil {
		t.Fatal(err)
	}

	data, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(data), `"version": 1`) {
		t.Errorf("%s, %v", data, err)
	}

	for version, good := range map[string]bool{`"version": 1,`: true, "": true, `"version": 2,`: false} {
		text := strings.Replace(string(data), `"version": 1,`, version, 1)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}

		keys, err := Open(path).Keys()
		if good != (err == nil && len(keys) == 1) || !good && (!errors.Is(err, ErrContent) ||
			!strings.Contains(err.Error(), "a later promptmill (version 2, this one reads 1)")) {
			t.Errorf("%s: %v, %v", version, keys, err)
		}
	}
}
