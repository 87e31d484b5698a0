package apikey

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

func openFile(t *testing.T) *File {
	t.Helper()
	return Open(filepath.Join(t.TempDir(), FileName))
}

func create(t *testing.T, f *File, name string, ownOnly bool) (string, Key) {
	t.Helper()
	secret, key, err := f.Create(name, Rights{OwnOnly: ownOnly})
	if err != nil {
		t.Fatal(err)
	}
	return secret, key
}

// The secret has the documented shape, the file has no secret, and only its owner reads it.
func TestCreate(t *testing.T) {
	t.Parallel()

	f := openFile(t)
	secret, key := create(t, f, "alice", true)
	if !regexp.MustCompile(`^pm-[A-Za-z0-9_-]{43}$`).MatchString(secret) {
		t.Errorf("secret %q", secret)
	}
	if !regexp.MustCompile(`^key_[a-z2-7]{12}$`).MatchString(key.ID) || key.Name != "alice" || !key.OwnOnly {
		t.Errorf("key %+v", key)
	}

	data, err := os.ReadFile(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), secret[3:]) {
		t.Errorf("the file has the secret:\n%s", data)
	}

	info, err := os.Stat(f.Path())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("permissions %v, %v", info.Mode(), err)
	}

	keys, err := Open(f.Path()).Keys()
	if err != nil || len(keys) != 1 || keys[0] != key {
		t.Errorf("keys %+v, %v; want %+v", keys, err, key)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()

	f := openFile(t)
	create(t, f, "", false)
	create(t, f, "", false)
	create(t, f, "the night job", false)
	for _, name := range []string{
		"the night job", "key_abc", " a", "a ", "a\nb", "\x1b[31m", "\xff", strings.Repeat("x", 65),
	} {
		if _, _, err := f.Create(name, Rights{}); !errors.Is(err, ErrName) {
			t.Errorf("a key with the name %q: %v", name, err)
		}
	}

	if keys, err := f.Keys(); err != nil || len(keys) != 3 {
		t.Errorf("%d keys, %v; want 3", len(keys), err)
	}
}

// A file without keys accepts everything until it has one. From then on, only keys count, whatever
// becomes of the file.
func TestAuthenticate(t *testing.T) {
	t.Parallel()

	f := openFile(t)
	check := func(secret string, want Key, known bool) {
		t.Helper()
		key, ok, err := f.Authenticate(secret)
		if err != nil || ok != known || key != want {
			t.Errorf("%.8s: key %+v, %t, %v; want %+v, %t", secret, key, ok, err, want, known)
		}
	}

	check("anything", Key{}, true)
	check("", Key{}, true)

	other := Open(f.Path()) // as another process
	firstSecret, first := create(t, other, "first", false)
	secondSecret, second := create(t, other, "second", true)
	check(firstSecret, first, true)
	check(secondSecret, second, true)
	check("", Key{}, false)
	check(firstSecret+"x", Key{}, false)
	check(first.ID, Key{}, false)
	check(first.Hash, Key{}, false)

	if _, err := other.Revoke("first"); err != nil {
		t.Fatal(err)
	}
	check(firstSecret, Key{}, false)
	check(secondSecret, second, true)

	if _, err := other.Revoke(second.ID); err != nil {
		t.Fatal(err)
	}
	check(secondSecret, Key{}, false)

	if err := os.Remove(f.Path()); err != nil {
		t.Fatal(err)
	}
	check("anything", Key{}, false)

	required := openFile(t)
	required.Require()
	if _, ok, err := required.Authenticate(""); ok || err != nil {
		t.Errorf("without keys, where one is required: %t, %v", ok, err)
	}
}

func TestRevokeUnknown(t *testing.T) {
	t.Parallel()

	f := openFile(t)
	create(t, f, "", false)
	for _, name := range []string{"", "key_nosuch", "nosuch"} {
		if _, err := f.Revoke(name); !errors.Is(err, ErrUnknown) {
			t.Errorf("revoking %q: %v", name, err)
		}
	}
	if keys, err := f.Keys(); err != nil || len(keys) != 1 {
		t.Errorf("%d keys, %v; want 1", len(keys), err)
	}
}

