package pipeline

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/promptmill/promptmill/collector/output"
)

func TestOwnFiles(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)

	if err := os.Mkdir("data", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("data", "link"); err != nil {
		t.Fatal(err)
	}

	own := NewOwnFiles(output.Prefix(filepath.Join(dir, "data/out")), filepath.Join(dir, "data/out.csv"), nil)
	remote := NewOwnFiles("s3://b/data/out", "s3://b/data/out.csv", nil)

	for name, want := range map[string]bool{
		"out.csv":                    true,
		"out.csv.tmp":                true,
		"out-00001-of-00004.csv":     true,
		"out.jsonl.zst":              true,
		"out.errors.jsonl.zst":       true,
		"out.errors.jsonl.zst.try":   true,
		"out.meta.json":              true,
		"out.report.md":              true,
		"out.report.html.tmp":        true,
		"out.part.zst":               true,
		"out.part.zst.new":           true,
		"out.part.zst.lck":           true,
		"out.parquet":                false,
		"out.jsonl":                  false,
		"out2.jsonl.zst":             false,
		"out":                        false,
		"a.csv":                      false,
		"sub/out.csv":                false,
		"out-00001-of-00004.parquet": false,
	} {
		for _, path := range []string{"data/" + name, "link/" + name, dir + "/data/" + name} {
			if got := own.Has(path); got != want {
				t.Errorf("%s: %v, want %v", path, got, want)
			}
		}

		if got := remote.Has("s3://b/data/" + name); got != want {
			t.Errorf("%s in a bucket: %v, want %v", name, got, want)
		}

		if own.Has("s3://b/data/"+name) || remote.Has("s3://c/data/"+name) || own.Has(name) {
			t.Errorf("%s of another place is the output's", name)
		}
	}

	if !remote.Has("s3://b/data/out.part/0000000000000000.zst") || own.Has("data/out.part/a.csv") {
		t.Error("a piece of the journal is in a bucket alone")
	}
}
