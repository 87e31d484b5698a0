package statedir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMakeClosesOnlyState(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		other string // other files there, besides our state
		want  bool
	}{
		{"our state", "", true},
		{"a file of another", "notes.txt", false},
		{"a folder of another", "photos", false},
		{"a name like ours", "serve.bak", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}

			for _, name := range []string{
				"identity.pem", "certificate.pem", "history.jsonl", "servers.json", "serve", "worker-a100",
				"submit-123", "big.results-0a1b2c3d", "outputs", "api-keys.json", "api-ca.pem", "page-secret",
				"webhook-secret", "join-strings.json", "join-seen.json", tt.other,
			} {
				if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
					t.Fatal(err)
				}
			}

			mine := filepath.Join(dir, "out-01234567")
			if err := Make(dir, mine); err != nil {
				t.Fatal(err)
			}

			for path, closed := range map[string]bool{dir: tt.want, mine: true} {
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}

				if got := info.Mode().Perm()&0o077 == 0; got != closed {
					t.Errorf("%s has mode %v, closed to others: %t", path, info.Mode().Perm(), closed)
				}
			}
		})
	}
}

func TestForOutput(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}

	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}

	if a, b := ForOutput("s", dir+"/real/out"), ForOutput("s", dir+"/link/out"); a != b {
		t.Errorf("one output has the folders %s and %s", a, b)
	}

	if a, b := ForOutput("s", dir+"/real/out"), ForOutput("s", dir+"/out"); a == b {
		t.Errorf("two outputs have the folder %s", a)
	}

	if name := filepath.Base(ForOutput("s", dir+"/"+strings.Repeat("é", 100))); name[:64] != strings.Repeat("é",
		32) || len(name) != 64+9 {
		t.Errorf("a long name became %s", name)
	}

	if name := filepath.Base(ForOutput("s", dir+"/n"+strings.Repeat("é", 100))); !strings.HasPrefix(name,
		"n"+strings.Repeat("é", 31)+"-") {
		t.Errorf("a long name was cut in a character: %q", name)
	}
}
