package prompt

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/producer/inputfile"
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
		"meta", jsonValue(`{"z":1,"name":"Ann","list":[{"k":"v"}],"sizes":[1,2,2.50],"zero":0}`),
		"vip", "True", "price", "9.5", "score", table.Value{Kind: table.KindNumber, Text: []byte("0.70")},
		"n1", table.Value{Kind: table.KindInt, Bits: 1}, "f",
		table.Value{Kind: table.KindFloat, Bits: 0x412E848000000000})

	for template, want := range map[string]string{
		`Say: {{.text}}`: "Say: Où est \"ça\"?\n",
		`{{.n}}`:         "7",
		`{{.f}}`:         "1000000",
		`{{index . "my column"}}{{index $ "a.b"}}`:       "x ydot",
		`{{.text | truncate 2}}{{truncate 1 .text}}`:     "OùO",
		`{{default "none" .empty}}{{.null | default 0}}`: "none0",
		`{{join ", " .tags}}`:                            "a, b, 1, ",
		`{{json .text}}{{json .tags}}{{json .null}}`:     `"Où est \"ça\"?\n"["a", "b", 1, null]null`,
		`{{.meta}}`:                  `{"z":1,"name":"Ann","list":[{"k":"v"}],"sizes":[1,2,2.50],"zero":0}`,
		`{{.meta.name}} {{.meta.z}}`: "Ann 1",
		`{{range .meta.list}}{{.k}}{{end}}{{.meta.list}}`:                  `v[{"k":"v"}]`,
		`{{if .empty}}E{{else}}{{.n}}{{.null}}{{end}}`:                     "7",
		`{{with .meta}}{{.name}}{{$.n}}{{end}}`:                            "Ann7",
		`{{$x := .n}}{{$x}}{{if eq $x 7}}!{{end}}`:                         "7!",
		`{{if gt .f 3.5}}{{printf "%.1f" .f}}{{end}}`:                      "1000000.0",
		`{{/* note */}}{{- .n -}}  `:                                       "7",
		`{{range $i, $t := .tags}}{{$i}}={{$t}} {{end}}`:                   "0=a 1=b 2=1 3= ",
		`{{define "d"}}<{{.n}}>{{end}}{{template "d" .}}`:                  "<7>",
		`{{(index .tags 0)}}{{index .meta "name"}}`:                        "aAnn",
		`{{.meta.name | default "x"}}{{.meta.no | default "none"}}`:        "Annnone",
		`{{.text}} {{"{text}"}} \d{3} {"text": 1} \cite{text}`:             "Où est \"ça\"?\n {text} \\d{3} {\"text\": 1} \\cite{text}",
		`{{if gt .score 0.5}}{{.score}}{{end}}`:                            "0.70",
		`{{if lt .price 10}}{{.price}}{{end}}{{if lt "10" "9"}}t{{end}}`:   "9.5t",
		`{{if eq .vip true}}{{.vip}}{{end}}{{if ne .vip false}}!{{end}}`:   "True!",
		`{{if eq .n 6 7.0}}{{.n}}{{end}}{{if eq .price "9.5"}}={{end}}`:    "7=",
		`{{if eq .null "x" 5}}a{{else}}b{{end}}{{.n}}`:                     "b7",
		`{{range .meta.sizes}}{{if ge . 2}}{{.}}{{end}}{{end}}`:            "22.50",
		`{{printf "%.1f %d" .score .n}}{{if .meta.zero}}z{{end}}`:          "0.7 7",
		`{{index .meta.sizes 1}}{{index .tags .n1}}{{index .meta "name"}}`: "2bAnn",
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
			"--prompt: the table has no column txt; did you mean {{.text}}?",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "{{if .Text}}{{.text}}{{end}}"}},
			"--prompt: the table has no column Text; did you mean {{.text}}?",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: `{{index . "a b"}}`}},
			"--prompt: the table has no column a b; the table has the columns text, category",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "{{.text}}", System: "{{.nothing}}"}},
			"--system: the table has no column nothing; the table has the columns text, category",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "{{.text}}", CustomID: "id"}},
			"--custom-id: the table has no column id; the table has the columns text, category",
		}, {
			proto.Settings{Rows: &proto.Rows{Messages: "texts"}},
			"--messages: the table has no column texts; did you mean text?",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "p", Images: []string{"image"}}},
			"--image: the table has no column image; the table has the columns text, category",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "{{.text}}"}, Set: map[string]string{"user": "{{.usr}}"}},
			"--set user: the table has no column usr; the table has the columns text, category",
		}, {
			proto.Settings{Rows: &proto.Rows{Prompt: "{{.text}}"}, Model: "{{.modl}}"},
			"--model: the table has no column modl; the table has the columns text, category",
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
			`--prompt: {text} is not replaced; the column text is {{.text}}; for the braces themselves, write {{"{text}"}}`,
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

// Templates as people write them who do not know Go's.
func TestMistakes(t *testing.T) {
	t.Parallel()

	const general = `a column is {{.NAME}}, or {{index . "NAME"}} if its name has spaces or dots`
	row := newRow("id", "1", "text", "x", "Created At", "2026", "customer.name", "Ann", "user-id", "7", "3", "y")

	for template, want := range map[string]string{
		"Classify: {text}":                     `{text} is not replaced; the column text is {{.text}}; for the braces themselves, write {{"{text}"}}`,
		"{{.text}} by { id }":                  `{id} is not replaced; the column id is {{.id}}; for the braces themselves, write {{"{id}"}}`,
		"{{if .id}}{text}{{end}}":              `{text} is not replaced; the column text is {{.text}}; for the braces themselves, write {{"{text}"}}`,
		"${text}":                              `{text} is not replaced; the column text is {{.text}}; for the braces themselves, write {{"{text}"}}`,
		"Classify: $text":                      "it names no column, so all rows would have the same prompt; the column text is {{.text}}",
		"<user-id>":                            `it names no column, so all rows would have the same prompt; the column user-id is {{index . "user-id"}}`,
		`{{"text"}}`:                           "it names no column, so all rows would have the same prompt; a column is {{.id}}; the table has the columns id, text, Created At, customer.name, user-id, 3",
		"{{ text }}":                           "there is no function text; the column text is {{.text}}",
		"{{Text | truncate 5}}":                "there is no function Text; the column text is {{.text}}",
		"{{.Created At}}":                      `there is no function At; the column Created At is {{index . "Created At"}}`,
		"{{created at}}":                       `there is no function created; the column Created At is {{index . "Created At"}}`,
		"{{truncate 5 .Created At}}":           `there is no function At; the column Created At is (index . "Created At") there`,
		"{{.customer.name}}":                   `the table has no column customer; the column customer.name is {{index . "customer.name"}}`,
		"{{.user-id}}":                         `the template is broken: '-' cannot stand there; the column user-id is {{index . "user-id"}}`,
		"{{$text}}":                            "the template is broken: there is no variable $text; the column text is {{.text}}",
		"{{.text | upper}}":                    `there is no function upper; the functions are json, truncate, default, join and those of Go's text/template; a text has double quotes: "upper"`,
		"{{.id}} {{txt}}":                      "there is no function txt; did you mean the column .text?",
		"{{.text}}\xe8":                        "it is not UTF-8",
		"{{.text}":                             "the template is broken: a {{ has no }}; " + general,
		"a\n{{.text":                           "line 2: the template is broken: a {{ has no }}; " + general,
		"{{default 'none' .id}}":               `the template is broken: a text has single quotes; a text has double quotes, such as {{default "none" .NAME}}`,
		"{{default \"a .id}}":                  "the template is broken: a text in quotes does not end",
		"{{if .id}}x":                          "the template is broken: an {{if}}, {{with}} or {{range}} has no {{end}}",
		"{{.id}}\n{{end}}":                     "line 2: the template is broken: there is a {{end}} too many",
		"{{if}}x{{end}}":                       "the template is broken: {{if}} has no condition; for example {{if .NAME}}",
		"{{}}":                                 "the template is broken: an action has no value; " + general,
		"{{.id | 5}}":                          "the template is broken: there is a value behind a |, where a function is needed",
		"{{(.id}}":                             "the template is broken: a ( has no )",
		"{{.id)}}":                             "the template is broken: a ) has no (",
		"{{1a}}":                               `the template is broken: "1a" is not a number; ` + general,
		"{{.id}}{{/* x}}":                      "the template is broken: a comment has no */}} directly behind it",
		"{{.id ~}}":                            "the template is broken: ~ cannot stand there; " + general,
		"{{.id = 5}}":                          "the template is broken: = cannot stand there; " + general,
		"{{.text | truncate}}":                 "truncate needs a number of characters and then a value; for example {{truncate 4000 .text}}",
		"{{truncate .text 40}}":                "truncate needs a number of characters and then a value; for example {{truncate 4000 .text}}",
		"{{truncate -1 .text}}":                "truncate needs a number of characters and then a value; for example {{truncate 4000 .text}}",
		`{{truncate "9" (index . "user-id")}}`: `truncate needs a number of characters and then a value; for example {{truncate 4000 (index . "user-id")}}`,
		`{{default .id "none"}}`:               `default needs a text and then the value that may be empty; for example {{default "none" .id}}`,
		`{{join .id}}`:                         `join needs a separator and then a list; for example {{join ", " .id}}`,
		`{{.id}}{{_cell "typo"}}`:              "there is no function _cell; the functions are json, truncate, default, join and those of Go's text/template; a text has double quotes: \"_cell\"",
		`{{.id | _print}}`:                     "there is no function _print; did you mean print?",
		`{{.id}}{{if _need "a" .id}}{{end}}`:   "there is no function _need; the functions are json, truncate, default, join and those of Go's text/template; a text has double quotes: \"_need\"",
		`{{.id}}{{len (_cell "typo")}}`:        "there is no function _cell; the functions are json, truncate, default, join and those of Go's text/template; a text has double quotes: \"_cell\"",
		"{{json .id .text}}":                   "json needs one value; for example {{json .text}}",
	} {
		_, err := render(t, proto.Settings{Rows: &proto.Rows{Prompt: template}}, row, "")
		if _, ok := errors.AsType[*TemplateError](err); !ok || err.Error() != "--prompt: "+want {
			t.Errorf("%s: %v\nwant %s", template, err, want)
		}
	}

	_, err := render(t, proto.Settings{
		Model: "{text}",
		Rows:  &proto.Rows{Prompt: "{{.text}}"},
	}, row, "")
	if want := "--model: {text} is not replaced; the column text is"; err == nil ||
		!strings.HasPrefix(err.Error(), want) {
		t.Errorf("a model with braces: %v, want %s", err, want)
	}

	if _, err := Columns(proto.Settings{Rows: &proto.Rows{Prompt: "{{text}}"}}); err == nil ||
		err.Error() != `--prompt: there is no function text; the column text is {{.text}}, and the text text is "text"` {
		t.Errorf("a template without a table: %v", err)
	}
}

// Templates that fail with the values of a row.
func TestRowFaults(t *testing.T) {
	t.Parallel()

	row := newRow("text", "x", "tags", jsonValue(`["a"]`), "n", table.Value{Kind: table.KindInt, Bits: 7}, "none", "")
	for template, want := range map[string]string{
		"{{.text.x}}":                 "--prompt does not work with its values at {{.text.x}}: the value has no .x",
		"{{range .text}}{{.}}{{end}}": "--prompt does not work with its values at {{.text}}: the value is no list",
		"{{len}}{{.text}}":            "--prompt does not work with its values at {{len}}: len has the wrong number of values",
		"{{len .n}}":                  "--prompt does not work with its values at {{len .n}}: the value is no text and no list",
		`{{.text "a"}}`:               "--prompt does not work with its values at {{.text}}: a column is no function",
		`{{template "t" .}}`:          `--prompt does not work with its values at {{template "t" .}}: there is no template t`,
		"{{slice .text 5}}":           "--prompt does not work with its values at {{slice .text 5}}: the value is shorter",
		"{{index .tags 1}}":           "the list for index has no element 1",
		"{{index .text 0}}":           "index needs a list and a number from 0, or an object and a name",
		`{{printf "%d" .text}}`:       `printf "%d" does not fit its values, and the cells of CSV are texts`,
		"{{if gt .text 5}}{{end}}":    "gt cannot compare a text with a number",
		"{{if lt .none 5}}{{end}}":    "lt cannot compare an empty cell with a number",
		"{{if ge 5 .tags}}{{end}}":    "ge cannot compare a number with a list",
		"{{if le .text true}}{{end}}": "le cannot compare a text with true",
		"{{if eq .tags 5}}{{end}}":    "a list or an object cannot be compared",
		"{{if eq .n}}{{end}}":         "eq needs two values",
	} {
		_, err := render(t, proto.Settings{Rows: &proto.Rows{Prompt: template}}, row, "")
		cell, ok := errors.AsType[*CellError](err)
		if !ok {
			t.Errorf("%s: %v, want %s", template, err, want)
			continue
		}

		if diff := cmp.Diff(CellError{Flag: "--prompt", Reason: want}, *cell); diff != "" {
			t.Errorf("%s:\n%s", template, diff)
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
		{proto.Rows{Prompt: "P {{.blank}}"}, CellError{"--prompt", "blank", true, "it is empty"}},
		{proto.Rows{Prompt: "P {{.null | truncate 5}}"}, CellError{"--prompt", "null", true, "it is empty"}},
		{proto.Rows{Prompt: "{{.null | default \"\"}}"},
			CellError{"--prompt", "null", true, "--prompt has no text for it"}},
		{proto.Rows{Prompt: "{{if .null}}{{.text}}{{end}}"},
			CellError{"--prompt", "", true, "--prompt has no text for it"}},
		{proto.Rows{Prompt: "P {{.meta.a}}"}, CellError{"--prompt", "", true, "{{.meta.a}} has no text for it"}},
		{proto.Rows{Prompt: "P {{.bad}}"}, CellError{"--prompt", "bad", false, "its text is not UTF-8"}},
		{proto.Rows{Prompt: "{{if .text}}P {{.bad}}{{end}}"},
			CellError{"--prompt", "bad", false, "its text is not UTF-8"}},
		{proto.Rows{Prompt: `P {{join "," .tags}}`},
			CellError{"--prompt", "tags", false, "it is not a list, as join needs"}},
		{proto.Rows{Prompt: "{{.text.x}}"},
			CellError{
				"--prompt", "", false, "--prompt does not work with its values at {{.text.x}}: the value has no .x",
			}},
		{proto.Rows{Prompt: "{{.text}}", CustomID: "null"}, CellError{"--custom-id", "null", true, "it is empty"}},
		{proto.Rows{Messages: "null"}, CellError{"--messages", "null", true, "it is empty"}},
		{proto.Rows{Messages: "text"}, CellError{"--messages", "text", false, "it has no list of messages"}},
		{proto.Rows{Messages: "object"}, CellError{"--messages", "object", false, "it has no list of messages"}},
		{proto.Rows{Messages: "list"}, CellError{"--messages", "list", true, "its list of messages is empty"}},
		{proto.Rows{Messages: "texts"}, CellError{"--messages", "texts", false, "message 1 is not an object"}},
		{proto.Rows{Messages: "noRole"}, CellError{"--messages", "noRole", false, "message 1 has no role"}},
		{proto.Rows{Messages: "noContent"}, CellError{"--messages", "noContent", false, "message 1 has no content"}},
		{proto.Rows{Prompt: "p", Images: []string{"null"}}, CellError{"--image", "null", true, "it is empty"}},
		{
			proto.Rows{Prompt: "p", Images: []string{"missing"}},
			CellError{"--image", "missing", false, "there is no file " + filepath.Join(dir, "no.png")},
		}, {
			proto.Rows{Prompt: "p", Images: []string{"file"}},
			CellError{"--image", "file", false, filepath.Join(dir, "a.txt") + " is no PNG, JPEG, GIF or WebP image"},
		},
		{proto.Rows{Prompt: "p", Images: []string{"bytes"}},
			CellError{"--image", "bytes", false, "it is no PNG, JPEG, GIF or WebP image"}},
		{
			proto.Rows{Prompt: "p", Images: []string{"object"}},
			CellError{"--image", "object", false, "it is no object with the bytes or the path of an image"},
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

	want := "column text: it is not JSON, as the value of user must be"
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

	for file, want := range map[string]string{
		"s3://bucket/dir/in.csv":        "s3://bucket/dir/img/a.png",
		"s3://bucket/a?b/in.csv":        "s3://bucket/a?b/img/a.png",
		"https://h/dir/in.csv?p=/a/b":   "https://h/dir/img/a.png",
		"http://h/in.csv?sig=a/b&c=d/e": "http://h/img/a.png",
	} {
		r := Renderer{file: file}
		if got := r.resolvePath("img/a.png"); got != want {
			t.Errorf("a path beside %s is %s, want %s", file, got, want)
		}
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

		fast, err := compileSettings(s, nil, false)
		if err != nil {
			return
		}

		slow, err := compileSettings(s, nil, true)
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
		r, err := compileSettings(proto.Settings{Rows: &proto.Rows{Prompt: text}}, nil, false)
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
		err = plain.Execute(&out, map[string]any{"a": a, "b": b})
		if err != nil && strings.Contains(err.Error(), "for comparison") {
			return // of a text with a number
		}
		if err != nil {
			t.Fatalf("%q fails only with a plain text/template: %v", text, err)
		}

		want := strings.ReplaceAll(out.String(), "<no value>", "")
		if strings.Contains(want, "map[") {
			return // of the whole row, which is JSON here
		}

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
		if ok != utf8.ValidString(text) {
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

// openOnly opens files of this machine and describes none.
type openOnly struct{ inputfile.Local }

// Stat implements inputfile.Opener.
func (openOnly) Stat(_ context.Context, path string) (proto.File, error) {
	return proto.File{}, errors.New(path + " is described")
}

// An image is opened with one request, and an opener that remembers described files keeps nothing.
func TestImageIsNotDescribed(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "a.png")
	if err := os.WriteFile(path, []byte("image"), 0o644); err != nil {
		t.Fatal(err)
	}

	r := Renderer{ctx: t.Context(), opener: openOnly{}}
	if data, err := r.readImage(path); err != nil || string(data) != "image" {
		t.Errorf("%q, %v", data, err)
	}
}

// Percent signs of cells and of formats are no faults of printf.
func TestPrintfPercent(t *testing.T) {
	t.Parallel()

	row := newRow("text", "%!s(x) 100%", "n", "5", "list", jsonValue(`["%!d",{"%!":1}]`))

	for template, want := range map[string]string{
		`{{printf "%[1]s %[1]s" .text}}`:     "%!s(x) 100% %!s(x) 100%",
		`{{printf "%s" .text}}`:              "%!s(x) 100%",
		`{{printf "%q" .text}}`:              `"%!s(x) 100%"`,
		`{{printf "%%!s %s%%" .n}}`:          "%!s 5%",
		`{{printf "%v" .list}}{{.n}}`:        "[%!d map[%!:1]]5",
		`{{printf "%s and %s" .n}}`:          "",
		`{{printf "%s" .n .text}}`:           "",
		`{{printf "%d %s" .text .text}}`:     "",
		`{{printf "%[3]s" .text}}`:           "",
		`{{printf "%s %" .text}}`:            "",
		`{{.n}}{{printf "%!" }}`:             "",
		`{{printf "%d" (index .list 0)}}`:    "",
		`{{printf "%5.1f" (index .list 1)}}`: "",
	} {
		got, err := render(t, proto.Settings{Rows: &proto.Rows{Prompt: template}}, row, "")
		_, isCell := errors.AsType[*CellError](err)
		switch {
		case want == "" && !isCell:
			t.Errorf("%s: %s, %v; want a fault of printf", template, got, err)
		case want != "" && (err != nil || !strings.Contains(got, strings.Trim(strconv.Quote(want), `"`))):
			t.Errorf("%s: %s, %v; want %s", template, got, err, want)
		}
	}
}

// A text that a reader has checked gives the same line as one that is checked here.
func TestCheckedText(t *testing.T) {
	t.Parallel()

	row := newRow("text", "a \"quoted\"\n\\ café 日本 😀\x01", "n", "5")
	s := proto.Settings{Rows: &proto.Rows{Prompt: "{{.n}}: {{.text}} {{truncate 9 .text}}"}}

	want, err := render(t, s, row, "")
	if err != nil {
		t.Fatal(err)
	}

	r, err := New(t.Context(), Config{Settings: s, Columns: row.Columns, IsChecked: true})
	if err != nil {
		t.Fatal(err)
	}

	if got, err := r.AppendLine(nil, row); err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}
