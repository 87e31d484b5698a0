package fileformat

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto/prototest"
)

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

// utf32Text returns a text of ASCII in UTF-32.
func utf32Text(text string, big bool) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if big {
			b.Write([]byte{0, 0, 0, c})
		} else {
			b.Write([]byte{c, 0, 0, 0})
		}
	}

	return b.String()
}

const (
	request = `{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"messages":[]}}` + "\n"
	answer  = `{"id":"batch_req_20261128-214735-w6v9_0","custom_id":"a","response":{"status_code":200},"error":null}` +
		"\n"
	failure = `{"id":"batch_req_20261128-214735-w6v9_1","custom_id":"b","response":null,"error":{"code":"timeout"}}` +
		"\n"
)

func TestDetect(t *testing.T) {
	t.Parallel()

	certain := func(f Format) Detection { return Detection{Format: f, Certain: true} }
	transposed := Detection{Format: JSONDocument, Transposed: true}
	marked := func(f Format) Detection { return Detection{Format: f, Certain: true, ByteOrderMark: true} }

	for _, tt := range []struct {
		name, text string
		want       Detection
	}{
		{"nothing", "", Detection{}},
		{"blank lines", "\xef\xbb\xbf\r\n \n", Detection{}},
		{"requests", request + request, Detection{}},
		{"a byte-order mark", "\xef\xbb\xbf" + request, Detection{}},
		{"bodies", `{"messages":[{"role":"user","content":"hi"}]}`, Detection{}},
		{"objects that are no requests", `{"question":"a"}` + "\n" + `{"question":"b"}`, Detection{}},
		{"a broken first line", `{"prompt":"no end` + "\n" + request, Detection{}},
		{"a broken only line", `{"prompt":"no end` + "\n", Detection{}},
		{"a cut first line", `{"prompt":"a",` + "\n" + request, Detection{}},
		{"a comment before requests", "# exported today\n" + request, Detection{}},
		{"names of columns before requests", "id,prompt\n1,2\n" + request, Detection{}},
		{"a bracket before requests", "[\n" + request + request, Detection{}},
		{"an array before requests", "[1]\n" + request, Detection{}},
		{"arrays", "[1,2]\n[3,4]\n", Detection{}},
		{"columns of pandas", `{"text":{"0":"a","1":"b"},"prompt":{"0":1,"1":2}}` + "\n", transposed},
		{"one column of pandas", `{"text":{"0":"a"}}`, transposed},
		{"rows by the index of pandas", `{"a":{"text":"x","n":1},"b":{"text":"y","n":2}}`, transposed},
		{"a split table of pandas", `{"columns":["text"],"index":[0,1],"data":[["a"],["b"]]}`, transposed},
		{"a table of pandas with its schema", `{"schema":{"fields":[]},"data":[{"index":0,"text":"a"}]}`, transposed},
		{"columns of pandas over lines", "{\n\"text\":{\n\"0\":\"a\"}}",
			Detection{Format: JSONDocument, Certain: true, Transposed: true}},
		{"a row with a struct", `{"text":{"title":"a"}}`, Detection{}},
		{"a row with different structs", `{"a":{"x":1},"b":{"y":2}}`, Detection{}},
		{"rows with structs", `{"a":{"x":1},"b":{"x":2}}` + "\n" + `{"a":{"x":1},"b":{"x":2}}`, Detection{}},
		{"a row with structs and a text", `{"a":{"x":1},"b":{"x":2},"c":"d"}`, Detection{}},
		{"an array that was cut", "[\n" + request, Detection{Format: JSONArray, Element: '{'}},
		{"an array", `[{"prompt":"a"},{"prompt":"b"}]` + "\n",
			Detection{Format: JSONArray, Certain: true, Element: '{'}},
		{"an array over lines", "\n [\n" + strings.TrimSpace(request) + ",\n" + request + "]\n",
			Detection{Format: JSONArray, Certain: true, Element: '{'}},
		{"an array of texts", `["a","b"]`, Detection{Format: JSONArray, Certain: true, Element: '"'}},
		{"an empty array", "[]", Detection{Format: JSONArray, Certain: true}},
		{"text in brackets", "[INFO] it starts\n[INFO] it ends\n", Detection{Format: Text}},
		{"a document over lines", "{\n  \"messages\": [\n  ]\n}\n", certain(JSONDocument)},
		{"documents over lines", "{\n  \"prompt\": \"a\"\n}\n{\n  \"prompt\": \"b\"\n}\n", certain(JSONDocument)},
		{"a document around an array", "{\n \"count\": 2,\n \"requests\": [{\"prompt\":\"a\"},\n{\"prompt\":\"b\"}]\n}",
			Detection{Format: JSONDocument, Certain: true, Member: "requests"}},
		{"a document around an array on one line", `{"data":[{"prompt":"a"}]}`,
			Detection{Format: JSONDocument, Member: "data"}},
		{"a conversation", `{"conversations":[{"from":"human","value":"a"}]}`, Detection{}},
		{"metadata", "{\n \"schema_version\": 1,\n \"test_id\": \"20261128-x\"\n}",
			Detection{Format: Metadata, Certain: true, Run: "20261128-x"}},
		{"answers", answer + answer, Detection{Format: Results, Run: "20261128-214735-w6v9"}},
		{"failed requests", failure + failure, Detection{Format: Failures, Run: "20261128-214735-w6v9"}},
		{"answers of a service", `{"id":"batch_req_abc","custom_id":"a","response":{},"error":null}`,
			Detection{Format: Results}},
		{"requests of another service", `{"custom_id":"a","params":{"messages":[]}}` + "\n",
			Detection{Format: AnthropicBatch}},
		{"answers of another service", `{"custom_id":"a","result":{"type":"succeeded"}}` + "\n",
			Detection{Format: Results}},
		{"Python dictionaries", "{'prompt': 'a'}\n{'prompt': 'b'}\n", Detection{Format: PythonLines}},
		{"CSV", "id,prompt\n1,\"hello, you\nthere\"\n2,bye\n",
			Detection{Format: CSV, Columns: []string{"id", "prompt"}, Delimiter: ',', Prompt: 1, ID: 0}},
		{"CSV with semicolons", "\xef\xbb\xbfname;frage\r\na;wie lang?\r\nb;wie breit?\r\n",
			Detection{Format: CSV, Columns: []string{"name", "frage"}, Delimiter: ';', Prompt: 1, ID: -1}},
		{"CSV of one column", "Prompt\nhello\nbye\n",
			Detection{Format: CSV, Columns: []string{"Prompt"}, Delimiter: ',', ID: -1}},
		{"TSV", "key\ttext\n1\thello, you\n",
			Detection{Format: TSV, Columns: []string{"key", "text"}, Delimiter: '\t', Prompt: 1, ID: 0}},
		{"YAML", "# prompts\n- prompt: a\n- prompt: b\n", Detection{Format: YAML}},
		{"a YAML mapping", "prompt: hi\nmodel: x\nmax_tokens: 5\n", Detection{Format: YAML}},
		{"a YAML mapping with a list", "# one\nmessages:\n- role: user\n  content: hi\n", Detection{Format: YAML}},
		{"a text with a colon", "prompt: hi\nHow are you?\n", Detection{Format: Text}},
		{"a dialogue", "user: hi\nassistant: hello\n", Detection{Format: Text}},
		{"JSON strings", "\"hello, you\"\n\n\"say \\\"hi\\\", please\"\n", Detection{Format: JSONStrings}},
		{"a YAML document", "---\nprompt: a\n", Detection{Format: YAML}},
		{"HTML", "<!DOCTYPE html>\n<html>404</html>", Detection{Format: Markup}},
		{"text", "What is a mill?\nWhat is a prompt?\n", Detection{Format: Text}},
		{"text with commas", "Hello, you\nHello, me\n", Detection{Format: Text}},
		{"one line of text", "hello", Detection{Format: Text}},
		{"a list", "- one thing\n- another\n", Detection{Format: Text}},
		{"text in Latin-1", "caf\xe9\nna\xefve\n", Detection{Format: OtherText}},
		{"UTF-16", "\xff\xfe" + utf16Text(request, false), marked(UTF16LE)},
		{"UTF-16, big end first", "\xfe\xff" + utf16Text(request, true), marked(UTF16BE)},
		{"UTF-16 without a mark", utf16Text(request, false), certain(UTF16LE)},
		{"UTF-16 without a mark, big end first", utf16Text(request, true), certain(UTF16BE)},
		{"UTF-32", "\xff\xfe\x00\x00" + utf32Text(request, false), marked(UTF32LE)},
		{"UTF-32, big end first", "\x00\x00\xfe\xff" + utf32Text(request, true), marked(UTF32BE)},
		{"UTF-32 without a mark", utf32Text(request, false), certain(UTF32LE)},
		{"UTF-32 without a mark, big end first", utf32Text(request, true), certain(UTF32BE)},
		{"gzip", prototest.Gzip(t, request), certain(Gzip)},
		{"zstd", prototest.Zstd(t, request), certain(Zstd)},
		{"a skippable frame of zstd", "\x50\x2a\x4d\x18\x02\x00\x00\x00xx", certain(Zstd)},
		{"no skippable frame", "\x40\x2a\x4d\x18\x02\x00\x00\x00xx", certain(Binary)},
		{"xz", "\xfd7zXZ\x00\x00\x04", certain(XZ)},
		{"bzip2", "BZh91AY&SY", certain(Bzip2)},
		{"text like bzip2", "BZi91AY&SY", Detection{Format: Text}},
		{"lz4", "\x04\x22\x4d\x18\x64", certain(LZ4)},
		{"zip", "PK\x03\x04\x14\x00", certain(Zip)},
		{"a workbook", "PK\x03\x04\x14\x00[Content_Types].xml....xl/workbook.xml", certain(Spreadsheet)},
		{"7z", "7z\xbc\xaf\x27\x1c\x00\x04", certain(SevenZip)},
		{"tar", "in.jsonl" + strings.Repeat("\x00", 249) + "ustar\x0000" + strings.Repeat("\x00", 248) + request,
			certain(Tar)},
		{"Parquet", "PAR1\x15\x04\x15", certain(Parquet)},
		{"Arrow", "ARROW1\x00\x00\xff\xff", certain(Arrow)},
		{"SQLite", "SQLite format 3\x00\x10", certain(SQLite)},
		{"PDF", "%PDF-1.7\n", certain(PDF)},
		{"a program", "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00", certain(Binary)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if diff := cmp.Diff(tt.want, Detect([]byte(tt.text), true)); diff != "" {
				t.Errorf("detection (-want +got):\n%s", diff)
			}
		})
	}
}

