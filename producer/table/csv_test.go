package table

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
)

func TestCSV(t *testing.T) {
	t.Parallel()

	two := []string{`1/2 id="1" text="a"`, `2/3 id="2" text="b"`}

	testRows(t, []rowTest{
		{
			name: "plain rows",
			file: "x.csv",
			text: "id,text\n1,a\n2,b\n",
			want: two,
		},
		{
			name: "no line feed at the end, and a byte-order mark",
			file: "x",
			text: "\xef\xbb\xbfid,text\r\n1,a\r\n2,b",
			want: two,
		},
		{
			name: "a byte-order mark before a quoted name",
			file: "x",
			text: "\xef\xbb\xbf\"id\",\"text\"\n1,a\n2,b",
			want: two,
		},
		{
			name: "semicolons of Excel, with decimal commas",
			file: "x.csv",
			text: "\xef\xbb\xbfid;text\r\n1,5;a\r\n2,5;b\r\n",
			want: []string{`1/2 id="1,5" text="a"`, `2/3 id="2,5" text="b"`},
		},
		{
			name: "a first line that names the delimiter to Excel",
			file: "x",
			text: "\xef\xbb\xbfsep=;\r\nid;text\r\n1,5;a\r\n2,5;b\r\n",
			want: []string{`1/3 id="1,5" text="a"`, `2/4 id="2,5" text="b"`},
		},
		{
			name:  "such a line, without a header, in UTF-16",
			file:  "x.csv",
			text:  "\xff\xfe" + utf16Text("sep=\t\r\n1\ta\r\n2\tb\r\n", false),
			table: proto.Table{Columns: []string{"id", "text"}},
			want:  []string{`1/2 id="1" text="a"`, `2/3 id="2" text="b"`},
		},
		{
			name: "a column with almost such a name",
			file: "x.csv",
			text: "sep=;;text\n1;;a\n",
			want: []string{`1/2 sep=="1" column_2=null text="a"`},
		},
		{
			name: "pipes",
			file: "x.csv",
			text: "id|text\n1|a\n2|b\n",
			want: two,
		},
		{
			name:  "a delimiter of several bytes",
			file:  "x.csv",
			text:  "id§text\n1§a\n\"2\"§b\n",
			table: proto.Table{Delimiter: "§"},
			want:  two,
		},
		{
			name: "tabs",
			file: "x.txt",
			text: "id\ttext\n1\ta\n2\tb\n",
			want: two,
		},
		{
			name: "quotes, line breaks and delimiters in fields",
			file: "x.csv",
			text: "id,text\r\n1,\"a \"\"b\"\"\r\nc, d\ne\"\r\n\"2\",\"\"\r\n,\"\"\"\"",
			want: []string{`1/2 id="1" text="a \"b\"\r\nc, d\ne"`, `2/5 id="2" text=null`, `3/6 id=null text="\""`},
		},
		{
			name: "white space stays",
			file: "x.csv",
			text: "id,text\n 1 ,\" a \"\n",
			want: []string{`1/2 id=" 1 " text=" a "`},
		},
		{
			name: "blank lines",
			file: "x.csv",
			text: "\n\r\nid,text\n\n1,a\n\r\n\n2,b\n\n\r",
			want: []string{`1/5 id="1" text="a"`, `2/8 id="2" text="b"`},
		},
		{
			name: "one column with a field that is empty",
			file: "x.csv",
			text: "note\na\n\"\"\n\nb\n",
			want: []string{`1/2 note="a"`, `2/3 note=null`, `3/5 note="b"`},
		},
		{
			name:  "no header",
			file:  "x",
			text:  "1,a\n2,b\n",
			table: proto.Table{Columns: []string{"id", "text"}},
			want:  []string{`1/1 id="1" text="a"`, `2/2 id="2" text="b"`},
		},
		{
			name:  "no header, and a wrong row",
			file:  "x",
			text:  "1;a\n2;b;c\n",
			table: proto.Table{Columns: []string{"id", "text"}},
			want:  []string{`1/1 id="1" text="a"`, `2/2: it has 3 fields, and there are names for 2`},
		},
		{
			name: "some columns",
			file: "x.csv",
			text: "id,text,note\n1,a,\"b\"\"\"\n",
			only: []string{"note", "other"},
			want: []string{`1/2 id=null text=null note="b\""`},
		},
		{
			name: "wrong rows",
			file: "x.csv",
			text: "id,text\n1\n2,b,c\n3,5\" pipe\n4,\"a\"b\n5,\"a\nb\"c\n6,x\ry\n7,z\n",
			want: []string{
				"1/2: it has 1 field, and the header has 2",
				"2/3: it has 3 fields, and the header has 2",
				"3/4: " + errBareQuote.Error(),
				"4/5: " + errBehindQuote.Error(),
				"5/6: " + errBehindQuote.Error(),
				"6/8: " + errBareReturn.Error(),
				`7/9 id="7" text="z"`,
			},
		},
		{
			name: "a quote that never ends",
			file: "x.csv",
			text: "id,text\n1,a\n2,\"b\n3,c\n",
			want: []string{`1/2 id="1" text="a"`, "end: x.csv, row 2, line 3: " + errOpenQuote.Error()},
		},
		{name: "nothing", file: "x.csv"},
		{name: "a header alone", file: "x", text: "id,text\n"},
		{
			name: "a name twice",
			file: "x.csv",
			text: "id,text,id\n1,a,2\n",
			want: []string{
				`open: x.csv, line 1: the header has the column "id" twice, as columns 1 and 3; rename one of them`,
			},
		},
		{
			name: "a column without a name, as pandas writes its index",
			file: "x",
			text: ",text\n0,a\n",
			want: []string{`1/2 column_1="0" text="a"`},
		},
		{
			name: "several columns without names, as pandas writes those of an index of several levels",
			file: "x",
			text: "\"\",,text,column_2\n0,1,a,b\n",
			want: []string{`1/2 column_1="0" column_2_2="1" text="a" column_2="b"`},
		},
		{
			name: "columns of a spreadsheet that are empty",
			file: "x.csv",
			text: "id;text;;\r\n1;a;;\r\n2;b;;c\r\n",
			want: []string{
				`1/2 id="1" text="a" column_3=null column_4=null`, `2/3 id="2" text="b" column_3=null column_4="c"`,
			},
		},
		{
			name: "a header without names",
			file: "x.csv",
			text: ",,\nid,text,x\n",
			want: []string{
				"open: x.csv, line 1: the header has no names; write one into the first row, or give --columns",
			},
		},
		{
			name: "a NUL character",
			file: "x",
			text: "id,text\n1,a\x00b\n2,\"\x00\"\n",
			want: []string{`1/2 id="1" text="a\u0000b"`, `2/3 id="2" text="\u0000"`},
		},
		{
			name: "NUL characters in a text of which the name alone says that it is CSV",
			file: "x.csv",
			text: "note\n\x00\x00\n",
			want: []string{`1/2 note="\u0000\u0000"`},
		},
		{
			name:  "NUL characters as in UTF-16, and an encoding that says that it is none",
			file:  "x.csv",
			text:  "a\x00b\x00c\x00\n\x00d\x00\n\x00",
			table: proto.Table{Encoding: "utf-8"},
			want:  []string{`1/2 ` + "a\x00b\x00c\x00" + `="\u0000d\u0000"`, `2/3 ` + "a\x00b\x00c\x00" + `="\u0000"`},
		},
		{
			name:  "wrong bytes in a text that is said to be UTF-8",
			file:  "x",
			text:  "id,text\n1,a\n2,caf\xe9\n",
			table: proto.Table{Encoding: "utf-8"},
			want:  []string{`1/2 id="1" text="a"`, "2/3: it is not UTF-8"},
		},
		{
			name: "a header with a wrong quote",
			file: "x.csv",
			text: "id,te\"xt\n1,a\n",
			want: []string{"open: x.csv, line 1: the header is wrong: " + errBareQuote.Error()},
		},
		{
			name:  "an unknown encoding",
			file:  "x.csv",
			text:  "id,text\n1,a\n",
			table: proto.Table{Encoding: "klingon"},
			want: []string{
				`open: unknown encoding "klingon"; use a name such as windows-1252, utf-16le or shift_jis`,
			},
		},
		{
			name:  "a delimiter that is none",
			file:  "x.csv",
			text:  "id,text\n1,a\n",
			table: proto.Table{Delimiter: "--"},
			want:  []string{`open: the delimiter "--" is not one character, such as ; or a tab`},
		},
		{
			name:  "windows-1252",
			file:  "x.csv",
			text:  "id,text\n1,caf\xe9 \x80\n",
			table: proto.Table{Encoding: "windows-1252"},
			want:  []string{`1/2 id="1" text="café €"`},
		},
		{
			name:  "bytes that the encoding does not have",
			file:  "x.csv",
			text:  "id,text\n1,\x93\xfa\n2,\xff\xff\n",
			table: proto.Table{Encoding: "shift_jis"},
			want:  []string{`1/2 id="1" text="日"`, "2/3: it has bytes that are not shift_jis"},
		},
		{
			name: "UTF-16 with tabs, as Excel writes Unicode text",
			file: "x.txt",
			text: "\xff\xfe" + utf16Text("id\ttext\r\n1\té\U0001f600\r\n2\t\"b\nc\"\r\n", false),
			want: []string{`1/2 id="1" text="é😀"`, `2/3 id="2" text="b\nc"`},
		},
		{
			name: "UTF-16 in the other order",
			file: "x.csv",
			text: "\xfe\xff" + utf16Text("id,text\r\n1,é\r\n", true),
			want: []string{`1/2 id="1" text="é"`},
		},
		{
			name:  "UTF-16 without a mark, by its name",
			file:  "x.csv",
			text:  utf16Text("id,text\r\n1,é\r\n", false),
			table: proto.Table{Encoding: "UTF-16LE"},
			want:  []string{`1/2 id="1" text="é"`},
		},
		{
			name: "halves of surrogate pairs in UTF-16, and a file that ends in a character",
			file: "x.csv",
			text: "\xff\xfe" + utf16Text("id,text\n1,é\n2,a", false) + "\x3d\xd8" + utf16Text("b\n3,", false) +
				"\x00\xde" + utf16Text("\n4,\ufffd\n5,\U0001f600\n6,c", false) + "d",
			want: []string{
				`1/2 id="1" text="é"`,
				"2/3: it has bytes that are not UTF-16, as its byte-order mark says",
				"3/4: it has bytes that are not UTF-16, as its byte-order mark says",
				`4/5 id="4" text="�"`,
				`5/6 id="5" text="😀"`,
				"6/7: it has bytes that are not UTF-16, as its byte-order mark says",
			},
		},
		{
			name:  "half of a surrogate pair at the end, in the other order",
			file:  "x.csv",
			text:  utf16Text("id,text\n1,é\n2,a", true) + "\xd8\x3d",
			table: proto.Table{Encoding: "utf-16be"},
			want:  []string{`1/2 id="1" text="é"`, "2/3: it has bytes that are not utf-16be"},
		},
		{
			name:  "bytes that are not GB 18030",
			file:  "x.csv",
			text:  "id,text\n1,\xc4\xe3\x81\x30\x81\x30\n2,\xff\n3,\x84\x31\xa4\x37\n4,\x81\x30\x81\n5,\xc4",
			table: proto.Table{Encoding: "gb18030"},
			want: []string{
				"1/2 id=\"1\" text=\"你\u0080\"",
				"2/3: it has bytes that are not gb18030",
				`3/4 id="3" text="�"`,
				"4/5: it has bytes that are not gb18030",
				"5/6: it has bytes that are not gb18030",
			},
		},
		{
			name:  "a byte-order mark decides",
			file:  "x.csv",
			text:  "\xef\xbb\xbfid,text\n1,é\n",
			table: proto.Table{Encoding: "windows-1252"},
			want:  []string{`1/2 id="1" text="é"`},
		},
	})
}

