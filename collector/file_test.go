package collector

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
	file, err := CreateFile(path, outputMode)
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
			err:   ErrOthersLink,
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

				if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
					return nil // a link that leads to no file
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

// What a living process is writing is not taken from it, and what it did not finish is
// gone.
func TestFileInUse(t *testing.T) {
	t.Parallel()

	out := Output(filepath.Join(t.TempDir(), "out"))
	file, err := CreateFile(out.Results(), outputMode)
	must(t, err)
	if _, err := CreateFile(out.Results(), outputMode); !errors.Is(err, ErrLocked) {
		t.Errorf("CreateFile: %v, want ErrLocked", err)
	}

	must(t, out.RemoveLeft())
	if _, err := os.Stat(file.Name()); err != nil {
		t.Errorf("the file that is being written: %v", err)
	}

	file.Abort()
	file.Abort()
	checkAbsent(t, file.Name())

	if err := writeText(out.Results(), "text"); err != nil {
		t.Error(err)
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
		if err := lock(path, file); !errors.Is(err, errMoved) {
			t.Errorf("lock: %v, want errMoved", err)
		}
	}
}

func TestOutputCheck(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name    string
		output  string // what the files begin with
		prepare func(t *testing.T, dir string)
		err     error
	}{
		{name: "a short name", output: "out"},
		{name: "as long as can be", output: strings.Repeat("n", 255-len(".errors.jsonl.zst.tmp"))},
		{
			name:   "a byte longer",
			output: strings.Repeat("n", 256-len(".errors.jsonl.zst.tmp")),
			err:    syscall.ENAMETOOLONG,
		},
		{name: "longer than any file's", output: strings.Repeat("n", 255), err: syscall.ENAMETOOLONG},
		{
			name:   "too long where a link leads",
			output: "out",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/disk", 0o755))
				must(t, os.Symlink("disk/"+strings.Repeat("n", 254), dir+"/out.jsonl.zst"))
			},
			err: syscall.ENAMETOOLONG,
		},
		{
			name:    "a link into a folder that is not there",
			output:  "out",
			prepare: func(t *testing.T, dir string) { must(t, os.Symlink("none/real", dir+"/out.jsonl.zst")) },
			err:     fs.ErrNotExist,
		},
		{
			name:    "a folder has the name of the report",
			output:  "out",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/out.report.md", 0o755)) },
			err:     ErrIrregular,
		},
		{
			name:    "a pipe has the name of the journal",
			output:  "out",
			prepare: func(t *testing.T, dir string) { must(t, syscall.Mkfifo(dir+"/out.part.zst", 0o600)) },
			err:     ErrIrregular,
		},
		{
			name:   "a folder that cannot be written",
			output: "sub/out",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/sub", 0o555))
				if os.Geteuid() == 0 {
					t.Skip("root can write everywhere")
				}
			},
			err: fs.ErrPermission,
		},
		{name: "a folder that no file can be made in", output: "/proc/out", err: fs.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			if tt.prepare != nil {
				tt.prepare(t, dir)
			}

			out := Output(tt.output)
			if !filepath.IsAbs(tt.output) {
				out = Output(filepath.Join(dir, tt.output))
			}

			before, err := os.ReadDir(dir)
			must(t, err)

			err = out.Check()
			if !errors.Is(err, tt.err) || err != nil && !strings.Contains(err.Error(), "cannot be written: ") {
				t.Errorf("Check: %v, want %v", err, tt.err)
			}

			after, err := os.ReadDir(dir)
			must(t, err)
			if len(before) != len(after) {
				t.Errorf("Check has left something: %v, before %v", after, before)
			}
		})
	}
}

// A journal whose name is a link lies where the link leads, at each of its ways.
func TestJournalBehindLink(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/disk", 0o755))
	link, real := dir+"/out.part.zst", dir+"/disk/real"
	must(t, os.Symlink("disk/real", link))
	j, err := CreateJournal(link, manifest(3))
	must(t, err)
	if _, err := CreateJournal(link, manifest(3)); !errors.Is(err, ErrLocked) {
		t.Errorf("CreateJournal over it: %v, want ErrLocked", err)
	}

	appendFrame(t, j, 1, 0)
	appendFrame(t, j, 2, 1)
	must(t, j.Close())
	flip(t, real, j.size-1-int64(len(linesOf(either, 1)))/4) // so that it is cut

	j = open(t, link)
	if j.State().Counts.Done != 1 {
		t.Errorf("%d lines, want 1", j.State().Counts.Done)
	}

	appendFrame(t, j, 2, 1)
	checkText(t, link, linesOf(either, 0, 1))
	must(t, j.Remove())
	checkAbsent(t, real)

	if _, err := os.Lstat(link); err != nil {
		t.Errorf("the link: %v", err)
	}
}

// What was left is replaced by another process before it is locked: that one's file stays.
func TestRemoveLeftOfAnother(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte("left"), 0o644))
	left, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	another, err := createLocked(path, 0o644)
	must(t, err)
	defer unlock(another)

	if err := removeOpened(path, left); !errors.Is(err, errMoved) {
		t.Errorf("remove: %v, want errMoved", err)
	}

	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file of the other process: %v", err)
	}
}

func TestRemoveLeft(t *testing.T) {
	t.Parallel()

	out := Output(filepath.Join(t.TempDir(), "out"))
	for _, path := range out.files() {
		must(t, os.WriteFile(path, []byte("kept"), 0o644))
		for _, suffix := range []string{tempSuffix, trySuffix, ".mine"} {
			must(t, os.WriteFile(path+suffix, []byte("left"), 0o644))
		}
	}

	must(t, os.WriteFile(out.Journal()+newSuffix, []byte("left"), 0o644))
	must(t, out.RemoveLeft())

	for name, text := range folder(t, out) {
		if text != "kept" && !strings.HasSuffix(name, ".mine") {
			t.Errorf("%s is there", name)
		}
	}

	if got, want := len(folder(t, out)), 2*len(out.files()); got != want {
		t.Errorf("%d files are there, want %d", got, want)
	}
}
