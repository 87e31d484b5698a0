package secretfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/secretfile"
)

// write writes a file of a test and returns its path.
func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()

	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // the umask does not count
		t.Fatal(err)
	}

	return path
}

// A file is read again at each call: a new secret counts, and a file that was lost is an error.
func TestReadAgain(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "key")
	file := secretfile.New("--key-file", path)
	for _, want := range []string{"first", "second"} {
		write(t, path, "\ufeff "+want+"\r\n", 0o600)
		if got, err := file.Read(); err != nil || got != want {
			t.Errorf("read %q, %v, want %q", got, err, want)
		}
	}

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got, err := file.Read(); err == nil {
		t.Errorf("a file that is not there has %q", got)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	for name, tt := range map[string]struct{ path, err string }{
		"not there": {filepath.Join(dir, "nosuch"), "no such file or directory"},
		"a folder":  {dir, "is a directory"},
		"empty":     {write(t, filepath.Join(dir, "empty"), "\n \n", 0o600), "the file is empty"},
		"large": {write(t, filepath.Join(dir, "large"), strings.Repeat("x", secretfile.MaxBytes+1), 0o600),
			"the file is no secret: it has more than 64 KiB"},
		"UTF-16": {write(t, filepath.Join(dir, "wide"), "\xff\xfep\x00m\x00\r\x00\n\x00", 0o600),
			"the file is in UTF-16, as > of PowerShell writes it"},
		"mark alone":     {write(t, filepath.Join(dir, "mark"), "\ufeff\n", 0o600), "the file is empty"},
		"standard input": {"-", "the secret is read from a file, and standard input may be the input of the command"},
	} {
		_, err := secretfile.New("--key-file", tt.path).Read()
		if want := "--key-file " + tt.path + ": " + tt.err; err == nil || err.Error() != want {
			t.Errorf("%s: the error is %v, want %s", name, err, want)
		}

		if exit.Code(err) != exit.CodeUsage || exit.Hint(err) == "" {
			t.Errorf("%s: exit code %d, hint %q", name, exit.Code(err), exit.Hint(err))
		}
	}
}

// A pipe, such as <(pass show join) of a shell, is read once.
func TestPipe(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Skipf("needs a file system with pipes: %v", err)
	}

	written := make(chan error, 1)
	go func() { written <- os.WriteFile(path, []byte("secret\n"), 0) }()

	file := secretfile.New("--key-file", path)
	for range 2 {
		if got, err := file.Read(); err != nil || got != "secret" {
			t.Errorf("read %q, %v", got, err)
		}
	}

	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if text := file.Exposure(); text != "" {
		t.Errorf("a pipe is exposed: %s", text)
	}
}

func TestExposure(t *testing.T) { // not parallel: it sets a variable
	dir := t.TempDir()
	for mode, who := range map[os.FileMode]string{
		0o600: "",
		0o400: "",
		0o640: "the group of this file",
		0o644: "other users of this machine",
		0o604: "other users of this machine",
	} {
		path, want := write(t, filepath.Join(dir, "key"), "s", mode), ""
		if who != "" {
			want = who + " may read the secret; chmod 600 " + path + " ends that"
		}

		if got := secretfile.New("--key-file", path).Exposure(); got != want {
			t.Errorf("mode %o: %q, want %q", mode, got, want)
		}
	}

	path := write(t, filepath.Join(dir, "key"), "s", 0o644)
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if got := secretfile.New("--key-file", path).Exposure(); got != "" {
		t.Errorf("a credential of systemd: %q", got)
	}

	t.Setenv("CREDENTIALS_DIRECTORY", "")
	volume := t.TempDir() // as Kubernetes makes it
	if err := os.Mkdir(filepath.Join(volume, "..2026"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(volume, "..2026", "key"), "s", 0o644)
	for link, target := range map[string]string{"..data": "..2026", "key": "..data/key"} {
		if err := os.Symlink(target, filepath.Join(volume, link)); err != nil {
			t.Fatal(err)
		}
	}

	if got := secretfile.New("--key-file", filepath.Join(volume, "key")).Exposure(); got != "" {
		t.Errorf("a secret of Kubernetes: %q", got)
	}
}
