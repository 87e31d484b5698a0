package prompt

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// textValue returns a value of text.
func textValue(s string) table.Value { return table.Value{Kind: table.KindText, Text: []byte(s)} }

// jsonValue returns a value of JSON.
func jsonValue(s string) table.Value { return table.Value{Kind: table.KindJSON, Text: []byte(s)} }

// newRow returns a row of columns and values, in turns.
func newRow(cells ...any) table.Row {
	row := table.Row{Number: 1}
	for i := 0; i < len(cells); i += 2 {
		row.Columns = append(row.Columns, table.Column{Name: cells[i].(string)})
		switch v := cells[i+1].(type) {
		case string:
			row.Values = append(row.Values, textValue(v))
		case table.Value:
			row.Values = append(row.Values, v)
		}
	}

	return row
}

// render renders a row.
func render(t *testing.T, s proto.Settings, row table.Row, file string) (string, error) {
	t.Helper()

	r, err := New(t.Context(), Config{
		Settings: s,
		Columns:  row.Columns,
		File:     file,
	})
	if err != nil {
		return "", err
	}

	line, err := r.AppendLine(nil, row)
	if err == nil && !json.Valid(line) {
		t.Errorf("the line is not JSON: %s", line)
	}

	return string(line), err
}

// user is the line of a prompt alone.
func user(prompt string) string {
	return `{"messages":[{"role":"user","content":` + string(jsonscan.Quote(prompt)) + `}]}`
}

func TestTemplates(t *testing.T) {
	t.Parallel()

	row := newRow("text", "Où est \"ça\"?\n", "n", table.Value{Kind: table.KindInt, Bits: 7}, "empty", "",
		"null", table.Value{}, "my column", "x y", "a.b", "dot", "tags", jsonValue(`["a", "b", 1, null]`),
		"meta", jsonValue(`{"z":1,"name":"Ann","list":[{"k":"v"}]}`),
		"f", table.Value{Kind: table.KindFloat, Bits: 0x412E848000000000})

	for template, want := range map[string]string{
		`Say: {{.text}}`: "Say: Où est \"ça\"?\n",
		`{{.n}}`:         "7",
		`{{.f}}`:         "1000000",
		`{{index . "my column"}}{{index $ "a.b"}}`:       "x ydot",
		`{{.text | truncate 2}}{{truncate 1 .text}}`:     "OùO",
		`{{default "none" .empty}}{{.null | default 0}}`: "none0",
		`{{join ", " .tags}}`:                            "a, b, 1, ",
		`{{json .text}}{{json .tags}}{{json .null}}`:     `"Où est \"ça\"?\n"["a", "b", 1, null]null`,
		`{{.meta}}`:                  `{"z":1,"name":"Ann","list":[{"k":"v"}]}`,
		`{{.meta.name}} {{.meta.z}}`: "Ann 1",
		`{{range .meta.list}}{{.k}}{{end}}{{.meta.list}}`:           `v[{"k":"v"}]`,
		`{{if .empty}}E{{else}}{{.n}}{{.null}}{{end}}`:              "7",
		`{{with .meta}}{{.name}}{{$.n}}{{end}}`:                     "Ann7",
		`{{$x := .n}}{{$x}}{{if eq $x 7}}!{{end}}`:                  "7!",
		`{{if gt .f 3.5}}{{printf "%.1f" .f}}{{end}}`:               "1000000.0",
		`{{/* note */}}{{- .n -}}  `:                                "7",
		`{{range $i, $t := .tags}}{{$i}}={{$t}} {{end}}`:            "0=a 1=b 2=1 3= ",
		`{{define "d"}}<{{.n}}>{{end}}{{template "d" .}}`:           "<7>",
		`{{(index .tags 0)}}{{index .meta "name"}}`:                 "aAnn",
		`{{.meta.name | default "x"}}{{.meta.no | default "none"}}`: "Annnone",
	} {
		got, err := render(t, proto.Settings{Rows: &proto.Rows{Prompt: template}}, row, "")
		if diff := cmp.Diff(user(want), got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", template, err, diff)
		}
	}

	got, err := render(t, proto.Settings{Rows: &proto.Rows{Prompt: "{{json .}}"}},
		newRow("b", "1", "a", jsonValue("[2]")), "")
	if want := user(`{"b":"1","a":[2]}`); got != want || err != nil {
		t.Errorf("the whole row is %s, %v; want %s", got, err, want)
	}
}

