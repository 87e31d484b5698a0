package table

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go/format"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

// openTestParquet opens a Parquet file.
func openTestParquet(t *testing.T, path string, change func(*Config)) *ParquetReader {
	t.Helper()

	file, err := inputfile.Local{}.Stat(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}

	cfg := Config{
		Opener: inputfile.Local{},
		File:   file,
	}
	if change != nil {
		change(&cfg)
	}

	r, err := OpenParquet(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { r.Close() })

	return r
}

// describeValue returns a value with its kind, as text.
func describeValue(v Value) string {
	switch v.Kind {
	case KindNull:
		return "null"
	case KindText:
		return "text " + strconv.Quote(string(v.Text))
	case KindBytes:
		return fmt.Sprintf("bytes %x", v.Text)
	case KindInt:
		return fmt.Sprint("int ", int64(v.Bits))
	case KindUint:
		return fmt.Sprint("uint ", v.Bits)
	case KindFloat:
		return fmt.Sprint("float ", math.Float64frombits(v.Bits))
	case KindFloat32:
		return fmt.Sprint("float32 ", math.Float32frombits(uint32(v.Bits)))
	case KindBool:
		return fmt.Sprint("bool ", v.Bits == 1)
	case KindNumber:
		return "number " + string(v.Text)
	case KindTime:
		return "time " + string(v.Text)
	case KindJSON:
		return "json " + string(v.Text)
	}

	return fmt.Sprint("kind ", v.Kind)
}

// describeRow returns a row as text, a line for each value.
func describeRow(row Row) string {
	var text strings.Builder
	fmt.Fprintf(&text, "row %d\n", row.Number)
	for i, v := range row.Values {
		fmt.Fprintf(&text, "  %s: %s\n", row.Columns[i].Name, describeValue(v))
	}
	return text.String()
}

// describeRows reads the rows that are left, as texts.
func describeRows(t *testing.T, r Reader) []string {
	t.Helper()

	var rows []string
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return rows
		}
		if err != nil {
			t.Fatal(err)
		}

		rows = append(rows, describeRow(row))
	}
}

// TestParquetOfOthers reads files of other writers: see testdata/parquet/write.py. The texts
// say what their rows have; those of pyarrow hold the same rows with other compressions,
// encodings and row groups.
func TestParquetOfOthers(t *testing.T) {
	t.Parallel()

	paths, err := filepath.Glob("testdata/parquet/*.parquet")
	if err != nil || len(paths) < 12 {
		t.Fatalf("%d files, %v", len(paths), err)
	}

	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".parquet")
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			expected := name
			if e, _, ok := strings.Cut(name, "-"); ok {
				expected = e
			}

			want, err := os.ReadFile("testdata/parquet/" + expected + ".txt")
			if err != nil {
				t.Fatal(err)
			}

			rows := describeRows(t, openTestParquet(t, path, nil))
			if diff := cmp.Diff(string(want), strings.Join(rows, "")); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}

			for n := range len(rows) + 1 {
				r := openTestParquet(t, path, func(cfg *Config) { cfg.From = Position{Row: n} })
				if p := r.Position(); p.Row != n {
					t.Errorf("the position is %+v, want row %d", p, n)
				}

				if diff := cmp.Diff(rows[n:], append([]string{}, describeRows(t, r)...)); diff != "" {
					t.Errorf("rows from row %d (-want +got):\n%s", n, diff)
				}
			}
		})
	}
}

