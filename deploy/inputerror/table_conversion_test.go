package inputerror

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/producer/fileformat"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// readTable returns the cells of a file, or the error of reading it.
func readTable(t *testing.T, path string, how proto.Table) (cells string, err error) {
	t.Helper()

	file, err := inputfile.Local{}.Stat(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}

	r, err := table.Open(t.Context(), table.Config{
		Opener: inputfile.Local{},
		File:   file,
		Table:  how,
	})
	if err != nil {
		return "", err
	}
	defer r.Close()

	var b strings.Builder
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}

		for i, v := range row.Values {
			fmt.Fprintf(&b, "%s=%s ", row.Columns[i].Name, v.AppendText(nil))
		}
	}
}

// TestTableConversions runs the command of each hint for a file that is no table. The file that it
// makes is one.
func TestTableConversions(t *testing.T) {
	t.Parallel()

	const rows = "id,text\n1,a\n2,é\n"
	const same = "id=1 text=a id=2 text=é "

	for _, tt := range []struct {
		// name is the name of the file, and made the name of the converted one.
		name, made string
		// text is the file, or else make is a shell command that makes it of the rows.
		text, make string
		// tools must be there.
		tools string
		// want are the cells of the converted file.
		want string
	}{
		{"in.csv.xz", "in.csv", "", "xz -c", "xz", same},
		{"in.csv.bz2", "in.csv", "", "bzip2 -c", "bzip2", same},
		{"in.csv.lz4", "in.csv", "", "lz4 -c", "lz4", same},
		{"twice.csv.gz", "twice.csv", prototest.Gzip(t, prototest.Zstd(t, rows)), "", "gzip zstd", same},
		{"in.zip", "in", "", "zip -q", "zip unzip", same},
		{"in.csv.zip", "in.csv", "", "zip -q", "zip unzip", same},
		{"in.tar.gz", "in", "", "tar -czf - requests.jsonl", "tar gzip", same},
		{"utf32.csv", "utf32.new.csv", "", "iconv -f UTF-8 -t UTF-32", "iconv", same},
		{"mac.csv", "mac.new.csv", strings.ReplaceAll(rows, "\n", "\r"), "", "tr", same},
		{"mac.csv.gz", "mac.csv", prototest.Gzip(t, strings.ReplaceAll(rows, "\n", "\r")), "", "tr gzip", same},
		{"in.sqlite", "in.json", "", "sqlite3 in.sqlite \"create table requests (id int, text text); " +
			"insert into requests values (1, 'a'), (2, 'é')\"; cat in.sqlite", "sqlite3", same},
		{"texts.json", "texts.jsonl", `["a","b"]`, "", "jq", "text=a text=b "},
		{"strings.txt", "strings.jsonl", "\"hello\"\n\"bye\"\n", "", "jq", "text=hello text=bye "},
		{"numbers.json", "numbers.jsonl", `[1,2]`, "", "jq", "value=1 value=2 "},
		{"document.json", "document.jsonl", "{\n\"rows\": [{\"id\":1},\n{\"id\":2}]}", "", "jq", "id=1 id=2 "},
		{"python.txt", "python.jsonl", "{'id': 1}\n{'id': 2}\n", "", "python3", "id=1 id=2 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			for tool := range strings.FieldsSeq(tt.tools) {
				if _, err := exec.LookPath(tool); err != nil {
					t.Skip(err)
				}
			}

			dir := t.TempDir()
			path := filepath.Join(dir, tt.name)

			if tt.make != "" {
				tt.text = runShell(t, dir, rows, tt.make)
			}
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}

			_, err := readTable(t, path, proto.Table{})
			format, ok := errors.AsType[*table.FormatError](err)
			if !ok {
				t.Fatalf("error %v", err)
			}

			made := filepath.Join(dir, tt.made)
			h := Input{Files: []string{path}}.hintForNoTable(format)
			if !strings.HasSuffix(h.text, " it, and give "+made+": ") {
				t.Fatalf("hint %s; want one that makes %s", h.text, made)
			}

			runShell(t, dir, rows, h.command)

			if got, err := readTable(t, made, proto.Table{}); err != nil || got != tt.want {
				t.Errorf("%s makes a table of %s, error %v; want %s", h.command, got, err, tt.want)
			}
		})
	}
}