func TestLines(t *testing.T) {
	t.Parallel()

	row := newRow("id", "a\"1", "text", "hi", "m", "big", "n", "5",
		"chat", jsonValue(`[{"role":"user","content":"q"}, {"role":"assistant","content":"a"}]`),
		"withSystem", "[{\"role\":\"system\",\"content\":\"s\"},\n{\"role\":\"user\",\"content\":\"q\"}]",
		"url", "https://example.com/a.png")

	for name, test := range map[string]struct {
		s    proto.Settings
		want string
	}{
		"all": {
			s: proto.Settings{
				Model: "{{.m}}",
				Rows:  &proto.Rows{Prompt: "P {{.text}}", System: "S {{.m}}", CustomID: "id"},
				Set: map[string]string{
					"temperature": "0",
					"user":        `{{json .id}}`,
					"max_tokens":  "{{.n}}",
					"metadata":    `{"a":["{{.text}}","b"],"c":1}`,
				},
				Schema: json.RawMessage(`{ "type": "object" }`),
			},
			want: `{"custom_id":"a\"1","model":"big","max_tokens":5,"metadata":{"a":["hi","b"],"c":1},"user":"a\"1",` +
				`"messages":[{"role":"system","content":"S big"},{"role":"user","content":"P hi"}],` +
				`"response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":{"type":"object"}}}}`,
		},
		"completions": {
			s:    proto.Settings{Endpoint: "/v1/completions", Rows: &proto.Rows{Prompt: "{{.text}}"}},
			want: `{"prompt":"hi"}`,
		},
		"embeddings": {
			s:    proto.Settings{Endpoint: "/v1/embeddings", Rows: &proto.Rows{Prompt: "{{.text}}"}},
			want: `{"input":"hi"}`,
		},
		"override": {
			s:    proto.Settings{Model: "x", OverrideModel: "o-{{.m}}", Rows: &proto.Rows{Prompt: "{{.text}}"}},
			want: `{"model":"o-big","messages":[{"role":"user","content":"hi"}]}`,
		},
		"messages": {
			s: proto.Settings{Rows: &proto.Rows{Messages: "chat", System: "S", Prompt: "{{.text}}"}},
			want: `{"messages":[{"role":"system","content":"S"},{"role":"user","content":"q"},` +
				`{"role":"assistant","content":"a"},{"role":"user","content":"hi"}]}`,
		},
		"messages with a system message": {
			s:    proto.Settings{Rows: &proto.Rows{Messages: "withSystem", System: "S"}},
			want: `{"messages":[{"role":"system","content":"s"},{"role":"user","content":"q"}]}`,
		},
		"image": {
			s: proto.Settings{Rows: &proto.Rows{Prompt: "What is it?", Images: []string{"url"}}},
			want: `{"messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},` +
				`{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}]}`,
		},
		"response_format is set": {
			s: proto.Settings{
				Rows:   &proto.Rows{Prompt: "{{.text}}"},
				Schema: json.RawMessage(`{}`),
				Set:    map[string]string{"response_format": `{"type":"json_object"}`},
			},
			want: `{"messages":[{"role":"user","content":"hi"}]}`,
		},
	} {
		got, err := render(t, test.s, row, "")
		if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

func TestTemplateErrors(t *testing.T) {
	t.Parallel()

	row := newRow("text", "x", "category", "y")
	for _, test := range []struct {
		s    proto.Settings
		want string
	}{
		{
			proto.Settings{Rows: &proto.Rows{Prompt: "{{.txt}}"}},
			"--prompt: the table has no column txt; did you mean text?",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "{{if .Text}}{{.text}}{{end}}"}},
			"--prompt: the table has no column Text; did you mean text?",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: `{{index . "a b"}}`}},
			"--prompt: the table has no column a b; it has text, category",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "{{.text}}", System: "{{.nothing}}"}},
			"--system: the table has no column nothing; it has text, category",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "{{.text}}", CustomID: "id"}},
			"--custom-id: the table has no column id; it has text, category",
		}, {
			proto.Settings{Rows: &proto.Rows{Messages: "texts"}},
			"--messages: the table has no column texts; did you mean text?",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "p", Images: []string{"image"}}},
			"--image: the table has no column image; it has text, category",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "{{.text}}"}, Set: map[string]string{"user": "{{.usr}}"}},
			"--set user: the table has no column usr; it has text, category",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "{{.text}}"}, Model: "{{.modl}}"},
			"--model: the table has no column modl; it has text, category",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "{{text}}"}},
			"--prompt: there is no function text; the column text is {{.text}}",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "{{.text | trunkate 5}}"}},
			"--prompt: there is no function trunkate; did you mean truncate?",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "{{.text"}},
			`--prompt: the template is broken: a {{ has no }}; a column is {{.NAME}}, or {{index . "NAME"}} if its name has spaces or dots`,
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "Classify: {text}"}},
			"--prompt: it names no column, so all rows would have the same prompt; a column is {{.NAME}}",
		}, {
			proto.Settings{Endpoint: "/v1/completions", Rows: &proto.Rows{Prompt: "{{.text}}", System: "s"}},
			"--system: a request of /v1/completions has no messages",
		},
	} {
		_, err := render(t, test.s, row, "")
		if _, ok := errors.AsType[*TemplateError](err); !ok || err.Error() != test.want {
			t.Errorf("%+v: %v\nwant %s", *test.s.Rows, err, test.want)
		}
	}
}

