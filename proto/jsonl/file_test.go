package jsonl

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

	"github.com/promptmill/promptmill/proto/prototest"
)

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
		{"gzip under a plain name", "in.jsonl", prototest.Gzip(t, text), text},
		{"two gzip members", "in.gz", prototest.Gzip(t, text) + prototest.Gzip(t, text), text + text},
		{"gzip with members of nothing", "in.gz",
			strings.Repeat(prototest.Gzip(t, ""), 300) + prototest.Gzip(t, text), text},
		{"gzip from a tape", "in.gz", prototest.Gzip(t, text) + strings.Repeat("\x00", 10240), text},
		{"gzip and one zero", "in.gz", prototest.Gzip(t, text) + "\x00", text},
		{"zstd under the name of gzip", "in.gz", prototest.Zstd(t, text), text},
		{"zstd behind a skippable frame", "in", skippable + prototest.Zstd(t, text), text},
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

func TestCompression(t *testing.T) {
	t.Parallel()

	const text = "{\"a\":1}\n"
	skippable := "\x50\x2a\x4d\x18\x02\x00\x00\x00xx"
	for _, tt := range []struct {
		name, content, want string
	}{
		{"plain.gz", text, ""}, // its name says nothing
		{"gzip", prototest.Gzip(t, text), "gzip"},
		{"zstd", prototest.Zstd(t, text), "zstd"},
		{"zstd behind a skippable frame", skippable + prototest.Zstd(t, text), "zstd"},
		{"the last kind of skippable frame", "\x5f" + skippable[1:], "zstd"},
		{"beyond the last", "\x60" + skippable[1:], ""},
		{"empty", "", ""},
		{"one byte", "{", ""},
		{"one byte of gzip", "\x1f", ""},
		{"all of the magic of gzip", "\x1f\x8b", "gzip"},
		{"three bytes of zstd", "\x28\xb5\x2f", ""},
	} {
		if got, err := Compression(writeFile(t, tt.name, tt.content)); got != tt.want || err != nil {
			t.Errorf("%s: Compression = %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}

	if _, err := Compression(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v, want fs.ErrNotExist", err)
	}

	if _, err := Compression(t.TempDir()); err == nil {
		t.Error("a folder is no file, compressed or not")
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
		{"cut.gz", shortened(prototest.Gzip(t, "text")), "it is cut off, its gzip data ends in the middle"},
		{"cut in its header.gz", prototest.Gzip(t, "text")[:5], "it is cut off, its gzip data ends in the middle"},
		{"cut in its second member.gz", prototest.Gzip(t, "text") + prototest.Gzip(t, "text")[:5],
			"it is cut off, its gzip data ends in the middle"},
		{"cut.zst", shortened(prototest.Zstd(t, "text")), "it is cut off, its zstd data ends in the middle"},
		{"tail.gz", prototest.Gzip(t, "text") + "text", "something other than gzip follows the gzip data"},
		{"zeros and a tail.gz", prototest.Gzip(t, "text") + "\x00\x00" + prototest.Gzip(t, "text"),
			"something other than gzip follows the gzip data"},
		{"window.zst", windowed(t, 2*maxWindow),
			"packed with a window of more than 128 MiB"},
		{"flipped.gz", flipped(prototest.Gzip(t, strings.Repeat("text", 1000))), "its gzip data is damaged"},
		{"flipped.zst", flipped(prototest.Zstd(t, strings.Repeat("text", 1000))), "its zstd data is damaged"},
		{"tail.zst", prototest.Zstd(t, "text") + "text", "something other than zstd follows the zstd data"},
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

		damage, ok := errors.AsType[*DamageError](err)
		if !ok || filepath.Base(damage.File) != tt.name || damage.Window != strings.HasPrefix(tt.name, "window") {
			t.Errorf("%s: damage %+v", tt.name, damage)
		}
	}
}

// flipped returns a packed text with a wrong byte in the middle.
func flipped(packed string) string {
	b := []byte(packed)
	b[len(b)/2] ^= 0x55
	return string(b)
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

// failingFile is a file whose reads fail behind some bytes.
type failingFile struct {
	*bytes.Reader

	err error
}

// Read implements io.Reader.
func (f *failingFile) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = f.err
	}
	return n, err
}

// Close implements io.Closer.
func (f *failingFile) Close() error { return nil }

// A packed file that cannot be read, as when a store does not answer, is not damaged.
func TestReadErrorIsNoDamage(t *testing.T) {
	t.Parallel()

	text := bytes.Repeat([]byte("a line of text\n"), 100_000)
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}

	for name, packed := range map[string][]byte{
		"gzip": zipped.Bytes(),
		"zstd": encoder.EncodeAll(text, nil),
	} {
		for _, size := range []int{5, 20, len(packed) - 3} {
			want := errors.New("s3://bucket/key: the store does not answer")
			in, err := Decompress("s3://bucket/key", &failingFile{bytes.NewReader(packed[:size]), want})
			if err == nil {
				_, err = io.Copy(io.Discard, in)
			}
			if !errors.Is(err, want) || errors.Is(err, ErrDamaged) {
				t.Errorf("%s, %d bytes: %v", name, size, err)
			}
		}
	}
}
