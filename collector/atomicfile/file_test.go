//go:build unix

package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeText writes a file as output files are written.
func writeText(path, text string) error {
	file, err := Create(path, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return file.Commit(err)
}

func TestCreateFile(t *testing.T) {
	t.Parallel()

	const text = "new"
	write := func(t *testing.T, path string) {
		t.Helper()
		must(t, os.WriteFile(path, []byte("old"), 0o644))
	}
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		want    map[string]string // of the files in the folder, links followed
		links   []string          // that are links still
		err     error
	}{
		{
			name:    "nothing is there",
			prepare: func(*testing.T, string) {},
			want:    map[string]string{"out": text},
		},
		{
			name:    "a file is replaced",
			prepare: func(t *testing.T, dir string) { write(t, dir+"/out") },
			want:    map[string]string{"out": text},
		},
		{
			name: "a link is written through",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/disk", 0o755))
				write(t, dir+"/disk/real")
				must(t, os.Symlink("disk/real", dir+"/out"))
			},
			want:  map[string]string{"out": text, "disk/real": text},
			links: []string{"out"},
		},
		{
			name:    "what a link points to is made",
			prepare: func(t *testing.T, dir string) { must(t, os.Symlink(dir+"/real", dir+"/out")) },
			want:    map[string]string{"out": text, "real": text},
			links:   []string{"out"},
		},
		{
			name: "links in a folder that is a link",
			prepare: func(t *testing.T, dir string) {
				must(t, os.MkdirAll(dir+"/a/b", 0o755))
				must(t, os.Symlink("a/b", dir+"/short"))
				must(t, os.Symlink("../real", dir+"/a/b/next")) // of a, not of the folder of short
				must(t, os.Symlink("short/next", dir+"/out"))
			},
			want:  map[string]string{"out": text, "a/real": text, "a/b/next": text},
			links: []string{"out", "a/b/next"},
		},
		{
			name: "a link at the temporary name is not followed",
			prepare: func(t *testing.T, dir string) {
				write(t, dir+"/precious")
				must(t, os.Symlink("precious", dir+"/out.tmp"))
			},
			want: map[string]string{"out": text, "precious": "old"},
		},
		{
			name: "nor is another name of a file",
			prepare: func(t *testing.T, dir string) {
				write(t, dir+"/precious")
				must(t, os.Link(dir+"/precious", dir+"/out.tmp"))
			},
			want: map[string]string{"out": text, "precious": "old"},
		},
		{
			name:    "what a crash has left",
			prepare: func(t *testing.T, dir string) { write(t, dir+"/out.tmp") },
			want:    map[string]string{"out": text},
		},
		{
			name:    "a pipe at the temporary name",
			prepare: func(t *testing.T, dir string) { must(t, syscall.Mkfifo(dir+"/out.tmp", 0o600)) },
			want:    map[string]string{"out": text},
		},
		{
			name:    "a folder at the temporary name",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/out.tmp", 0o755)) },
			want:    map[string]string{},
			err:     syscall.EISDIR,
		},
		{
			name:    "a folder",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/out", 0o755)) },
			want:    map[string]string{},
			err:     ErrIrregular,
		},
		{
			name:    "a link to a device",
			prepare: func(t *testing.T, dir string) { must(t, os.Symlink("/dev/null", dir+"/out")) },
			want:    map[string]string{},
			links:   []string{"out"},
			err:     ErrIrregular,
		},
		{
			name:    "a link to itself",
			prepare: func(t *testing.T, dir string) { must(t, os.Symlink("out", dir+"/out")) },
			want:    map[string]string{},
			links:   []string{"out"},
			err:     syscall.ELOOP,
		},
		{
			name: "a link of another user",
			prepare: func(t *testing.T, dir string) {
				write(t, dir+"/precious")
				must(t, os.Symlink("precious", dir+"/out"))
				if err := os.Lchown(dir+"/out", 12345, -1); err != nil {
					t.Skipf("only root can make one: %v", err)
				}
			},
			want:  map[string]string{"out": "old", "precious": "old"},
			links: []string{"out"},
			err:   ErrForeignLink,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			tt.prepare(t, dir)
			if err := writeText(dir+"/out", text); !errors.Is(err, tt.err) {
				t.Errorf("CreateFile: %v, want %v", err, tt.err)
			}

			for _, name := range tt.links {
				if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || info.Mode()&fs.ModeSymlink == 0 {
					t.Errorf("%s is no link any more (%v)", name, err)
				}
			}

			got := map[string]string{}
			must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}

				info, statErr := os.Stat(path)
				if statErr != nil || !info.Mode().IsRegular() {
					return nil //nolint:nilerr // a link that leads to no file
				}

				data, err := os.ReadFile(path)
				got[strings.TrimPrefix(path, dir+"/")] = string(data)

				return err
			}))

			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

// A file that takes the place of another keeps its permissions: an answer that was for
// its owner alone stays so.
func TestCreateFileKeepsMode(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "out")
	must(t, writeText(path, "one"))
	first, err := os.Stat(path)
	must(t, err)
	if got := first.Mode().Perm(); got&0o600 != 0o600 || got&0o111 != 0 {
		t.Errorf("a new file has mode %v", got)
	}

	must(t, os.Chmod(path, 0o600))
	must(t, writeText(path, "two"))
	second, err := os.Stat(path)
	must(t, err)
	if second.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want that of before, 0600", second.Mode().Perm())
	}
}

func TestLockOfReplacedFile(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "file")
	for _, replace := range []func(){
		func() { must(t, os.Remove(path)) },
		func() { must(t, writeText(path, "another")) },
	} {
		must(t, os.WriteFile(path, nil, 0o644))
		file, err := os.Open(path)
		must(t, err)
		replace()
		if err := Lock(path, file); !errors.Is(err, ErrReplaced) {
			t.Errorf("lock: %v, want ErrReplaced", err)
		}
	}
}

// Another process replaces a stale file before it is locked: the new file stays.
func TestRemoveLeftOfAnother(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte("left"), 0o644))
	left, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	another, err := CreateLocked(path, 0o644)
	must(t, err)
	defer Unlock(another)

	if err := removeOpened(path, left); !errors.Is(err, ErrReplaced) {
		t.Errorf("remove: %v, want ErrReplaced", err)
	}

	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file of the other process: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}