func TestCellErrors(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}

	row := newRow("text", "x", "blank", " \n", "null", table.Value{}, "bad", "a\xff", "tags", "no list",
		"meta", jsonValue(`{"a":null}`), "object", jsonValue(`{}`), "list", jsonValue(`[]`), "noRole",
		jsonValue(`[{"content":"x"}]`),
		"texts", jsonValue(`["x"]`), "noContent", jsonValue(`[{"role":"user","content":null}]`), "missing", "no.png",
		"file", "a.txt", "bytes", table.Value{Kind: table.KindBytes, Text: []byte("GIF00a")})

	for _, test := range []struct {
		rows proto.Rows
		want CellError
	}{
		{proto.Rows{Prompt: "P {{.blank}}"}, CellError{"blank", true, "it is empty"}},
		{proto.Rows{Prompt: "P {{.null | truncate 5}}"}, CellError{"null", true, "it is empty"}},
		{proto.Rows{Prompt: "{{.null | default \"\"}}"}, CellError{"null", true, "--prompt has no text for it"}},
		{proto.Rows{Prompt: "{{if .null}}{{.text}}{{end}}"}, CellError{"", true, "--prompt has no text for it"}},
		{proto.Rows{Prompt: "P {{.meta.a}}"}, CellError{"", true, "{{.meta.a}} has no text for it"}},
		{proto.Rows{Prompt: "P {{.bad}}"}, CellError{"bad", false, "its text is not UTF-8"}},
		{proto.Rows{Prompt: "{{if .text}}P {{.bad}}{{end}}"}, CellError{"bad", false, "its text is not UTF-8"}},
		{proto.Rows{Prompt: `P {{join "," .tags}}`}, CellError{"tags", false, "it is not a list, as join needs"}},
		{proto.Rows{Prompt: "{{.text.x}}"},
			CellError{"", false, "--prompt does not work with its values at {{.text.x}}"}},
		{proto.Rows{Prompt: "{{.text}}", CustomID: "null"}, CellError{"null", true, "it is empty"}},
		{proto.Rows{Messages: "null"}, CellError{"null", true, "it is empty"}},
		{proto.Rows{Messages: "text"}, CellError{"text", false, "it has no list of messages"}},
		{proto.Rows{Messages: "object"}, CellError{"object", false, "it has no list of messages"}},
		{proto.Rows{Messages: "list"}, CellError{"list", true, "its list of messages is empty"}},
		{proto.Rows{Messages: "texts"}, CellError{"texts", false, "message 1 is not an object"}},
		{proto.Rows{Messages: "noRole"}, CellError{"noRole", false, "message 1 has no role"}},
		{proto.Rows{Messages: "noContent"}, CellError{"noContent", false, "message 1 has no content"}},
		{proto.Rows{Prompt: "p", Images: []string{"null"}}, CellError{"null", true, "it is empty"}},
		{
			proto.Rows{Prompt: "p", Images: []string{"missing"}},
			CellError{"missing", false, "there is no file " + filepath.Join(dir, "no.png")},
		}, {
			proto.Rows{Prompt: "p", Images: []string{"file"}},
			CellError{"file", false, filepath.Join(dir, "a.txt") + " is no PNG, JPEG, GIF or WebP image"},
		},
		{proto.Rows{Prompt: "p", Images: []string{"bytes"}},
			CellError{"bytes", false, "it is no PNG, JPEG, GIF or WebP image"}},
		{
			proto.Rows{Prompt: "p", Images: []string{"object"}},
			CellError{"object", false, "it is no object with the bytes or the path of an image"},
		},
	} {
		_, err := render(t, proto.Settings{Rows: &test.rows}, row, filepath.Join(dir, "in.csv"))
		cell, ok := errors.AsType[*CellError](err)
		if !ok {
			t.Errorf("%+v: %v", test.rows, err)
			continue
		}

		if diff := cmp.Diff(test.want, *cell); diff != "" {
			t.Errorf("%+v:\n%s", test.rows, diff)
		}
	}

	_, err := render(t, proto.Settings{
		Rows: &proto.Rows{Prompt: "{{.text}}"},
		Set:  map[string]string{"user": "{{.text}}"},
	}, row, "")

	want := "column text: --set user is not JSON with its value; if it is a text, write --set 'user={{json .text}}'"
	if err == nil || err.Error() != want {
		t.Errorf("a value that is no JSON: %v, want %s", err, want)
	}
}

