package producer

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

// repeatByte gives n times the same byte without holding them.
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

func TestLineReader(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 600<<10) // more than two buffers
	for _, tt := range []struct {
		name, text string
		want       []string
		numbers    []int
	}{
		{"nothing", "", nil, nil},
		{"lines", "a\nb\n", []string{"a", "b"}, []int{1, 2}},
		{"no line feed at the end", "a\nb", []string{"a", "b"}, []int{1, 2}},
		{"carriage returns go", "a\r\nb\r\n", []string{"a", "b"}, []int{1, 2}},
		{"blank lines go and count", "\n \t\na\n\r\n\nb\n\n", []string{"a", "b"}, []int{3, 6}},
		{"spaces in a line stay", " a \n", []string{" a "}, []int{1}},
		{"a byte-order mark goes", "\xef\xbb\xbfa\nb", []string{"a", "b"}, []int{1, 2}},
		{"a byte-order mark alone is blank", "\xef\xbb\xbf\na", []string{"a"}, []int{2}},
		{"a mark on the second line stays", "a\n\xef\xbb\xbfb", []string{"a", "\xef\xbb\xbfb"}, []int{1, 2}},
		{"lines longer than the buffer", long + "\n" + long + "y\r\nz\n" + long, []string{long, long + "y", "z", long}, []int{1, 2, 3, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := NewLineReader(strings.NewReader(tt.text))
			var got []string
			var numbers []int
			for {
				line, err := l.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				got, numbers = append(got, string(line)), append(numbers, l.Line())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("lines (-want +got):\n%.2000s", diff)
			}
			if diff := cmp.Diff(tt.numbers, numbers); diff != "" {
				t.Errorf("numbers (-want +got):\n%s", diff)
			}
			if l.Offset() != int64(len(tt.text)) {
				t.Errorf("offset %d of %d", l.Offset(), len(tt.text))
			}
		})
	}
}

func TestLineReaderGoesOnBehindALongLine(t *testing.T) {
	t.Parallel()
	l := NewLineReader(io.MultiReader(
		strings.NewReader("a\n"), repeatByte('x', MaxLine+1), strings.NewReader("\nb\n"), repeatByte('x', MaxLine+1)))
	if line, err := l.Next(); err != nil || string(line) != "a" {
		t.Fatalf("line %q, %v", line, err)
	}
	if _, err := l.Next(); !errors.Is(err, errTooLong) || l.Line() != 2 {
		t.Fatalf("line %d: %v", l.Line(), err)
	}
	if line, err := l.Next(); err != nil || string(line) != "b" || l.Line() != 3 || l.Offset() != MaxLine+6 {
		t.Fatalf("line %d %q, offset %d, %v", l.Line(), line, l.Offset(), err)
	}
	if _, err := l.Next(); !errors.Is(err, errTooLong) { // without a line feed
		t.Fatalf("the last line: %v", err)
	}
	if _, err := l.Next(); !errors.Is(err, io.EOF) {
		t.Fatalf("the end: %v", err)
	}
}

// A fault of the disk is not the end of the file.
func TestLineReaderFault(t *testing.T) {
	t.Parallel()
	fault := errors.New("disk fault")
	for _, before := range []int64{0, 10, 600 << 10} {
		l := NewLineReader(io.MultiReader(repeatByte('x', before), iotestErr{fault}))
		if line, err := l.Next(); !errors.Is(err, fault) {
			t.Errorf("after %d bytes: %d bytes, %v", before, len(line), err)
		}
	}
}

type iotestErr struct{ err error }

func (e iotestErr) Read([]byte) (int, error) { return 0, e.err }

func FuzzLineReader(f *testing.F) {
	for _, s := range []string{"", "a\nb", "\xef\xbb\xbf\r\n\r\r\na\r\n", " \n\t\n x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want []string
		for i, line := range strings.Split(string(text), "\n") {
			if i == 0 {
				line = strings.TrimPrefix(line, "\xef\xbb\xbf")
			}
			line = strings.TrimSuffix(line, "\r")
			if strings.Trim(line, " \t\r") != "" {
				want = append(want, line)
			}
		}
		var got []string
		l := NewLineReader(bytes.NewReader(text))
		for {
			line, err := l.Next()
			if err != nil {
				break
			}
			got = append(got, string(line))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("lines of %q (-want +got):\n%s", text, diff)
		}
	})
}

func gzipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zstded(t testing.TB, text string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return string(w.EncodeAll([]byte(text), nil))
}

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpen(t *testing.T) {
	t.Parallel()
	const text = "{\"a\":1}\n"
	skippable := "\x50\x2a\x4d\x18\x02\x00\x00\x00xx"
	for _, tt := range []struct{ name, file, content, want string }{
		{"plain text", "in.jsonl", text, text},
		{"plain text under a packed name", "in.gz", text, text},
		{"gzip under a plain name", "in.jsonl", gzipped(t, text), text},
		{"two gzip members", "in.gz", gzipped(t, text) + gzipped(t, text), text + text},
		{"zstd under the name of gzip", "in.gz", zstded(t, text), text},
		{"zstd behind a skippable frame", "in", skippable + zstded(t, text), text},
		{"a file too short for any magic", "in", "{}", "{}"},
		{"an empty file", "in", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in, err := Open(writeFile(t, tt.file, tt.content))
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			got, err := io.ReadAll(in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPacked(t *testing.T) {
	t.Parallel()
	const text = "{\"a\":1}\n"
	skippable := "\x50\x2a\x4d\x18\x02\x00\x00\x00xx"
	for _, tt := range []struct {
		name, content string
		want          bool
	}{
		{"plain.gz", text, false}, // its name says nothing
		{"gzip", gzipped(t, text), true},
		{"zstd", zstded(t, text), true},
		{"zstd behind a skippable frame", skippable + zstded(t, text), true},
		{"the last kind of skippable frame", "\x5f" + skippable[1:], true},
		{"beyond the last", "\x60" + skippable[1:], false},
		{"empty", "", false},
		{"one byte", "{", false},
		{"one byte of gzip", "\x1f", false},
		{"all of the magic of gzip", "\x1f\x8b", true},
		{"three bytes of zstd", "\x28\xb5\x2f", false},
	} {
		if got, err := Packed(writeFile(t, tt.name, tt.content)); got != tt.want || err != nil {
			t.Errorf("%s: Packed = %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
	if _, err := Packed(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v, want fs.ErrNotExist", err)
	}
	if _, err := Packed(t.TempDir()); err == nil {
		t.Error("a folder is no file, packed or not")
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	if _, err := Open(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("a directory: %v", err)
	}
	// What is cut off must not look like a shorter input, and the error names the file.
	for name, packed := range map[string]string{"cut.gz": gzipped(t, "text"), "cut.zst": zstded(t, "text")} {
		in, err := Open(writeFile(t, name, packed[:len(packed)-3]))
		if err == nil {
			_, err = io.ReadAll(in)
			in.Close()
		}
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
