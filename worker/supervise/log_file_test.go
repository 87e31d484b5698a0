package supervise

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func openTestLog(t *testing.T, path string, limit int64) *logFile {
	t.Helper()
	log, err := openLog(path, "vllm serve\nx", limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

var headTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)`)

// readLog returns the content of a log, with TIME for times.
func readLog(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return headTime.ReplaceAllString(string(data), "TIME")
}

func TestLogIsKeptAndRotated(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "server.log")
	const head = "promptmill: TIME: vllm serve x\n"
	openTestLog(t, path, 200).WriteString("one\n")
	openTestLog(t, path, 200).WriteString("two, cut")
	kept := head + "one\n" + head + "two, cut\n" + head
	log := openTestLog(t, path, 200)
	if diff := cmp.Diff(kept, readLog(t, path)); diff != "" {
		t.Errorf("log kept (-want +got):\n%s", diff)
	}

	if last := log.tailLines(); last != "" {
		t.Errorf("last lines %q come from the start before", last)
	}

	long := strings.Repeat("x", 200) + "\n"
	log.WriteString(long)
	openTestLog(t, path, 200)
	if diff := cmp.Diff(kept+long, readLog(t, path+".1")); diff != "" {
		t.Errorf("log put aside (-want +got):\n%s", diff)
	}

	if diff := cmp.Diff(head, readLog(t, path)); diff != "" {
		t.Errorf("new log (-want +got):\n%s", diff)
	}
}

// A log that is full while the server writes is put aside, and what comes later is read from its new beginning.
func TestFullLogIsPutAside(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "server.log")
	log := openTestLog(t, path, 100)
	log.WriteString("read\n")
	log.readNewLines(func([]byte) {})
	for _, part := range []string{"a", "b"} { // the second replaces the first
		if err := log.putAside(100); err != nil {
			t.Fatal(err)
		}

		log.WriteString(strings.Repeat(part, 150) + "\n")
		if err := log.putAside(100); err != nil {
			t.Fatal(err)
		}

		if aside := readLog(t, path+".1"); aside != strings.Repeat(part, 99)+"\n" || readLog(t, path) != "" {
			t.Errorf("put aside: %q, left: %q", aside, readLog(t, path))
		}
	}

	log.WriteString("new\n")
	var got []string
	log.readNewLines(func(line []byte) { got = append(got, string(line)) })
	if tail := log.tailLines(); tail != "new" || strings.Join(got, ";") != "new" {
		t.Errorf("lines %q, last lines %q", got, tail)
	}

	if err := log.putAside(100); err != nil || readLog(t, path) != "new\n" {
		t.Errorf("a log that is not full: %q, %v", readLog(t, path), err)
	}
}

func TestReadNewLines(t *testing.T) {
	t.Parallel()

	log := openTestLog(t, filepath.Join(t.TempDir(), "server.log"), 1<<20)
	long := strings.Repeat("x", 64<<10)
	for _, step := range []struct {
		write string
		want  []string
	}{
		{"", nil},
		{"one\ntwo\nthr", []string{"one", "two"}},
		{"ee\n", []string{"three"}},
		{"Loading: 0%\rLoading: 50%\r", []string{"Loading: 0%", "Loading: 50%"}},
		{long, []string{long}},
		{"y\r\n\nz\n", []string{"y", "z"}},
	} {
		log.WriteString(step.write)
		var got []string
		log.readNewLines(func(line []byte) { got = append(got, string(line)) })
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("lines after %.30q (-want +got):\n%s", step.write, diff)
		}
	}
}

// What a server writes without end is read in parts.
func TestReadNewLinesOfMuch(t *testing.T) {
	t.Parallel()

	log := openTestLog(t, filepath.Join(t.TempDir(), "server.log"), 1<<30)
	const lines = 3 * maxRead / 16
	log.WriteString(strings.Repeat("fifteen letters\n", lines))
	read := 0
	log.readNewLines(func([]byte) { read++ })
	if read != lines/3 {
		t.Errorf("%d lines read at once, want %d", read, lines/3)
	}

	for range 2 {
		log.readNewLines(func([]byte) { read++ })
	}
	if read != lines {
		t.Errorf("%d lines read, want %d", read, lines)
	}
}

func TestTailLines(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, write, want string }{
		{"few", "one\ntwo\n", "one\ntwo"},
		{"no end of line", "one\ntwo", "one\ntwo"},
		{"a progress bar", "Loading: 0%\rLoading: 50%\r\nTraceback\r\n", "Loading: 50%\nTraceback"},
		{"4 KB at most, of whole lines", strings.Repeat("x", 5000) + "\n" + strings.Repeat("y", 4000) + "\nz\n",
			strings.Repeat("y", 4000) + "\nz"},
		{"one line is too long", strings.Repeat("x", 5000) + "\n", strings.Repeat("x", maxTailBytes-1)},
		{"not text", "one \xff\n", "one "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			log := openTestLog(t, filepath.Join(t.TempDir(), "server.log"), 1<<20)
			log.WriteString(tt.write)
			if diff := cmp.Diff(tt.want, log.tailLines()); diff != "" {
				t.Errorf("last lines (-want +got):\n%s", diff)
			}
		})
	}
}