// TestParquetWithoutRows reads files without rows, without row groups, and with row groups that have no rows
// at the beginning, in the middle and at the end.
func TestParquetWithoutRows(t *testing.T) {
	t.Parallel()

	four := []string{
		"row 1\n  id: int 1\n  text: text \"a\"\n  tags: json [\"x\"]\n",
		"row 2\n  id: int 2\n  text: null\n  tags: json []\n",
		"row 3\n  id: int 1\n  text: text \"a\"\n  tags: json [\"x\"]\n",
		"row 4\n  id: int 2\n  text: null\n  tags: json []\n",
	}

	for name, want := range map[string][]string{"no_groups": {}, "no_rows": {}, "empty_groups": four} {
		for n := range len(want) + 1 {
			r := openTestParquet(t, "testdata/empty/"+name+".parquet", func(cfg *Config) { cfg.From.Row = n })
			if r.Rows() != len(want) || len(r.Columns()) != 3 {
				t.Errorf("%s: %d rows and %d columns", name, r.Rows(), len(r.Columns()))
			}

			if diff := cmp.Diff(want[n:], append([]string{}, describeRows(t, r)...)); diff != "" {
				t.Errorf("%s: rows from row %d (-want +got):\n%s", name, n, diff)
			}
		}
	}
}

// TestParquetColumns reads some columns: others are null and their pages are not read.
func TestParquetColumns(t *testing.T) {
	t.Parallel()

	r := openTestParquet(t, "testdata/parquet/pyarrow-snappy.parquet", func(cfg *Config) {
		cfg.Only = []string{"a.b", "messages", "missing"}
	})

	row, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}

	for i, c := range r.Columns() {
		got := describeValue(row.Values[i])
		want := "null"
		switch c.Name {
		case "a.b":
			want = `text "dot"`
		case "messages":
			want = `json [{"role":"user","content":"hi"}]`
		}

		if got != want {
			t.Errorf("%s is %s, want %s", c.Name, got, want)
		}
	}
}

// parquetBytes is an Opener of bytes, which counts reads.
type parquetBytes struct {
	b     []byte
	reads int
}

func (o *parquetBytes) Stat(context.Context, string) (proto.File, error) { panic("not used") }

func (o *parquetBytes) Open(context.Context, proto.File) (inputfile.File, error) {
	return &parquetBytesFile{SectionReader: io.NewSectionReader(strings.NewReader(string(o.b)), 0, int64(len(o.b))),
		opener: o}, nil
}

type parquetBytesFile struct {
	*io.SectionReader

	opener *parquetBytes
}

func (f *parquetBytesFile) ReadAt(b []byte, at int64) (int, error) {
	f.opener.reads++
	return f.SectionReader.ReadAt(b, at)
}

func (f *parquetBytesFile) Close() error { return nil }

// readParquetBytes reads all rows of a file, and returns their number.
func readParquetBytes(ctx context.Context, b []byte) (int, error) {
	r, err := OpenParquet(ctx, Config{
		Opener: &parquetBytes{b: b},
		File:   proto.File{Path: "in"},
	})
	if err != nil {
		return 0, err
	}
	defer r.Close()

	for n := 0; ; n++ {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return n, nil
		} else if _, ok := errors.AsType[*RowError](err); err != nil && !ok {
			return n, err
		}
	}
}

// TestParquetCutOff reads each file without its end: the error is about the file, in words of ours.
func TestParquetCutOff(t *testing.T) {
	t.Parallel()

	paths, err := filepath.Glob("testdata/parquet/*.parquet")
	if err != nil {
		t.Fatal(err)
	}

	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}

		for _, n := range []int{0, 1, 4, 8, 11, 12, 13, len(b) / 2, len(b) - 9, len(b) - 8, len(b) - 1} {
			_, err := readParquetBytes(t.Context(), b[:n])
			if _, ok := errors.AsType[*FileError](err); !ok {
				t.Errorf("%s without its bytes from %d on: %v", path, n, err)
			}
		}
	}
}

// TestParquetDamagedRow reads a file with a damaged page: the error names the first row that cannot be read.
func TestParquetDamagedRow(t *testing.T) {
	t.Parallel()

	b, err := os.ReadFile("testdata/parquet/pyarrow-gzip.parquet") // with a checksum for each page
	if err != nil {
		t.Fatal(err)
	}

	at := strings.LastIndex(string(b[:len(b)/2]), "\x1f\x8b") // a compressed page of the rows 4 and 5
	b[at+20] ^= 1

	n, err := readParquetBytes(t.Context(), b)
	want := `in, row 4: column "uuid": the checksum of a page is wrong; the file is damaged`
	if n != 3 || err == nil || err.Error() != want {
		t.Errorf("%d rows are read, and the error is %v, want 3 and %s", n, err, want)
	}
}