// A broken file accepts no secret, and no change replaces it.
func TestBrokenFile(t *testing.T) {
	t.Parallel()

	good := `{"keys":[{"id":"key_a","sha256":"` + strings.Repeat("0a", 32) + `","created_at":"2026-01-01T00:00:00Z"}]}`
	for name, text := range map[string]string{
		"empty":             "",
		"no JSON":           "keys: []",
		"another object":    "{}",
		"null":              "null",
		"cut":               good[:len(good)-2],
		"more":              good + "{}",
		"an unknown member": strings.Replace(good, "{", `{"version":3,`, 1),
		"no id":             strings.Replace(good, "key_a", "", 1),
		"no hash":           strings.Replace(good, "0a", "xx", 1),
		"a short hash":      strings.Replace(good, "0a0a", "0a", 1),
		"one id twice":      strings.Replace(good, `{"keys":[`, good[:len(good)-2]+",", 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := openFile(t)
			secret, _ := create(t, f, "", false)
			if err := os.WriteFile(f.Path(), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}

			want := "the API keys in " + f.Path() + " cannot be used: "
			if _, ok, err := f.Authenticate(secret); ok || err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("the file %q accepts a secret: %t, %v", text, ok, err)
			}
			if required, err := Open(f.Path()).Required(); !required || err == nil {
				t.Errorf("the file %q requires a key: %t, %v", text, required, err)
			}
			if _, _, err := f.Create("", Rights{}); err == nil {
				t.Error("a key was made in it")
			}
			if now, err := os.ReadFile(f.Path()); err != nil || string(now) != text {
				t.Errorf("the file is now %q, %v", now, err)
			}

			// The repaired file works at once.
			if err := os.WriteFile(f.Path(), []byte(good), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, ok, err := f.Authenticate(secret); ok || err != nil {
				t.Errorf("after the repair: %t, %v", ok, err)
			}
		})
	}
}

func TestFolderMissing(t *testing.T) {
	t.Parallel()

	f := Open(filepath.Join(t.TempDir(), "nosuch", FileName))
	_, _, err := f.Create("", Rights{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "write the API keys in "+f.Path()+": ") {
		t.Errorf("error %v", err)
	}
}

// Processes that change the file at once lose nothing, and a reader sees a whole file at each moment.
func TestConcurrentChanges(t *testing.T) {
	t.Parallel()

	f := openFile(t)
	secret, _ := create(t, f, "reader", false)

	const creators, each = 8, 10
	done := make(chan struct{})
	var reading, creating sync.WaitGroup
	reading.Go(func() {
		for {
			if _, ok, err := f.Authenticate(secret); !ok || err != nil {
				t.Errorf("the reader's key: %t, %v", ok, err)
				return
			}
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})

	for range creators {
		creating.Go(func() {
			own := Open(f.Path())
			for range each {
				_, key, err := own.Create("", Rights{})
				if err != nil {
					t.Error(err)
					return
				}
				if _, kept, err := own.Create("", Rights{}); err != nil {
					t.Error(err)
				} else if _, err := own.Revoke(kept.ID); err != nil {
					t.Errorf("revoke %s, made after %s: %v", kept.ID, key.ID, err)
				}
			}
		})
	}

	creating.Wait()
	close(done)
	reading.Wait()

	if keys, err := f.Keys(); err != nil || len(keys) != creators*each+1 {
		t.Errorf("%d keys, %v; want %d", len(keys), err, creators*each+1)
	}
	if left, _ := filepath.Glob(f.Path() + "*"); len(left) != 1 {
		t.Errorf("files %q are left", left)
	}
}

// Each accepted file has keys with ids and hashes.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"keys":[{"id":"key_a","sha256":"` + strings.Repeat("0a", 32) + `","created_at":"2026-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"keys":[]}`))
	f.Add([]byte(`{"keys":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parse(data)
		if err != nil {
			return
		}
		for _, k := range keys {
			if k.ID == "" || len(k.Hash) != 64 {
				t.Errorf("%q has the key %+v", data, k)
			}
		}
	})
}
