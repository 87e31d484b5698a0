package table

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
)

func TestJSON(t *testing.T) {
	t.Parallel()

	testRows(t, []rowTest{
		{
			name: "values of all kinds",
			file: "x",
			text: `{"a":1.50,"b":"x\n\"y\u00e9","c":true,"d":null,"e":[1, 2],"f":{"g":12345678901234567890}}` + "\n",
			want: []string{
				`1/1 a=1.50 b="x\n\"yé" c=true d=null e=[1, 2] f={"g":12345678901234567890}`,
			},
		},
		{
			name: "rows with other columns",
			file: "x.jsonl",
			text: "{\"a\":1}\r\n\n{\"a\":2,\"b\":3}\n{\"b\":4}\n{}\n{\"b\":5}",
			want: []string{`1/1 a=1`, `2/3 a=2 b=3`, `3/4 b=4`, `4/5`, `5/6 b=5`},
		},
		{
			name: "wrong rows",
			file: "x.jsonl",
			text: "{\"a\":1}\n[1]\n{\"a\":1,\"b\":2,\"\\u0061\":3}\n{\"a\":\"\\ud83d\"}\n{\"a\":1\n{\"a\":nul}\n" +
				"{\"a\":1} x\n{\"a\":\"\xff\"}\n{\"a\":2}\n",
			want: []string{
				`1/1 a=1`,
				`2/2: it is not a JSON object`,
				`3/3: it has "a" twice`,
				`4/4: column "a" has half of a surrogate pair, which no text can hold`,
				`5/5: it ends in the middle of its JSON, after 6 bytes`,
				`6/6: it is not JSON, at byte 9, near "}"`,
				`7/7: it has text after its JSON object, at byte 9`,
				`8/8: it is not UTF-8, at byte 7`,
				`9/9 a=2`,
			},
		},
		{
			name: "some columns",
			file: "x.jsonl",
			text: "{\"a\":1,\"b\":\"\\n\"}\n",
			only: []string{"b", "c"},
			want: []string{`1/1 a=null b="\n"`},
		},
		{
			name: "an array",
			file: "x.json",
			text: "\xef\xbb\xbf [ {\"a\":1} ,\n{\"a\": \"x\",\"b\":[]}\n, {} ] \n",
			want: []string{`1/0 a=1`, `2/0 a="x" b=[]`, `3/0`},
		},
		{
			name: "an empty array",
			file: "x.json",
			text: "[]\n",
		},
		{
			name: "an array with wrong rows",
			file: "x.json",
			text: "[{\"a\":1},2,{\"a\":1,\"a\":2},{\"a\":\"\xff\"},{\"a\":3}]",
			want: []string{
				`1/0 a=1`, `2/0: it is not a JSON object`, `3/0: it has "a" twice`, `4/0: it is not UTF-8, at byte 7`,
				`5/0 a=3`,
			},
		},
		{
			name:  "an array that is cut off",
			file:  "x.json",
			text:  "[{\"a\":1},\n{\"a\":2},",
			table: proto.Table{Format: proto.FormatJSON},
			want:  []string{`1/0 a=1`, `2/0 a=2`, "end: x.json, row 3: the file ends in the middle of its JSON array"},
		},
		{
			name:  "an array with a comma too many",
			file:  "x.json",
			text:  "[{\"a\":1},]",
			table: proto.Table{Format: proto.FormatJSON},
			want:  []string{`1/0 a=1`, "end: x.json, row 2: it is not JSON, at byte 9 of the file"},
		},
		{
			name:  "text behind an array",
			file:  "x.json",
			text:  "[{\"a\":1}]\n[]",
			table: proto.Table{Format: proto.FormatJSON},
			want:  []string{`1/0 a=1`, "end: x.json: text follows the JSON array, which ends at byte 9"},
		},
		{
			name:  "no array",
			file:  "x.json",
			text:  "{\"a\":1}",
			table: proto.Table{Format: proto.FormatJSON},
			want:  []string{"end: x.json: it is not a JSON array"},
		},
	})
}

// The columns of JSON are those of the first good row, also if it is longer than the beginning.
func TestJSONColumns(t *testing.T) {
	t.Parallel()

	long := `{"a":"` + strings.Repeat("x", 2*startSize) + `","b":1}`
	for _, text := range []string{
		"{\"a\":1,\"b\":2}\n", "{\"a\":\n{\"a\":1,\"b\":2}\n{\"c\":1}\n", long + "\n{}\n", "[" + long + ",{}]",
		"[1," + long + "]",
	} {
		cfg := configOf("x", text)
		if strings.HasPrefix(text, "[") {
			cfg.Table.Format = proto.FormatJSON
		}

		r, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()

		if diff := cmp.Diff([]Column{{Name: "a"}, {Name: "b"}}, r.Columns()); diff != "" {
			t.Errorf("the columns of %.40s differ (-want +got):\n%s", text, diff)
		}
	}
}