// utf16Text returns a text in UTF-16.
func utf16Text(text string, big bool) string {
	var b strings.Builder
	for _, c := range utf16.Encode([]rune(text)) {
		low, high := byte(c), byte(c>>8)
		if big {
			low, high = high, low
		}
		b.Write([]byte{low, high})
	}

	return b.String()
}

// Text that is longer than the buffers of its decoder has the same characters.
func TestStrictDecoder(t *testing.T) {
	const damagedText = "\x3d\xd8\x41\x00"
	for name, bom := range map[string]string{"": "\xff\xfe", "utf-16le": ""} {
		var want []string
		text := bom + utf16Text("id,text\n", false)

		for i := range 3000 {
			filler := strings.Repeat("é\ufffd\U0001f600", i%7)
			text += utf16Text(fmt.Sprintf("%d,%s", i, filler), false)
			if i%100 == 99 {
				text += damagedText
				want = append(want, fmt.Sprint(i+1))
			}
			text += utf16Text("\n", false)
		}

		cfg := configOf("x.csv", text)
		cfg.Table.Encoding = name

		var wrong []string
		rows := 0
		r, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}

		for {
			_, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if fault, ok := errors.AsType[*RowError](err); ok {
				wrong = append(wrong, fmt.Sprint(fault.Number))
			} else if err != nil {
				t.Fatal(err)
			}
			rows++
		}

		r.Close()

		if rows != 3000 || !slices.Equal(wrong, want) {
			t.Errorf("%q: %d rows, wrong %q, want %q", name, rows, wrong, want)
		}
	}
}

