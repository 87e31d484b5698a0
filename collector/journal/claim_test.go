package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/output"
)

// claimed makes the journal of an output and claims its files.
func claimed(t *testing.T, out output.Prefix) (*Journal, error) {
	t.Helper()

	j, err := Create(out.Journal(), fixture.Manifest(3))
	if err != nil {
		return nil, err
	}

	t.Cleanup(func() { j.Close() })

	return j, j.Claim(out)
}

// regularFiles are the files below a folder, but for folders and links.
func regularFiles(t *testing.T, dir string) (names []string) {
	t.Helper()

	fixture.Must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, path)
		}
		return err
	}))

	return names
}

// Two outputs that have a file in common, by whatever way: the second is refused while the
// first is at work, and when the process of the first is dead, until its run is complete.
func TestClaim(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name          string
		links         map[string]string // what each points to
		first, second string
		shared        bool
	}{
		{"two names", nil, "a", "b", false},
		{"two links", map[string]string{"a.jsonl.zst": "disk/real.jsonl.zst", "b.jsonl.zst": "disk/real.jsonl.zst"},
			"a", "b", true},
		{"two links to a name that is no output's",
			map[string]string{"a.jsonl.zst": "disk/real", "b.jsonl.zst": "disk/real"}, "a", "b", true},
		{"two links to two files", map[string]string{"a.jsonl.zst": "disk/real", "b.jsonl.zst": "disk/other"},
			"a", "b", false},
		{"a link to a link", map[string]string{"a.jsonl.zst": "b.jsonl.zst", "b.jsonl.zst": "disk/real"},
			"a", "b", true},
		{"a link, then the file", map[string]string{"a.jsonl.zst": "b.jsonl.zst"}, "a", "b", true},
		{"the file, then a link", map[string]string{"b.jsonl.zst": "a.jsonl.zst"}, "a", "b", true},
		{"links by two ways to the folder",
			map[string]string{"way": "disk", "a.jsonl.zst": "way/real", "b.jsonl.zst": "disk/real"}, "a", "b", true},
		{"the file by a linked folder, then a link",
			map[string]string{"way": "disk", "b.jsonl.zst": "disk/real.jsonl.zst"}, "way/real", "b", true},
		{"a link, then the file by a linked folder",
			map[string]string{"way": "disk", "b.jsonl.zst": "disk/../disk/real.jsonl.zst"}, "b", "way/real", true},
		{"two links for failures", map[string]string{"a.errors.jsonl.zst": "failed", "b.errors.jsonl.zst": "failed"},
			"a", "b", true},
		{"failures of one, answers of the other", map[string]string{"a.errors.jsonl.zst": "b.jsonl.zst"},
			"a", "b", true},
		{"answers of one, failures of the other", map[string]string{"b.errors.jsonl.zst": "a.jsonl.zst"},
			"a", "b", true},
		{"a name that is one of failures", nil, "a", "a.errors", true},
		{"failures whose name is another's", nil, "a.errors", "a", true},
		{"metadata", map[string]string{"a.meta.json": "m", "b.meta.json": "m"}, "a", "b", true},
		{"a report", map[string]string{"b.report.md": "a.report.md"}, "a", "b", true},
		{"a journal where answers go", map[string]string{"a.part.zst": "b.jsonl.zst"}, "a", "b", true},
		{"answers where a journal is", map[string]string{"b.jsonl.zst": "a.part.zst"}, "a", "b", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			fixture.Must(t, os.Mkdir(filepath.Join(dir, "disk"), 0o755))

			for link, to := range tt.links {
				fixture.Must(t, os.Symlink(to, filepath.Join(dir, link)))
			}

			first, second := output.Prefix(filepath.Join(dir, tt.first)), output.Prefix(filepath.Join(dir, tt.second))
			j, err := claimed(t, first)
			fixture.Must(t, err)

			check := func(when string, want error) {
				t.Helper()

				before := regularFiles(t, dir)
				if err := second.Check(); (err != nil) != (want != nil) {
					t.Errorf("%s, Check: %v, want %v", when, err, want)
				}

				if after := regularFiles(t, dir); len(after) != len(before) {
					t.Errorf("%s, Check changed the folder: %v, before %v", when, after, before)
				}

				k, err := claimed(t, second)
				if (err != nil) != (want != nil) || err != nil && !errors.Is(err, output.ErrClaimed) &&
					!errors.Is(err, atomicfile.ErrLocked) && !errors.Is(err, os.ErrExist) {
					t.Errorf("%s, Claim: %v, want %v", when, err, want)
				}

				if k != nil {
					fixture.Must(t, errors.Join(k.Remove(), k.Close()))
				}
			}

			want := error(nil)
			if tt.shared {
				want = output.ErrClaimed
			}

			check("while the first is at work", want)

			fixture.Must(t, j.Close())
			check("after the first was killed", want)

			j = open(t, first.Journal())
			fixture.Must(t, j.Claim(first))
			check("while the first continues", want)

			fixture.Must(t, j.Remove())
			fixture.Must(t, j.Close())
			check("after the first", nil)

			if left := regularFiles(t, dir); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// Files of other programs under the name of a lock file stay as they are, and hinder only a
// run that needs the name.
func TestClaimBesideOthersFiles(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	fixture.Must(t, os.WriteFile(at("a.jsonl.zst.lck"), []byte("4711\n"), 0o644))
	fixture.Must(t, os.Mkdir(at("a.meta.json.lck"), 0o755))
	fixture.Must(t, syscall.Mkfifo(at("a.report.md.lck"), 0o644))
	fixture.Must(t, os.Symlink("a.jsonl.zst.lck", at("a.errors.jsonl.zst.lck")))
	fixture.Must(t, os.Symlink("a.jsonl.zst", at("b.jsonl.zst")))

	a := output.Prefix(at("a"))
	fixture.Must(t, a.Check())
	j, err := claimed(t, a)
	fixture.Must(t, err)
	fixture.Must(t, errors.Join(j.Remove(), j.Close(), a.RemoveStale()))

	j, err = claimed(t, output.Prefix(at("b")))
	if err == nil || !strings.Contains(err.Error(),
		"a file is in the way that promptmill has not written: "+at("a.jsonl.zst.lck")) {
		t.Errorf("a run that needs the name: %v", err)
	}

	fixture.Must(t, errors.Join(j.Remove(), j.Close()))
	if text, err := os.ReadFile(at("a.jsonl.zst.lck")); string(text) != "4711\n" {
		t.Errorf("it was changed to %q (%v)", text, err)
	}
}

// An output whose files are one is refused.
func TestClaimOfOneFile(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	out := output.Prefix(filepath.Join(dir, "out"))
	fixture.Must(t, os.Symlink("out.jsonl.zst", out.Errors()))
	if err := out.Check(); !errors.Is(err, output.ErrSameFile) {
		t.Errorf("Check: %v, want ErrOneFile", err)
	}

	if _, err := claimed(t, out); !errors.Is(err, output.ErrSameFile) {
		t.Errorf("Claim: %v, want ErrOneFile", err)
	}
}

// A link that is made, changed or removed while a run works is not followed.
func TestRedirected(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		before func(t *testing.T, dir string)
		after  func(t *testing.T, dir string)
	}{
		{"a link is made", func(*testing.T, string) {}, func(t *testing.T, dir string) {
			fixture.Must(t, os.Symlink("precious", dir+"/out.jsonl.zst"))
		}},
		{"a link is changed", func(t *testing.T, dir string) {
			fixture.Must(t, os.Symlink("real", dir+"/out.jsonl.zst"))
		}, func(t *testing.T, dir string) {
			fixture.Must(t, os.Remove(dir+"/out.jsonl.zst"))
			fixture.Must(t, os.Symlink("precious", dir+"/out.jsonl.zst"))
		}},
		{"a link of failures is made", func(*testing.T, string) {}, func(t *testing.T, dir string) {
			fixture.Must(t, os.Symlink("precious", dir+"/out.errors.jsonl.zst"))
		}},
		{"a link of the report is made", func(*testing.T, string) {}, func(t *testing.T, dir string) {
			fixture.Must(t, os.Symlink("precious", dir+"/out.report.md"))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			precious := filepath.Join(dir, "precious")
			fixture.Must(t, os.WriteFile(precious, []byte("not to be lost"), 0o644))
			tt.before(t, dir)
			out := output.Prefix(filepath.Join(dir, "out"))
			j, err := claimed(t, out)
			fixture.Must(t, err)
			appendFrame(t, j, 3, 0, 1, 2)
			tt.after(t, dir)

			if err := j.Rewrite(t.Context(), out, output.Format{}); !errors.Is(err, output.ErrRedirected) {
				t.Errorf("rewrite: %v, want output.ErrRedirected", err)
			}

			if text, err := os.ReadFile(precious); err != nil || string(text) != "not to be lost" {
				t.Errorf("the other file is %q, %v", text, err)
			}

			fixture.CheckAbsent(t, precious+atomicfile.TempSuffix)
		})
	}
}

// A link that is made while the last of a file is written is not followed.
func TestRedirectedBeforeRename(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	out := output.Prefix(filepath.Join(dir, "out"))
	j, err := claimed(t, out)
	fixture.Must(t, err)
	file, err := j.CreateFile(out.Meta())
	fixture.Must(t, err)
	fixture.Must(t, os.Symlink("precious", out.Meta()))

	if err := file.Commit(nil); !errors.Is(err, output.ErrRedirected) {
		t.Errorf("Commit: %v, want output.ErrRedirected", err)
	}

	if info, err := os.Lstat(out.Meta()); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Error("the link is gone")
	}

	fixture.CheckAbsent(t, out.Meta()+atomicfile.TempSuffix)
}