func TestImages(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	png := "\x89PNG\r\n\x1a\n"
	if err := os.Mkdir(filepath.Join(dir, "img"), 0o755); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(dir, "img", "a.jpg"), []byte(png), 0o644); err != nil {
		t.Fatal(err)
	}

	for name, test := range map[string]struct {
		value table.Value
		want  string
	}{
		"path":        {textValue("img/a.jpg"), "data:image/png;base64,iVBORw0KGgo="},
		"path from /": {textValue(filepath.Join(dir, "img", "a.jpg")), "data:image/png;base64,iVBORw0KGgo="},
		"gif":         {table.Value{Kind: table.KindBytes, Text: []byte("GIF89a")}, "data:image/gif;base64,R0lGODlh"},
		"jpeg": {table.Value{Kind: table.KindBytes, Text: []byte("\xff\xd8\xff")},
			"data:image/jpeg;base64,/9j/"},
		"webp": {table.Value{Kind: table.KindBytes, Text: []byte("RIFF\x00\x00\x00\x00WEBP")},
			"data:image/webp;base64,UklGRgAAAABXRUJQ"},
		"bytes":        {jsonValue(`{"bytes":"iVBORw0KGgo=","path":null}`), "data:image/png;base64,iVBORw0KGgo="},
		"path of both": {jsonValue(`{"bytes":null,"path":"img/a.jpg"}`), "data:image/png;base64,iVBORw0KGgo="},
		"data URL":     {textValue("data:image/png;base64,AA=="), "data:image/png;base64,AA=="},
		"http":         {textValue("http://h/x?a=1&b=2"), "http://h/x?a=1&b=2"},
	} {
		got, err := render(t, proto.Settings{Rows: &proto.Rows{Prompt: "p", Images: []string{"i"}}},
			newRow("i", test.value),
			filepath.Join(dir, "in.csv"))
		if want := `"image_url":{"url":"` + test.want + `"}`; err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %s, %v, want %s", name, got, err, want)
		}
	}

	r := Renderer{file: "s3://bucket/dir/in.csv"}
	if got := r.resolvePath("img/a.png"); got != "s3://bucket/dir/img/a.png" {
		t.Errorf("a path beside an object is %s", got)
	}

	large := table.Value{Kind: table.KindBytes, Text: append([]byte(png), make([]byte, maxImage)...)}
	_, err := render(t, proto.Settings{Rows: &proto.Rows{Prompt: "p", Images: []string{"i"}}}, newRow("i", large), "")
	if want := "column i: it is an image of more than 32 MiB"; err == nil || err.Error() != want {
		t.Errorf("a large image: %v", err)
	}
}

