package jsonl

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// repeatByte reads as the same byte n times, without holding them.
func repeatByte(b byte, n int64) io.Reader { return io.LimitReader(endless(b), n) }

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

func TestReader(t *testing.T) {
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

			l := NewReader(strings.NewReader(tt.text))
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

func TestReaderContinuesAfterLongLine(t *testing.T) {
	t.Parallel()

	l := NewReader(io.MultiReader(
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
func TestReaderFault(t *testing.T) {
	t.Parallel()

	fault := errors.New("disk fault")
	for _, before := range []int64{0, 10, 600 << 10} {
		l := NewReader(io.MultiReader(repeatByte('x', before), iotestErr{fault}))
		if line, err := l.Next(); !errors.Is(err, fault) {
			t.Errorf("after %d bytes: %d bytes, %v", before, len(line), err)
		}
	}
}

type iotestErr struct{ err error }

func (e iotestErr) Read([]byte) (int, error) { return 0, e.err }

func FuzzReader(f *testing.F) {
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
		l := NewReader(bytes.NewReader(text))
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
