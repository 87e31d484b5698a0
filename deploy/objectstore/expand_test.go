package objectstore

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
)

// writeTree writes small files below a folder.
func writeTree(t *testing.T, dir string, names ...string) {
	t.Helper()

	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}

		if err := os.WriteFile(path, []byte(name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// treeNames are the names of a folder that Spark might have written, and their order.
var treeNames = []string{
	"data/_SUCCESS", "data/.part-0.crc", "data/part-0.jsonl", "data/part-0.jsonl.crc", "data/part-1.jsonl",
	"data/_temporary/part-2.jsonl", "data/year=2024/part-0.csv", "data/year=2025/a/part-0.jsonl", "other.jsonl",
}

func TestExpandPath(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	writeTree(t, dir, treeNames...)
	writeTree(t, dir, "[odd].jsonl")

	if err := os.Symlink("data", "link"); err != nil {
		t.Fatal(err)
	}

	for arg, want := range map[string]string{
		"other.jsonl": "other.jsonl",
		"none.jsonl":  "none.jsonl", // its reader says so
		"data": "data/part-0.jsonl data/part-1.jsonl data/year=2024/part-0.csv " +
			"data/year=2025/a/part-0.jsonl",
		"link/":               "link/part-0.jsonl link/part-1.jsonl link/year=2024/part-0.csv link/year=2025/a/part-0.jsonl",
		"data/*.jsonl":        "data/part-0.jsonl data/part-1.jsonl",
		"**/*.jsonl":          "[odd].jsonl data/part-0.jsonl data/part-1.jsonl data/year=2025/a/part-0.jsonl other.jsonl",
		"data/year=*":         "data/year=2024/part-0.csv data/year=2025/a/part-0.jsonl",
		"./data/part-[1].*":   "data/part-1.jsonl",
		"data/_temporary/*":   "data/_temporary/part-2.jsonl",
		"data/*.crc":          "data/part-0.jsonl.crc",
		"[odd].jsonl":         "[odd].jsonl",
		"data/_*":             "data/_SUCCESS data/_temporary/part-2.jsonl",
		"data/**/part-0.csv":  "data/year=2024/part-0.csv",
		dir + "/other.js?nl":  dir + "/other.jsonl",
		"data/year=2025/**":   "data/year=2025/a/part-0.jsonl",
		"data/**":             "data/part-0.jsonl data/part-1.jsonl data/year=2024/part-0.csv data/year=2025/a/part-0.jsonl",
		"data/../other.jsonl": "data/../other.jsonl",
	} {
		got, err := New(Config{}).Expand(t.Context(), arg)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v; want %q", arg, got, err, want)
		}
	}

	for _, arg := range []string{"*.parquet", "none/*.jsonl", "data/[", "data/year=2024/*.jsonl"} {
		if got, err := New(Config{}).Expand(t.Context(), arg); exit.Code(err) != exit.CodeUsage {
			t.Errorf("%s: %q, %v", arg, got, err)
		}
	}
}

// A link in a folder is followed, and one that leads back is not followed again.
func TestExpandLinks(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	writeTree(t, dir, "data/a.csv", "other/lang=de/b.csv", "other/c.jsonl")

	for name, target := range map[string]string{
		"data/more":       "../other",
		"data/loop":       ".",
		"other/back":      "../data",
		"data/linked.csv": "a.csv",
		"data/.hidden":    "gone",
		"other/itself":    "../other",
	} {
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}

	for arg, want := range map[string]string{
		"data":           "data/a.csv data/linked.csv data/more/c.jsonl data/more/lang=de/b.csv",
		"data/":          "data/a.csv data/linked.csv data/more/c.jsonl data/more/lang=de/b.csv",
		"data/**/*.csv":  "data/a.csv data/linked.csv data/more/lang=de/b.csv",
		"data/*/*.jsonl": "data/more/c.jsonl",
		"data/*":         "data/a.csv data/linked.csv data/more/c.jsonl data/more/lang=de/b.csv",
	} {
		got, err := New(Config{}).Expand(t.Context(), arg)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v; want %q", arg, got, err, want)
		}
	}
}