// Rows with the same columns share them.
func TestJSONSharedColumns(t *testing.T) {
	t.Parallel()

	r, err := Open(t.Context(), configOf("x", "{\"a\":1,\"b\":2}\n{\"a\":3,\"b\":4}\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	first, err := r.Next()
	second, err2 := r.Next()
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}

	if &first.Columns[0] != &second.Columns[0] {
		t.Error("the rows have different columns")
	}
}

// An element that is longer than the bound ends the file.
func TestJSONArrayLongRow(t *testing.T) {
	t.Parallel()

	cfg := configOf("x", `[{"a":1},{"a":"`+strings.Repeat("x", maxBuffer+startSize)+`"}]`)
	cfg.Table.Format = proto.FormatJSON

	rows, _ := readAll(t, cfg)
	if diff := cmp.Diff([]string{`1/0 a=1`, "end: x, row 2: the row is longer than 64 MiB"}, rows); diff != "" {
		t.Errorf("the rows differ (-want +got):\n%s", diff)
	}
}

func TestText(t *testing.T) {
	t.Parallel()

	testRows(t, []rowTest{
		{
			name: "lines",
			file: "x.txt",
			text: "\xef\xbb\xbfWhat is a mill?\r\n\n \t\nSay \"hi\", please\n  indented",
			want: []string{
				`1/1 text="What is a mill?"`, `2/4 text="Say \"hi\", please"`, `3/5 text="  indented"`,
			},
		},
		{
			name:  "lines that look like CSV",
			file:  "x",
			text:  "id,text\n1,a\n",
			table: proto.Table{Format: proto.FormatText},
			want:  []string{`1/1 text="id,text"`, `2/2 text="1,a"`},
		},
		{
			name: "UTF-16",
			file: "x.txt",
			text: "\xff\xfe" + utf16Text("Was ist eine Mühle?\r\nUnd ein Müller?\r\n", false),
			want: []string{`1/1 text="Was ist eine Mühle?"`, `2/2 text="Und ein Müller?"`},
		},
	})

	cfg := configOf("x.txt", "one line of text\n"+strings.Repeat("x", jsonl.MaxLine+1)+"\nand another one\n")
	rows, _ := readAll(t, cfg)
	want := []string{`1/1 text="one line of text"`, `2/2: it is longer than 64 MiB`, `3/3 text="and another one"`}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("the rows differ (-want +got):\n%s", diff)
	}
}

// FuzzJSONLines, FuzzJSONArray and FuzzText check that reading continues at each position. Rows of JSON
// are compared with encoding/json.
func FuzzJSONLines(f *testing.F) { fuzzRows(f, proto.FormatJSONL) }

func FuzzJSONArray(f *testing.F) { fuzzRows(f, proto.FormatJSON) }

func FuzzText(f *testing.F) { fuzzRows(f, proto.FormatText) }

// fuzzRows checks the rows of texts in a format.
func fuzzRows(f *testing.F, format string) {
	f.Helper()

	for _, text := range []string{
		"{\"a\":1}\n{\"b\":\"\\u00e9\"}", "[{\"a\":1},\n{\"a\":[true,null]}]", "[1,",
		"{\"a\":\"\\ud800\"}\n\n{}", "[{}] x", "[", "\xef\xbb\xbfa\x00\r\n\n b", "\v",
	} {
		f.Add(text)
	}

	f.Fuzz(func(t *testing.T, text string) {
		cfg := configOf("x", text)
		cfg.Table.Format = format

		rows, positions := readAll(t, cfg)
		if len(positions) < 50 {
			checkResumes(t, cfg, rows, positions)
		}

		checkObjects(t, cfg)
	})
}

// checkObjects checks that each row is the object that encoding/json has.
func checkObjects(t *testing.T, cfg Config) {
	t.Helper()

	text := string(cfg.Opener.(memoryOpener))
	objects, ok := decodeObjects(text, cfg.Table.Format)
	if !ok {
		return
	}

	r, err := Open(t.Context(), cfg)
	if err != nil {
		return
	}
	defer r.Close()

	for _, object := range objects {
		row, err := r.Next()
		if _, isRow := errors.AsType[*RowError](err); isRow {
			continue
		}

		if err != nil {
			t.Fatalf("a row of %q has the error %v", text, err)
		}

		for i, c := range row.Columns {
			var want, got any
			if json.Unmarshal(object[c.Name], &want) != nil ||
				json.Unmarshal(row.Values[i].AppendJSON(nil), &got) != nil {
				t.Fatalf("column %q of a row of %q is not JSON", c.Name, text)
			}

			if !cmp.Equal(want, got) {
				t.Errorf("column %q is %v, want %v", c.Name, got, want)
			}
		}

		if len(row.Columns) != len(object) {
			t.Errorf("the row has %d columns, want %d", len(row.Columns), len(object))
		}
	}

	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("the end of %q has the error %v", text, err)
	}
}

// decodeObjects returns the objects of a text, if all of it is sound.
func decodeObjects(text, format string) (objects []map[string]json.RawMessage, ok bool) {
	switch format {
	case proto.FormatJSON:
		return objects, json.Unmarshal([]byte(text), &objects) == nil && objects != nil
	case proto.FormatJSONL:
	default:
		return nil, false
	}

	for line := range strings.Lines(text) {
		if strings.Trim(line, " \t\r\n") == "" {
			continue
		}

		var object map[string]json.RawMessage
		if json.Unmarshal([]byte(line), &object) != nil || object == nil {
			return nil, false
		}

		objects = append(objects, object)
	}

	return objects, true
}