// A text that is not sound beyond its beginning has wrong rows.
func TestCSVUnsoundText(t *testing.T) {
	t.Parallel()

	const count = startSize / 8
	cfg := configOf("x.csv", "id,text\n"+strings.Repeat("1,sound\n", count)+"7,\x00\n8,\xff\n9,z\n")
	rows, positions := readAll(t, cfg)
	want := []string{
		fmt.Sprintf(`%d/%d id="7" text="\u0000"`, count+1, count+2),
		fmt.Sprintf("%d/%d: it is not UTF-8", count+2, count+3),
		fmt.Sprintf(`%d/%d id="9" text="z"`, count+3, count+4),
	}
	if diff := cmp.Diff(want, rows[count:]); diff != "" {
		t.Errorf("the last rows differ (-want +got):\n%s", diff)
	}

	checkResumes(t, cfg, rows[count-1:], positions[count-1:])
}

// A row that is longer than the bound ends the file, also if it never ends.
func TestCSVLongRow(t *testing.T) {
	t.Parallel()

	for _, end := range []string{"", "\"\n2,b\n"} {
		cfg := configOf("x.csv", "id,text\n1,\""+strings.Repeat("x\n", jsonl.MaxLine/2)+end)
		rows, _ := readAll(t, cfg)
		want := []string{"end: x.csv, row 1, line 2: the row is longer than 64 MiB; is there a quote that never ends?"}
		if diff := cmp.Diff(want, rows); diff != "" {
			t.Errorf("the rows differ (-want +got):\n%s", diff)
		}
	}

	cell := strings.Repeat("x", jsonl.MaxLine-10)
	r, err := Open(t.Context(), configOf("x.csv", "id,text\n1,"+cell+"\n2,b\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	if row, err := r.Next(); err != nil || string(row.Values[1].Text) != cell {
		t.Errorf("the first row has the error %v, or another cell", err)
	}

	if row, err := r.Next(); err != nil || formatRow(row) != `2/3 id="2" text="b"` {
		t.Errorf("the second row is %s, %v", formatRow(row), err)
	}
}

// FuzzCSV compares the rows of CSV with those of encoding/csv, which has other line breaks in fields,
// and checks that reading continues at each position.
func FuzzCSV(f *testing.F) {
	addCSV(f, ',')
	f.Fuzz(func(t *testing.T, text string) { checkCSV(t, text, proto.FormatCSV, ',') })
}

// FuzzTSV does the same with tabs.
func FuzzTSV(f *testing.F) {
	addCSV(f, '\t')
	f.Fuzz(func(t *testing.T, text string) { checkCSV(t, text, proto.FormatTSV, '\t') })
}

// addCSV adds texts of CSV to the corpus.
func addCSV(f *testing.F, delimiter rune) {
	f.Helper()

	for _, text := range []string{
		"id,text\n1,a\n", "a,b\r\n\"x\"\"y\",\"1\r\n2\"\r\n", "a,b\n\n1,\"\"\n", "a\n\"b",
		"a,b\n1,2\"3\n\"4\"5,6\n7,8", "\xef\xbb\xbfa,b\n1,2", "a,b\n1,\r\n", "a\r\n\r", "\"a\n\n\",b\n,\n",
		",\"\",c\n1,\x00,2\n", "a,b\n\"\"\"\",\"x\"\"\"\n", "a,b\nx\ry,\"\r\"\n",
	} {
		f.Add(strings.ReplaceAll(text, ",", string(delimiter)))
	}
}

// checkCSV checks the rows of a text.
func checkCSV(t *testing.T, text, format string, delimiter rune) {
	t.Helper()

	cfg := configOf("x.csv", text)
	cfg.Table = proto.Table{Format: format, Delimiter: string(delimiter)}

	rows, positions := readAll(t, cfg)
	if len(positions) < 50 {
		checkResumes(t, cfg, rows, positions)
	}

	text = strings.TrimPrefix(text, "\xef\xbb\xbf")
	if !utf8.ValidString(text) || strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\r") {
		return
	}

	want, got := parseLikeStandard(text, delimiter), parseAll(text, delimiter)
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the fields differ from those of encoding/csv (-want +got):\n%s", diff)
	}
}