// checkParquetError fails if an error has words of the library or of Go.
func checkParquetError(t *testing.T, err error) {
	t.Helper()

	if err == nil {
		return
	}

	if _, ok := errors.AsType[*FileError](err); !ok {
		t.Errorf("the error is a %T: %v", err, err)
	}

	for _, word := range []string{"EOF", "thrift", "runtime error", "parquet:", "out of range"} {
		if strings.Contains(err.Error(), word) {
			t.Errorf("the error has the word %q: %v", word, err)
		}
	}
}

// TestParquetDamage reads each file with a byte changed, all over it: the rows are read, or the
// file is refused.
func TestParquetDamage(t *testing.T) {
	t.Parallel()

	paths, err := filepath.Glob("testdata/parquet/*.parquet")
	if err != nil {
		t.Fatal(err)
	}

	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()

			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}

			refused := 0
			step := 1 + len(b)/500
			for at := 0; at < len(b); at += step {
				changed := append([]byte{}, b...)
				changed[at] ^= 1 << (at % 8)
				_, err := readParquetBytes(t.Context(), changed)
				checkParquetError(t, err)
				if err != nil {
					refused++
				}
			}

			if refused == 0 {
				t.Error("no change was found")
			}
		})
	}
}

func FuzzParquet(f *testing.F) {
	paths, err := filepath.Glob("testdata/parquet/*.parquet")
	if err != nil {
		f.Fatal(err)
	}

	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}

	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := readParquetBytes(t.Context(), b)
		checkParquetError(t, err)
	})
}

// TestParquetPageMemory reads pages of many columns: they share one budget, and a page takes the
// place of the one before it.
func TestParquetPageMemory(t *testing.T) {
	t.Parallel()

	var memory int64
	streams := make([]pageStream, 10)
	for i := range streams {
		streams[i] = pageStream{memory: &memory, in: chunkReader{block: smallestBlock}}
	}

	reserve := func(s *pageStream, kind format.PageType, size, packed int) error {
		return s.reserveMemory(&format.PageHeader{Type: kind, UncompressedPageSize: int32(size)}, packed)
	}

	for range 3 {
		for i := range streams {
			if err := reserve(&streams[i], format.DataPage, 100<<20, smallestBlock); err != nil {
				t.Fatal(err)
			}
		}
	}

	err := reserve(&streams[0], format.DataPage, 200<<20, smallestBlock)
	want := "the pages of its columns have 1100 MiB together, and at most 1024 are supported; " +
		"write the file again with smaller pages"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}

	memory = 0
	one := &pageStream{memory: &memory, in: chunkReader{block: smallestBlock}}
	for _, page := range []struct {
		kind                  format.PageType
		size, packed, counted int
	}{
		{format.DictionaryPage, 1 << 20, 1 << 10, 1 << 20},
		{format.DataPage, 2 << 20, 1 << 10, 3 << 20},
		{format.DataPage, 1 << 20, 1 << 10, 2 << 20},
		{format.DataPage, 1 << 20, 1<<20 + smallestBlock, 3 << 20}, // it does not fit a block
	} {
		if err := reserve(one, page.kind, page.size, page.packed); err != nil || memory != int64(page.counted) {
			t.Errorf("%+v: %d bytes are counted, %v", page, memory, err)
		}
	}
}

// TestParquetEncrypted opens files that pyarrow encrypted, with their footer and without it.
func TestParquetEncrypted(t *testing.T) {
	t.Parallel()

	for _, name := range []string{"enc_footer", "enc_plainfooter"} {
		path := "testdata/encrypted/" + name + ".parquet"
		file, err := inputfile.Local{}.Stat(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}

		_, err = Open(t.Context(), Config{
			Opener: inputfile.Local{},
			File:   file,
		})

		want := path + ": it is encrypted; write it again without encryption"
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