// The beginning of a longer file may end anywhere.
func TestDetectBeginning(t *testing.T) {
	t.Parallel()

	line := strings.TrimSpace(request)
	for _, tt := range []struct {
		name, text string
		want       Detection
	}{
		{"a long request", `{"custom_id":"a","url":"/v1/score","body":{"text_1":"abc`, Detection{}},
		{"long columns of pandas", `{"text":{"0":"a","1":"b`, Detection{Format: JSONDocument, Transposed: true}},
		{"the second of long columns", `{"text":{"x":1,"y":2,"z":3},"n":{"x":1,"y`,
			Detection{Format: JSONDocument, Transposed: true}},
		{"a long struct", `{"text":{"title":"abc`, Detection{}},
		{"a long body", `{"messages":[{"role":"user","content":"abc`, Detection{}},
		{"a long answer", `{"id":"x","custom_id":"a","response":{"body":{"choices":[`, Detection{Format: Results}},
		{"an array", "[\n" + line + ",\n" + line + ",\n" + line[:20],
			Detection{Format: JSONArray, Certain: true, Element: '{'}},
		{"an array on one line", "[" + line + "," + line + "," + line[:20], Detection{Format: JSONArray, Element: '{'}},
		{"an array whose first element is long", "[\n" + line[:40], Detection{Format: JSONArray, Element: '{'}},
		{"a document", "{\n\"data\": [\n" + line + ",\n" + line[:40],
			Detection{Format: JSONDocument, Certain: true, Member: "data"}},
		{"CSV", "a,b\n1,22\n3,4\n5",
			Detection{Format: CSV, Columns: []string{"a", "b"}, Delimiter: ',', Prompt: 1, ID: -1}},
		{"text cut in a character", "caf\xc3", Detection{Format: Text}},
		{"text that is not UTF-8", "caf\xc3 cr\xe9me", Detection{Format: OtherText}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if diff := cmp.Diff(tt.want, Detect([]byte(tt.text), false)); diff != "" {
				t.Errorf("detection (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFindPrompt(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		names []string
		want  string
	}{
		{[]string{"id", "Question", "lang"}, "Question"},
		{[]string{"text", "prompt"}, "prompt"},
		{[]string{"id", "frage"}, "frage"},
		{[]string{"lang", "frage"}, ""},
		{[]string{"id"}, ""},
		{nil, ""},
	} {
		if got := FindPrompt(tt.names); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.names, got, tt.want)
		}
	}
}

func TestFormatNames(t *testing.T) {
	t.Parallel()

	for f := JSONL; f <= AnthropicBatch; f++ {
		if f.String() == "" {
			t.Errorf("format %d has no name", f)
		}
	}
}

// Whatever the text, the first line of JSON lines that is an object with a body is enough.
func FuzzDetect(f *testing.F) {
	for _, text := range []string{
		"", request, answer, failure, "[1]", "[\n{}\n]", "{\n\"a\":[{\n", "a,b\n1,2\n", "- a: b", "\xff\xfe{\x00",
		"caf\xe9", "{'a'",
		"PK\x03\x04", "a\x00b\x00", `{"data":[{}]}`, "\xe2\x82", "[", "{", "\"", "a\tb\n\tc\n",
	} {
		f.Add([]byte(text))
	}

	f.Fuzz(func(t *testing.T, text []byte) {
		for _, whole := range []bool{true, false} {
			d := Detect(text, whole)
			if d.Format < JSONL || d.Format > AnthropicBatch {
				t.Fatalf("format %d", d.Format)
			}

			if isTable := d.Format == CSV || d.Format == TSV; isTable != (len(d.Columns) > 0) ||
				isTable && (d.Prompt < 0 || d.Prompt >= len(d.Columns) || d.ID < -1 || d.ID >= len(d.Columns)) {
				t.Fatalf("table %+v", d)
			}

			if d.Certain && d.Format == JSONArray && whole && !json.Valid(text) &&
				json.Valid([]byte(strings.ToValidUTF8(string(text), "?"))) {
				t.Fatalf("%q is no JSON array", text)
			}
		}

		if d := Detect(append([]byte(request), text...), true); d.Format != JSONL && d.Format != Tar &&
			d.Format != Binary &&
			!strings.HasPrefix(d.Format.String(), "UTF") {
			t.Fatalf("a request and %q is %s", text, d.Format)
		}
	})
}
