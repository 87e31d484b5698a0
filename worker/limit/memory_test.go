package limit

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemory(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "state", "servers.json")
		a, b := MemoryKey("http://a:8000", "vLLM", "m"), MemoryKey("http://a:8000", "vLLM", "other")
		if a == b || a == MemoryKey("http://a:8000", "vLLMm") {
			t.Error("two servers have one key")
		}

		if got := NewMemory(path).Load(a); got != 0 {
			t.Errorf("%d for a server that was never stored", got)
		}

		for _, n := range []int{30, 67} {
			if err := NewMemory(path).Store(a, n); err != nil {
				t.Fatal(err)
			}
		}

		m := NewMemory(path)
		if m.Load(a) != 67 || m.Load(b) != 0 {
			t.Errorf("%d and %d, want 67 and 0", m.Load(a), m.Load(b))
		}

		for i := range maxMemoryServers {
			time.Sleep(time.Second)
			if err := m.Store(fmt.Sprint(i), i+1); err != nil {
				t.Fatal(err)
			}
		}

		if m.Load(a) != 0 || m.Load("0") != 1 || m.Load("255") != 256 {
			t.Errorf("%d, %d and %d, want 0, 1 and 256: the oldest goes", m.Load(a), m.Load("0"), m.Load("255"))
		}

		time.Sleep(maxMemoryAge + time.Second)
		if got := m.Load("255"); got != 0 {
			t.Errorf("%d after a month", got)
		}

		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 1 {
			t.Errorf("files %v", left)
		}
	})
}

// Whatever the file holds, it is no more than a limit to start at.
func FuzzMemory(f *testing.F) {
	f.Add([]byte(`{"servers":{"k":{"at_once":64,"seen":"2026-11-28T12:00:00Z"}}}`))
	f.Add([]byte(`{"servers":{"k":{"at_once":-1,"seen":"0001-01-01T00:00:00Z"}}}`))
	f.Add([]byte(`{"servers":null}`))
	f.Add([]byte(`{"servers":{"k"`))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "servers.json")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}

		m := NewMemory(path)
		n := m.Load("k")
		l := New(Config{Max: 100})
		l.StartAt(n)
		if got := l.Limit(); n < 0 || got < 1 || got > 100 {
			t.Errorf("%d from the file, limit %d", n, got)
		}

		if err := m.Store("k", 7); err != nil || m.Load("k") != 7 {
			t.Errorf("%d after %v", m.Load("k"), err)
		}
	})
}

// A search that starts where the last one ended is done at once, and still notices when the
// server takes less or more now.
func TestStartAt(t *testing.T) {
	t.Parallel()

	for _, slots := range []int{256, 64, 1024} {
		for _, gauges := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d slots/gauges=%v", slots, gauges), func(t *testing.T) {
				t.Parallel()

				synctest.Test(t, func(t *testing.T) {
					c := scenario{engine: engineWith(slots), least: 50, most: 150}
					best := meanOf(drive(t, c, Fixed(slots+slots/16), false, 60, nil)[10:]).tokens
					l := New(Config{})
					l.StartAt(256)
					got := drive(t, c, l, gauges, 180, nil)
					steady, at := meanOf(got[60:]), secondsUntil(got, 0.9*best)
					t.Logf("%.3f of the best fixed limit, 90%% after %d s; limit %.1f, found %d",
						steady.tokens/best, at, steady.limit, l.Found())
					if steady.tokens < 0.97*best || slots <= 256 && at > 2 {
						t.Errorf("%.3f of the best fixed limit, 90%% after %d s", steady.tokens/best, at)
					}

					if l.Found() < slots || l.Found() > 3*slots/2 {
						t.Errorf("found %d", l.Found())
					}
				})
			})
		}
	}
}
