package inputerror

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

const requests = `{"custom_id":"a","prompt":"hello"}` + "\n" + `{"custom_id":"b","prompt":"it's late"}` + "\n"

// TestConversions runs the command of each hint as it is printed. The file that it makes is
// valid, and has two requests.
func TestConversions(t *testing.T) {
	t.Parallel()

	objects := strings.TrimSpace(strings.Replace(requests, "\n", ",\n", 1))
	for _, tt := range []struct {
		// name is the name of the file, and made the name of the converted one.
		name, made string
		// text is the file, or else make is a shell command that makes it of requests.jsonl.
		text, make string
		// tools must be there.
		tools string
	}{
		{"q.csv", "q.jsonl", "id,what's asked\n1,\"What is it, \"\"really\"\"?\nNow\"\n2,\"bye\"\n", "", "python3"},
		{"semicolons.csv", "semicolons.jsonl", "\xef\xbb\xbfid;prompt\r\n1;a\r\n2;b\r\n", "", "python3"},
		{"bars.csv", "bars.jsonl", "id|prompt\n1|a, b\n2|\"c | d\"\n", "", "python3"},
		{"one.csv", "one.jsonl", "prompt\nhello\nbye\n", "", "python3"},
		{"t.tsv", "t.jsonl", "key\ttext\n1\ta\n2\tb\n", "", "python3"},
		{"in.csv.gz", "in.jsonl", prototest.Gzip(t, "id,prompt\n1,a\n2,b\n"), "", "python3 gzip"},
		{"array.json", "array.jsonl", "[\n" + objects + "\n]\n", "", "jq"},
		{"array.jsonl", "array.new.jsonl", "[" + objects + "]", "", "jq"},
		{"array.json.zst", "array.jsonl", prototest.Zstd(t, "["+objects+"]"), "", "jq zstd"},
		{"texts.json", "texts.jsonl", `["a","b"]`, "", "jq"},
		{"messages.json", "messages.jsonl",
			`[[{"role":"user","content":"a"}],[{"role":"user","content":"b"}]]`, "", "jq"},
		{"document.json", "document.jsonl", `{"my 'data'": [` + objects + "]}", "", "jq"},
		{"pretty.json", "pretty.jsonl", strings.ReplaceAll(requests, ",", ",\n  "), "", "jq"},
		{"utf16", "utf16.jsonl", "", "iconv -f UTF-8 -t UTF-16", "iconv"},
		{"utf16.txt", "utf16.jsonl", "", "iconv -f UTF-8 -t UTF-16BE", "iconv"},
		{"utf32.jsonl", "utf32.new.jsonl", "", "iconv -f UTF-8 -t UTF-32LE", "iconv"},
		{"in.jsonl.xz", "in.jsonl", "", "xz -c", "xz"},
		{"in.jsonl.bz2", "in.jsonl", "", "bzip2 -c", "bzip2"},
		{"in.jsonl.lz4", "in.jsonl", "", "lz4 -c", "lz4"},
		{"twice.jsonl.gz", "twice.jsonl", prototest.Gzip(t, prototest.Zstd(t, requests)), "", "gzip zstd"},
		{"in.zip", "in.jsonl", "", "zip -q", "zip unzip"},
		{"in.tar", "in.jsonl", "", "tar -cf - requests.jsonl", "tar"},
		{"in.tar.gz", "in.jsonl", "", "tar -czf - requests.jsonl", "tar gzip"},
		{"in.sqlite", "in.jsonl", "", "sqlite3 in.sqlite 'create table requests (prompt text); " +
			"insert into requests values (1), (2)'; cat in.sqlite", "sqlite3 jq"},
		{"it's.txt", "it's.jsonl", "What's a mill?\n\nWhat's a prompt?\n", "", "jq"},
		{"python.jsonl", "python.new.jsonl", "{'prompt': 'a'}\n{'prompt': \"b\"}\n", "", "python3"},
		{"anthropic.jsonl", "anthropic.new.jsonl", `{"custom_id":"a","params":{"system":"s","messages":[]}}` + "\n" +
			`{"custom_id":"b","params":{"messages":[]}}` + "\n", "", "jq"},
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
				tt.text = runShell(t, dir, requests, tt.make)
			}

			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}

			_, _, err := producer.Validate(
				t.Context(), producer.Source{Files: []string{path}}, proto.Settings{Model: "m"}, nil,
			)
			format, ok := errors.AsType[*producer.FormatError](err)
			if !ok {
				t.Fatalf("error %v", err)
			}

			made := filepath.Join(dir, tt.made)
			h := conversionOf(format.Detection).hint(path, format.Compression)
			if !strings.HasSuffix(h.text, " it, and give "+made+": ") {
				t.Fatalf("hint %s; want one that makes %s", h.text, made)
			}

			runShell(t, dir, "", h.command)

			in, report, err := producer.Validate(
				t.Context(), producer.Source{Files: []string{made}}, proto.Settings{Model: "m"}, nil,
			)
			if err != nil || report.Count > 0 || in.Requests != 2 {
				t.Errorf("%s makes %d requests, %d of them bad, error %v", h.command, in.Requests, report.Count, err)
			}
		})
	}
}

