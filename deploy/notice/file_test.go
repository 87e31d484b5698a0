package notice

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newQuickFile returns a source that looks for its file all the time.
func newQuickFile(path string) *file {
	f := newFile(path)
	f.every = quick

	return f
}

func TestFile(t *testing.T) {
	tests := []struct {
		name    string
		content string
		age     time.Duration
		left    time.Duration
		log     string
	}{
		{"empty", "", 0, 40 * time.Second, ""},
		{"duration", "120s\n", 0, 2 * time.Minute, ""},
		{"duration of a minute ago", "2m", time.Minute, time.Minute, ""},
		{"duration of yesterday", "2m", 24 * time.Hour, 0, ""},
		{"by a clock that is ahead", "2m", -time.Hour, 2 * time.Minute, ""},
		{"time", time.Now().Add(10 * time.Minute).Format(time.RFC3339), 0, 10 * time.Minute, ""},
		{"time in the past", "2017-09-18T08:22:00Z", 0, 0, ""},
		{"time in a hundred years", "2117-09-18T08:22:00Z", 0, 40 * time.Second, "more than 7 days away"},
		{"junk", "now!", 0, 40 * time.Second, "write a time such as"},
		{"long junk", strings.Repeat("2m ", 1000), 0, 40 * time.Second, "write a time such as"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			source := newQuickFile(filepath.Join(t.TempDir(), "leave"))
			w := startWatching(t, 40*time.Second, source)

			written := source.path + ".new"
			if err := os.WriteFile(written, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}

			then := time.Now().Add(-tt.age)
			if err := os.Chtimes(written, then, then); err != nil {
				t.Fatal(err)
			}

			if err := os.Rename(written, source.path); err != nil {
				t.Fatal(err)
			}

			w.expect("file:"+source.path, "the file is there", tt.left)
			w.expectLog(tt.log)
		})
	}
}

// TestFileChanges: a second deadline counts if it is nearer.
func TestFileChanges(t *testing.T) {
	source := newQuickFile(filepath.Join(t.TempDir(), "leave"))
	w := startWatching(t, 0, source)

	for _, content := range []string{"10m", "20m", "5m"} {
		if err := os.WriteFile(source.path+".new", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}

		if err := os.Rename(source.path+".new", source.path); err != nil {
			t.Fatal(err)
		}

		if content == "10m" {
			w.expect("file:"+source.path, "the file is there", 10*time.Minute)
		}
	}

	w.expect("file:"+source.path, "the file is there", 5*time.Minute)
	w.expectNone()
}

// TestFileOutlivesClock: a time left does not run out when the clock is set; a time of the clock does.
func TestFileOutlivesClock(t *testing.T) {
	source := newQuickFile(filepath.Join(t.TempDir(), "leave"))
	now := time.Now()
	source.now = func() time.Time { return now }

	expect := func(want time.Duration) {
		t.Helper()

		info, err := os.Stat(source.path)
		if err != nil {
			t.Fatal(err)
		}

		left, named, err := source.readDeadline(info)
		if err != nil || !named || left.Round(time.Minute) != want {
			t.Errorf("%s left, %t, %v; want %s", left, named, err, want)
		}
	}

	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(source.path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	write("10m")
	expect(10 * time.Minute)
	now = now.Add(time.Hour)
	expect(10 * time.Minute)

	write(now.Add(90 * time.Minute).Format(time.RFC3339))
	expect(90 * time.Minute)
	now = now.Add(time.Hour)
	expect(30 * time.Minute)
}

// TestFileOfAnotherKind: a folder is a notice without a deadline, and a pipe is not waited for.
func TestFileOfAnotherKind(t *testing.T) {
	source := newQuickFile(t.TempDir())

	startWatching(t, 40*time.Second, source).expect("file:"+source.path, "the file is there", 40*time.Second)
}

// TestFileUnreadable: a path that cannot be looked at is no notice.
func TestFileUnreadable(t *testing.T) {
	inner := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(inner, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	w := startWatching(t, 0, newQuickFile(filepath.Join(inner, "leave"))) // the file is no folder
	w.expectLog("failed to learn whether this box goes away")
	w.expectNone()
}

func FuzzParseContent(f *testing.F) {
	for _, text := range []string{"", "120s", "-5m", "2026-01-31T18:00:00Z", "9999999h", "0", "now", "1e9s"} {
		f.Add(text)
	}

	now := time.Date(2026, 1, 31, 17, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		left, named, err := parseContent(text, now.Add(-time.Minute), now)
		switch {
		case left < 0 || left > maxLeft:
			t.Errorf("%s left", left)
		case named && err != nil, !named && left != 0:
			t.Errorf("%s, %t, %v", left, named, err)
		}
	})
}