// parseLikeStandard returns the rows that encoding/csv finds, with "error" for a wrong row.
func parseLikeStandard(text string, delimiter rune) (rows [][]string) {
	r := csv.NewReader(strings.NewReader(text))
	r.Comma, r.FieldsPerRecord = delimiter, -1

	for {
		row, err := r.Read()
		switch {
		case errors.Is(err, io.EOF):
			return rows
		case err != nil:
			row = []string{"error"}
		}

		rows = append(rows, row)
	}
}

// parseAll returns the rows that the parser finds, with "error" for a wrong row.
func parseAll(text string, delimiter rune) (rows [][]string) {
	r := &csvReader{
		text:   &textFile{},
		buffer: rowBuffer{r: strings.NewReader(text)},
		parser: csvParser{delimiter: []byte(string(delimiter))},
	}

	for {
		row, err := r.nextRow()
		if errors.Is(err, io.EOF) {
			return rows
		}
		if err != nil {
			rows = append(rows, []string{"error"})
			if r.err != nil {
				return rows
			}
			continue
		}

		fields := []string{}
		for _, field := range r.parser.fields {
			value := r.parser.value(row, field)
			fields = append(fields, strings.ReplaceAll(string(value.Text), "\r\n", "\n"))
		}

		rows = append(rows, fields)
	}
}