// runShell runs a shell command with a text as requests.jsonl and as its standard input.
func runShell(t *testing.T, dir, text, command string) string {
	t.Helper()

	if err := os.WriteFile(filepath.Join(dir, "requests.jsonl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command("sh", "-c", command)
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, strings.NewReader(text), os.Stderr

	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}

	return string(out)
}

func TestHintsWithoutCommand(t *testing.T) {
	t.Parallel()

	const example = `write each request as a JSON object on one line, such as {"prompt": "..."}`
	for _, tt := range []struct{ name, text, file, stdin string }{
		{"in.7z", "7z\xbc\xaf\x27\x1c\x00\x04", "unpack it, and give DIR/in.jsonl: 7z x -so DIR/in.7z > DIR/in.jsonl",
			"save it as a file, and give that"},
		{"in.parquet", "PAR1\x15\x04\x15", "convert it, and give DIR/in.jsonl: python3 -c 'import pandas, sys; " +
			`pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], orient="records", lines=True)' DIR/in.parquet DIR/in.jsonl`,
			"save it as a file, and give that"},
		{"in.feather.gz", prototest.Gzip(t, "ARROW1\x00\x00"),
			"unpack it, and give DIR/in.feather: gzip -dc DIR/in.feather.gz > DIR/in.feather",
			"save it as a file, and give that"},
		{"in.tar", "in.jsonl" + strings.Repeat("\x00", 249) + "ustar\x0000",
			"unpack it, and give DIR/in.jsonl: tar -xOf DIR/in.tar > DIR/in.jsonl",
			"pipe it through this command first: tar -xOf -"},
		{"in.xlsx", "PK\x03\x04[Content_Types].xml xl/workbook.xml",
			"save its sheet as CSV, and give that",
			"save its sheet as CSV, and give that"},
		{"in.yaml", "- prompt: a\n", "convert it, and give DIR/in.jsonl: python3 -c 'import json, sys, yaml; " +
			"[print(json.dumps(r)) for d in yaml.safe_load_all(sys.stdin) for r in (d if isinstance(d, list) else [d])]' " +
			"< DIR/in.yaml > DIR/in.jsonl",
			"pipe it through this command first: python3 -c 'import json, sys, yaml; " +
				"[print(json.dumps(r)) for d in yaml.safe_load_all(sys.stdin) for r in (d if isinstance(d, list) else [d])]'"},
		{"in.strings", "\"a\"\n",
			"convert it, and give DIR/in.jsonl: jq -c '{messages: [{role: \"user\", content: .}]}' DIR/in.strings > DIR/in.jsonl",
			"pipe it through this command first: jq -c '{messages: [{role: \"user\", content: .}]}'"},
		{"in.html", "<!doctype html>", "look at its beginning: it may be the error page of a download",
			"look at its beginning: it may be the error page of a download"},
		{"in.pdf", "%PDF-1.7\n", example, example},
		{"in.bin", "\x00\x01", example, example},
		{"latin1.txt", "caf\xe9\n",
			"convert it, and give DIR/latin1.jsonl: iconv -f WINDOWS-1252 -t UTF-8 DIR/latin1.txt > DIR/latin1.jsonl",
			"pipe it through this command first: iconv -f WINDOWS-1252 -t UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			path := filepath.Join(dir, tt.name)
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}

			_, _, err := producer.Validate(
				t.Context(), producer.Source{Files: []string{path}}, proto.Settings{Model: "m"}, nil,
			)
			for _, in := range []struct {
				Input
				want string
			}{
				{Input{Files: []string{path}}, strings.ReplaceAll(tt.file, "DIR", dir)},
				{Input{Files: []string{path}, Stdin: true}, tt.stdin},
			} {
				described := in.Describe(err)
				if got := exit.Hint(described); got != in.want || exit.Code(described) != exit.CodeUsage {
					t.Errorf("stdin %t: hint\n%s\nwant\n%s", in.Stdin, got, in.want)
				}
			}
		})
	}
}
