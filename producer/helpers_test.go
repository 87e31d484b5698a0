package producer

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// repeatByte reads as the same byte n times, without holding them.
func repeatByte(b byte, n int64) io.Reader { return io.LimitReader(endless(b), n) }

// repeatByteTo writes n times x.
func repeatByteTo(w io.Writer, n int64) (int64, error) { return io.Copy(w, repeatByte('x', n)) }

type endless byte

func (e endless) Read(p []byte) (int, error) {
	if len(p) > 0 {
		p[0] = byte(e)
	}
	for n := 1; n < len(p); n *= 2 { // byte by byte would take seconds under -race
		copy(p[n:], p[:n])
	}
	return len(p), nil
}
