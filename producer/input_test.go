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

	"github.com/promptmill/promptmill/proto"
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
		{"a mark on a later line goes", "a\n\xef\xbb\xbfb\n\xef\xbb\xbf\n \xef\xbb\xbfc",
			[]string{"a", "b", " \xef\xbb\xbfc"}, []int{1, 2, 4}},
		{"blank lines longer than the buffer", strings.Repeat("\n \r\n", 200<<10) + "a\n" + strings.Repeat(" ",
			600<<10) + "\nb" + strings.Repeat("\n", 600<<10), []string{"a", "b"}, []int{400<<10 + 1, 400<<10 + 3}},
		{"lines longer than the buffer", long + "\n" + long + "y\r\nz\n" + long, []string{long, long + "y", "z", long},
			[]int{1, 2, 3, 4}},
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

	if _, err := l.Next(); !errors.Is(err, ErrLineTooLong) || l.Line() != 2 {
		t.Fatalf("line %d: %v", l.Line(), err)
	}

	if line, err := l.Next(); err != nil || string(line) != "b" || l.Line() != 3 || l.Offset() != MaxLine+6 {
		t.Fatalf("line %d %q, offset %d, %v", l.Line(), line, l.Offset(), err)
	}

	if _, err := l.Next(); !errors.Is(err, ErrLineTooLong) { // without a line feed
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
	for _, s := range []string{
		"", "a\nb", "\xef\xbb\xbf\r\n\r\r\na\r\n", " \n\t\n x", "a\n\xef\xbb\xbfb\n\xef\xbb\xbf\xef\xbb\xbf\n",
		"\n\n\n \r\n\ta\n\n",
	} {
		f.Add([]byte(s))
	}

	f.Fuzz(func(t *testing.T, text []byte) {
		var want []string
		for line := range strings.SplitSeq(string(text), "\n") {
			line = strings.TrimPrefix(line, "\xef\xbb\xbf")
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

		if l.Offset() != int64(len(text)) ||
			l.Line() != bytes.Count(text, []byte("\n"))+min(1, len(text)-1-bytes.LastIndexByte(text, '\n')) {
			t.Fatalf("%q: offset %d, line %d", text, l.Offset(), l.Line())
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
		{"gzip with members of nothing", "in.gz", strings.Repeat(gzipped(t, ""), 300) + gzipped(t, text), text},
		{"gzip from a tape", "in.gz", gzipped(t, text) + strings.Repeat("\x00", 10240), text},
		{"gzip and one zero", "in.gz", gzipped(t, text) + "\x00", text},
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
		if got, err := IsCompressed(writeFile(t, tt.name, tt.content)); got != tt.want || err != nil {
			t.Errorf("%s: Packed = %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}

	if _, err := IsCompressed(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v, want fs.ErrNotExist", err)
	}

	if _, err := IsCompressed(t.TempDir()); err == nil {
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
	for _, tt := range []struct{ name, packed, want string }{
		{"cut.gz", shortened(gzipped(t, "text")), "it is cut off, its gzip data ends in the middle"},
		{"cut in its header.gz", gzipped(t, "text")[:5], "it is cut off, its gzip data ends in the middle"},
		{"cut in its second member.gz", gzipped(t, "text") + gzipped(t, "text")[:5],
			"it is cut off, its gzip data ends in the middle"},
		{"cut.zst", shortened(zstded(t, "text")), "it is cut off, its zstd data ends in the middle"},
		{"tail.gz", gzipped(t, "text") + "text", "something other than gzip follows the gzip data"},
		{"zeros and a tail.gz", gzipped(t, "text") + "\x00\x00" + gzipped(t, "text"),
			"something other than gzip follows the gzip data"},
		{"window.zst", windowed(t, 2*maxWindow),
			"packed with a window of more than 128 MiB; unpack it with zstd -d --long=31"},
	} {
		in, err := Open(writeFile(t, tt.name, tt.packed))
		if err == nil {
			_, err = io.ReadAll(in)
			in.Close()
		}
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tt.name) ||
			!strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v", tt.name, err)
		}
	}
}

func shortened(packed string) string { return packed[:len(packed)-3] }

// windowed is a zstd file that wants a window of that many bytes.
func windowed(t testing.TB, window int) string {
	t.Helper()

	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window))
	if err != nil {
		t.Fatal(err)
	}

	for range 3 { // in one piece it would be a frame of its own size
		if _, err := io.Copy(w, repeatByte('\n', 1<<20)); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	return b.String()
}

// A bomb of blank lines goes by as fast as other text.
func BenchmarkBlankLines(b *testing.B) {
	const size = 64 << 20
	for _, bm := range []struct{ name, line string }{
		{"feeds", "\n"}, {"returns", "\r\n"}, {"spaces", strings.Repeat(" ", 200) + "\n"}, {"one line", " "},
	} {
		file := writeFile(b, "in.zst",
			zstded(b, strings.Repeat(bm.line, size/len(bm.line))+"\n{\"prompt\":\"\",\"model\":\"m\"}\n"))
		b.Run(bm.name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if in, _, err := Validate(b.Context(), []string{file}, proto.Settings{}, nil); err != nil ||
					in.Models["m"] != 1 {
					b.Fatal(in, err)
				}
			}
		})
	}
}