// BenchmarkCSV reads rows of 1 KB with 5 columns, and compares with encoding/csv. On a busy
// machine, compare the rows a second of processor time.
func BenchmarkCSV(b *testing.B) {
	const rows = 20_000
	sentence := "The quick brown fox jumps over the dog. "

	for _, bb := range []struct{ name, cell string }{
		{"unquoted", strings.Repeat(sentence, 24)},
		{"quoted", `"` + strings.Repeat(strings.ReplaceAll(sentence, ".", ","), 24) + `"`},
		{"escaped", `"` + strings.Repeat(strings.ReplaceAll(sentence, "fox", `""fox""`), 22) + `"`},
		{"lines", `"` + strings.Repeat(strings.ReplaceAll(sentence, "dog. ", "dog.\n"), 24) + `"`},
		{"not ASCII", strings.Repeat("Über den Hügel springt der Füchs. ", 27)},
		{"short fields", strings.TrimSuffix(strings.Repeat("12345.67,", 20), ",")},
	} {
		var text bytes.Buffer
		text.WriteString("id,name,mail,text,date")

		for i := range strings.Count(bb.cell, ",") {
			if bb.cell[0] != '"' {
				fmt.Fprintf(&text, ",c%d", i)
			}
		}

		text.WriteString("\n")

		for i := range rows {
			fmt.Fprintf(&text, "%d,ticket-123456,customer@example.org,%s,2026-01-01\n", i, bb.cell)
		}

		b.Run(bb.name, func(b *testing.B) { benchmarkRows(b, text.Bytes(), rows, readRows) })
		b.Run(bb.name+" by encoding-csv", func(b *testing.B) { benchmarkRows(b, text.Bytes(), rows, readRecords) })
	}
}

// benchmarkRows reads the rows of CSV with a function that returns their number.
func benchmarkRows(b *testing.B, text []byte, rows int, read func(*testing.B, []byte) int) {
	b.Helper()

	b.SetBytes(int64(len(text)))
	b.ReportAllocs()

	start := processorTime(b)
	for b.Loop() {
		if got := read(b, text); got != rows {
			b.Fatalf("%d rows, want %d", got, rows)
		}
	}

	b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(rows*b.N)/(processorTime(b)-start).Seconds(), "rows/CPU-s")
}

// readRows reads rows with the reader of this package.
func readRows(b *testing.B, text []byte) (rows int) {
	b.Helper()

	r, err := Open(b.Context(), Config{Opener: memoryOpener(text), File: proto.File{Path: "x.csv"}})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()

	for ; ; rows++ {
		if _, err := r.Next(); err != nil {
			return rows
		}
	}
}

// readRecords reads rows with encoding/csv, and checks that they are UTF-8.
func readRecords(b *testing.B, text []byte) (rows int) {
	b.Helper()

	r := csv.NewReader(bytes.NewReader(text))
	r.ReuseRecord = true

	for ; ; rows++ {
		record, err := r.Read()
		if err != nil {
			return rows - 1 // the header
		}

		for _, field := range record {
			if !utf8.ValidString(field) {
				b.Fatal(field)
			}
		}
	}
}

// processorTime returns the processor time of this process.
func processorTime(b *testing.B) time.Duration {
	b.Helper()

	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}

	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