func TestColumns(t *testing.T) {
	t.Parallel()

	got, err := Columns(proto.Settings{
		Model: "{{.m}}",
		Rows: &proto.Rows{
			Prompt:   `{{.a}}{{if .b}}{{with $x := index . "c d"}}{{.no}}{{$x}}{{end}}{{end}}`,
			CustomID: "id",
		},
	})
	if diff := cmp.Diff([]string{"id", "m", "a", "b", "c d"}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}

	if got, err := Columns(
		proto.Settings{Rows: &proto.Rows{Prompt: `{{range $k, $v := .}}{{$k}}{{end}}`}},
	); got != nil || err != nil {
		t.Errorf("a template of the whole row has the columns %q, %v", got, err)
	}
}

func TestLineSettings(t *testing.T) {
	t.Parallel()

	got := LineSettings(proto.Settings{
		Model: "{{.m}}",
		Set:   map[string]string{"a": "1", "b": "{{.b}}"},
	})
	if diff := cmp.Diff(proto.Settings{Set: map[string]string{"a": "1"}}, got); diff != "" {
		t.Error(diff)
	}

	got = LineSettings(proto.Settings{Model: "m", OverrideModel: "{{.m}}"})
	if got.Model != "" || got.OverrideModel != "" {
		t.Errorf("the line has another model than the row: %+v", got)
	}
}

// TestVaried reads rows with columns of their own.
func TestVaried(t *testing.T) {
	t.Parallel()

	s := proto.Settings{Rows: &proto.Rows{Prompt: "{{.a}}{{if .b}}{{.b}}{{end}}"}}
	r, err := New(t.Context(), Config{
		Settings: s,
		Columns:  []table.Column{{Name: "a"}},
		Varied:   true,
	})
	if err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		row  table.Row
		want string
	}{
		{newRow("a", "1"), user("1")},
		{newRow("b", "2", "a", "1"), user("12")},
		{newRow("a", "3", "b", ""), user("3")},
	} {
		if got, err := r.AppendLine(nil, test.row); string(got) != test.want || err != nil {
			t.Errorf("%s, %v, want %s", got, err, test.want)
		}
	}
}

