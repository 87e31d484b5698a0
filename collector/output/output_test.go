package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/internal/fixture"
)

// writeText writes a file as output files are written.
func writeText(path, text string) error {
	file, err := atomicfile.Create(path, Mode)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return file.Commit(err)
}

// A file that a living process is writing is not taken from it, and a file that it did not
// finish is gone.
func TestFileInUse(t *testing.T) {
	t.Parallel()

	out := Prefix(filepath.Join(t.TempDir(), "out"))
	file, err := atomicfile.Create(out.Results(), Mode)
	fixture.Must(t, err)
	if _, err := atomicfile.Create(out.Results(), Mode); !errors.Is(err, atomicfile.ErrLocked) {
		t.Errorf("CreateFile: %v, want atomicfile.ErrLocked", err)
	}

	fixture.Must(t, out.RemoveStale())
	if _, err := os.Stat(file.Name()); err != nil {
		t.Errorf("the file that is being written: %v", err)
	}

	file.Abort()
	file.Abort()
	fixture.CheckAbsent(t, file.Name())

	if err := writeText(out.Results(), "text"); err != nil {
		t.Error(err)
	}
}

func TestOutputCheck(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name    string
		output  string // prefix of the files
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
				fixture.Must(t, os.Mkdir(dir+"/disk", 0o755))
				fixture.Must(t, os.Symlink("disk/"+strings.Repeat("n", 254), dir+"/out.jsonl.zst"))
			},
			err: syscall.ENAMETOOLONG,
		},
		{
			name:    "a link into a folder that is not there",
			output:  "out",
			prepare: func(t *testing.T, dir string) { fixture.Must(t, os.Symlink("none/real", dir+"/out.jsonl.zst")) },
			err:     fs.ErrNotExist,
		},
		{
			name:    "a folder has the name of the report",
			output:  "out",
			prepare: func(t *testing.T, dir string) { fixture.Must(t, os.Mkdir(dir+"/out.report.md", 0o755)) },
			err:     atomicfile.ErrIrregular,
		},
		{
			name:    "a pipe has the name of the journal",
			output:  "out",
			prepare: func(t *testing.T, dir string) { fixture.Must(t, syscall.Mkfifo(dir+"/out.part.zst", 0o600)) },
			err:     atomicfile.ErrIrregular,
		},
		{
			name:   "a folder that cannot be written",
			output: "sub/out",
			prepare: func(t *testing.T, dir string) {
				fixture.Must(t, os.Mkdir(dir+"/sub", 0o555))
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

			out := Prefix(tt.output)
			if !filepath.IsAbs(tt.output) {
				out = Prefix(filepath.Join(dir, tt.output))
			}

			before, err := os.ReadDir(dir)
			fixture.Must(t, err)

			err = out.Check()
			if !errors.Is(err, tt.err) || err != nil && !strings.Contains(err.Error(), "cannot be written: ") {
				t.Errorf("Check: %v, want %v", err, tt.err)
			}

			after, err := os.ReadDir(dir)
			fixture.Must(t, err)
			if len(before) != len(after) {
				t.Errorf("Check has left something: %v, before %v", after, before)
			}
		})
	}
}

func TestRemoveLeft(t *testing.T) {
	t.Parallel()

	out := Prefix(filepath.Join(t.TempDir(), "out"))
	for _, path := range out.files() {
		fixture.Must(t, os.WriteFile(path, []byte("kept"), 0o644))
		for _, suffix := range []string{atomicfile.TempSuffix, probeSuffix, ".mine"} {
			fixture.Must(t, os.WriteFile(path+suffix, []byte("left"), 0o644))
		}
	}

	fixture.Must(t, os.WriteFile(out.Journal()+NewJournalSuffix, []byte("left"), 0o644))
	fixture.Must(t, out.RemoveStale())

	for name, text := range readFolder(t, out) {
		if text != "kept" && !strings.HasSuffix(name, ".mine") {
			t.Errorf("%s is there", name)
		}
	}

	if got, want := len(readFolder(t, out)), 2*len(out.files()); got != want {
		t.Errorf("%d files are there, want %d", got, want)
	}
}

// readFolder returns the files in the folder of an output.
func readFolder(t *testing.T, out Prefix) map[string]string {
	t.Helper()

	files := map[string]string{}
	fixture.Must(t, fs.WalkDir(os.DirFS(filepath.Dir(string(out))), ".",
		func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(filepath.Join(filepath.Dir(string(out)), path))
			files[path] = string(data)
			return err
		}))

	return files
}

func ExamplePrefix() {
	p := Prefix("dir/run")
	fmt.Println(p.Results(), p.Errors(), p.Meta(), p.Journal())
	// Output: dir/run.jsonl.zst dir/run.errors.jsonl.zst dir/run.meta.json dir/run.part.zst
}