func TestTableHintsWithoutConversion(t *testing.T) {
	t.Parallel()

	const save = "save it as CSV, JSON lines or Parquet, and give that"
	csv := proto.Table{Format: proto.FormatCSV}

	for _, tt := range []struct {
		name, text string
		table      proto.Table
		err, hint  string
	}{
		{
			name: "in.xlsx",
			text: "PK\x03\x04[Content_Types].xml xl/workbook.xml",
			err:  "looks like an Excel workbook; promptmill reads tables of",
			hint: "save its sheet as CSV, and give that",
		},
		{
			name: "in.bin",
			text: "\x00\x01\xff",
			err:  "looks like a binary file; promptmill reads tables of",
			hint: save,
		},
		{
			name: "in.feather",
			text: "ARROW1\x00\x00",
			err:  "looks like an Arrow file; promptmill reads tables of",
			hint: "convert it, and give DIR/in.parquet: python3 -c 'import pandas, sys; " +
				"pandas.read_feather(sys.argv[1]).to_parquet(sys.argv[2])' DIR/in.feather DIR/in.parquet",
		},
		{
			name:  "in.parquet",
			text:  "PAR1\x15\x04\x15",
			table: csv,
			err:   "looks like a Parquet file, and not like CSV",
			hint:  "leave out --format",
		},
		{
			name:  "in.csv.xz",
			text:  "\xfd7zXZ\x00\x00\x04",
			table: csv,
			err:   "looks like an xz file, and not like CSV",
			hint:  "unpack it, and give DIR/in.csv: xz -dc DIR/in.csv.xz > DIR/in.csv",
		},
		{
			name: "latin1.csv",
			text: "id,text\n1,caf\xe9\n",
			err:  "is text that is not UTF-8, and its encoding is not given",
			hint: "name it, for example --encoding windows-1252",
		},
		{
			name: "utf16.csv",
			text: "i\x00d\x00,\x00t\x00\n\x001\x00,\x002\x00\n\x00",
			err:  "is UTF-16 text without a byte-order mark, and its encoding is not given",
			hint: "give --encoding utf-16le",
		},
		{
			name: "results.jsonl",
			text: `{"id":"batch_req_20261128-214735-w6v9_0","custom_id":"a","response":{"status_code":200},"error":null}`,
			err:  "has answers of run 20261128-214735-w6v9, not rows to ask about",
			hint: "give the input of that run; its command with --retry runs the failed requests again",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			path := filepath.Join(dir, tt.name)
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}

			_, err := readTable(t, path, tt.table)

			described := Input{Files: []string{path}}.Describe(err)
			if !strings.HasPrefix(described.Error(), path+" "+tt.err) || exit.Code(described) != exit.CodeUsage {
				t.Errorf("error %v; want %s", described, tt.err)
			}

			want := strings.ReplaceAll(tt.hint, "DIR", dir)
			if got := exit.Hint(described); got != want {
				t.Errorf("hint %s; want %s", got, want)
			}
		})
	}
}

// A file elsewhere is downloaded first.
func TestTableConversionOfURL(t *testing.T) {
	t.Parallel()

	h := Input{}.hintForNoTable(&table.FormatError{
		File:      "https://example.org/in.csv.xz?x=1",
		Detection: fileformat.Detection{Format: fileformat.XZ},
	})

	want := "download it, unpack it, and give in.csv: xz -dc in.csv.xz > in.csv"
	if h.text+h.command != want {
		t.Errorf("hint %s%s; want %s", h.text, h.command, want)
	}
}