// FuzzTemplate compares the fast path with text/template.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{
		"P {{.a}} {{.b}}", "{{.a | truncate 3}}", `{{default "x" .a | json}}{{join ", " .c}}`, "{{json .a}}{{$.b}}",
		`{{index . "a"}}{{.c}}{{.d}}`, `{{.c | truncate 3 | json | truncate 2}}`, "{{.d | default 12}}",
		"é{{truncate 0 .a}}x",
	} {
		f.Add(seed, "héllo \"w\"\x01", `["a", {"b": 1}]`, uint64(12))
	}

	f.Fuzz(func(t *testing.T, text, a, c string, bits uint64) {
		if !json.Valid([]byte(c)) {
			c = `["é", null, {"z":1,"a":"<&>"}]`
		}

		s := proto.Settings{Rows: &proto.Rows{Prompt: text}}
		row := newRow("a", a, "b", "plain", "c", jsonValue(c), "d", table.Value{Kind: table.KindInt, Bits: bits},
			"f", table.Value{Kind: table.KindFloat, Bits: bits}, "e", table.Value{})

		fast, err := compileSettings(s, false)
		if err != nil {
			return
		}

		slow, err := compileSettings(s, true)
		if err != nil {
			t.Fatal(err)
		}

		got, err := fast.AppendLine(nil, row)
		want, wantErr := slow.AppendLine(nil, row)
		if (err == nil) != (wantErr == nil) || err == nil && string(got) != string(want) {
			t.Errorf("%q: %s, %v; text/template: %s, %v", text, got, err, want, wantErr)
		}
		if err == nil && !json.Valid(got) {
			t.Errorf("%q is no JSON: %s", text, got)
		}
	})
}

// FuzzTextTemplate compares the whole with a plain text/template, for rows of text.
func FuzzTextTemplate(f *testing.F) {
	f.Add("P {{.a}} {{if .b}}{{.b}}{{end}}", "x", "")
	f.Add(`{{range $i, $c := .a}}{{$i}}{{end}}{{len .b}}`, "x", "y")

	f.Fuzz(func(t *testing.T, text, a, b string) {
		r, err := compileSettings(proto.Settings{Rows: &proto.Rows{Prompt: text}}, false)
		if err != nil {
			return
		}

		plain, err := template.New("").Parse(text)
		if err != nil {
			return // it calls functions of this package
		}

		line, err := r.AppendLine(nil, newRow("a", a, "b", b))
		if err != nil {
			return
		}

		var out strings.Builder
		if err := plain.Execute(&out, map[string]any{"a": a, "b": b}); err != nil {
			t.Fatalf("%q fails only with a plain text/template: %v", text, err)
		}

		want := strings.ReplaceAll(out.String(), "<no value>", "")

		var got struct{ Messages []struct{ Content string } }
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}

		if strings.ReplaceAll(got.Messages[0].Content, "<no value>", "") != want {
			t.Errorf("%q: %q, want %q", text, got.Messages[0].Content, want)
		}
	})
}

// FuzzEscape compares escapes with encoding/json.
func FuzzEscape(f *testing.F) {
	f.Add("plain text of some length\n\"quoted\" \\ \x01\x1f é 日本 \u2028")
	f.Add("12345678\xff")

	f.Fuzz(func(t *testing.T, text string) {
		quoted, ok := appendEscaped([]byte{'"'}, []byte(text))
		quoted = append(quoted, '"')
		if ok != isUTF8([]byte(text)) {
			t.Fatalf("%q is UTF-8: %t", text, ok)
		}

		if !ok {
			return
		}

		var back string
		if err := json.Unmarshal(quoted, &back); err != nil || back != text {
			t.Errorf("%q comes back as %q: %v", text, back, err)
		}
	})
}

func BenchmarkAppendLine(b *testing.B) {
	row := newRow("id", "row-12345", "text", strings.Repeat("A text with \"quotes\" and more words. ", 27))
	for name, prompt := range map[string]string{
		"fast": "Classify: {{.text}}",
		"slow": "Classify: {{if .text}}{{.text}}{{end}}",
	} {
		b.Run(name, func(b *testing.B) {
			r, err := New(b.Context(), Config{
				Settings: proto.Settings{Rows: &proto.Rows{Prompt: prompt, System: "One word.", CustomID: "id"}},
				Columns:  row.Columns,
			})
			if err != nil {
				b.Fatal(err)
			}

			var line []byte
			for b.Loop() {
				if line, err = r.AppendLine(line[:0], row); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