// What is no file in a folder is refused by its name.
func TestExpandNoFile(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	writeTree(t, dir, "piped/a.csv", "bound/a.csv", "broken/a.csv")

	if err := syscall.Mkfifo("piped/b.csv", 0o600); err != nil {
		t.Fatal(err)
	}

	socket, err := net.Listen("unix", "bound/s")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()

	if err := os.Symlink("gone.csv", "broken/b.csv"); err != nil {
		t.Fatal(err)
	}

	for arg, want := range map[string]string{
		"piped":       "input piped/b.csv is a pipe, and an input is read twice",
		"piped/*.csv": "input piped/b.csv is a pipe, and an input is read twice",
		"bound":       "input bound/s is a socket",
		"broken":      "input broken/b.csv: the link leads to no file",
	} {
		got, err := New(Config{}).Expand(t.Context(), arg)
		if err == nil || err.Error() != want || exit.Code(err) != exit.CodeUsage {
			t.Errorf("%s: %q, %v; want %q", arg, got, err, want)
		}
	}

	for _, arg := range []string{"piped/a*", "bound/*.csv", "broken/[a].csv"} {
		if got, err := New(Config{}).Expand(t.Context(), arg); err != nil || len(got) != 1 {
			t.Errorf("%s: %q, %v", arg, got, err)
		}
	}
}

func TestExpandURL(t *testing.T) {
	s := serveText(t, []byte("x\n"))
	c := newTestClient(t, Config{})
	got, err := c.Expand(t.Context(), s.URL+"/f?id=1&sig=abc#part")
	want := s.URL + "/f?id=1&sig=***"
	if err != nil || !slices.Equal(got, []string{want}) {
		t.Fatalf("%q, %v", got, err)
	}

	s.fault = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		if r.URL.RawQuery != "id=1&sig=abc" {
			t.Errorf("query %q", r.URL.RawQuery)
		}
		return false
	}

	if file, err := c.Stat(t.Context(), want); err != nil || file.Path != want {
		t.Errorf("%+v, %v", file, err)
	}

	if _, err := c.Expand(t.Context(), s.URL+"/f?id=1&sig=other"); exit.Code(err) != exit.CodeUsage {
		t.Errorf("two URLs with one name: %v", err)
	}

	if _, err := c.Expand(t.Context(), "https://user:word@h/f"); err == nil || strings.Contains(err.Error(), "word@") {
		t.Errorf("a password: %v", err)
	}
}

func TestExpandDataSet(t *testing.T) {
	pages := map[string][]hubEntry{
		"": {
			{Type: "directory", Path: "default"},
			{Type: "file", Path: "default/train/0001.parquet"},
			{Type: "file", Path: "README.md"},
		},
		"2": {
			{Type: "file", Path: "default/train/0000.parquet"},
			{Type: "file", Path: "default/test/0000.parquet"},
		},
	}

	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer token" {
			t.Errorf("Authorization: %q", got)
		}

		if !strings.HasPrefix(r.URL.EscapedPath(), "/api/datasets/o/n/tree/refs%2Fconvert%2Fparquet") {
			http.NotFound(w, r)
			return
		}

		page := r.URL.Query().Get("cursor")
		if page == "" {
			w.Header().Set("Link", `<http://`+r.Host+r.URL.EscapedPath()+`?recursive=true&cursor=2>; rel="next"`)
		}

		json.NewEncoder(w).Encode(pages[page])
	}))
	defer hub.Close()

	t.Setenv("HF_ENDPOINT", hub.URL)
	t.Setenv("HF_TOKEN", "token")

	const parquet = "hf://datasets/o/n@refs%2Fconvert%2Fparquet/default/"
	for arg, want := range map[string][]string{
		"hf://datasets/o/n": {
			parquet + "test/0000.parquet", parquet + "train/0000.parquet", parquet + "train/0001.parquet",
		},
		"hf://datasets/o/n@refs%2Fconvert%2Fparquet/*/train/*.parquet": {
			parquet + "train/0000.parquet", parquet + "train/0001.parquet",
		},
		"hf://datasets/o/n@refs/convert/parquet/default/test/": {parquet + "test/0000.parquet"},
	} {
		got, err := newTestClient(t, Config{}).Expand(t.Context(), arg)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", arg, got, err)
		}
	}

	if _, err := newTestClient(t, Config{}).Expand(t.Context(), "hf://datasets/o/none/x/*"); exit.Code(err) !=
		exit.CodeUsage || !strings.Contains(exit.Hint(err), "HF_TOKEN") {
		t.Errorf("no such data set: %v", err)
	}
}
