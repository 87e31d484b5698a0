package sample

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// writeFile writes a file into a folder of its own.
func writeFile(t testing.TB, name, text string) string {
	t.Helper()

	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	return path
}

// drawn is a sample as it was written.
type drawn struct {
	Sample

	lines, expected string
}

// draw draws a sample, whose temporary file must be gone then.
func draw(t testing.TB, size int, expect string, s proto.Settings, files ...string) (drawn, error) {
	t.Helper()

	var lines, expected bytes.Buffer
	folder := t.TempDir()
	sample, err := Draw(t.Context(), Config{
		Source:   producer.Source{Files: files},
		Settings: s,
		Size:     size,
		Expect:   expect,
		Folder:   folder,
	}, &lines, &expected)

	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v (%v)", left, err)
	}

	if err != nil && lines.Len()+expected.Len() > 0 {
		t.Errorf("%d and %d bytes were written before the error %v", lines.Len(), expected.Len(), err)
	}

	return drawn{sample, lines.String(), expected.String()}, err
}

// mustDraw is draw for an input that is not refused.
func mustDraw(t testing.TB, size int, expect string, s proto.Settings, files ...string) drawn {
	t.Helper()

	d, err := draw(t, size, expect, s, files...)
	if err != nil {
		t.Fatal(err)
	}

	return d
}

// sortLines returns the lines of a text in order.
func sortLines(text string) []string { return slices.Sorted(strings.Lines(text)) }

// Each form of a request becomes a line of a batch with the same name, endpoint and body.
func TestForms(t *testing.T) {
	t.Parallel()

	text := `{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m", "messages":[ ],"seed":1e3}}` +
		"\n\n" + `{"messages":[{"role":"user","content":"\u00e9"}],"model":null,"n":12345678901234567890}` + "\r\n" +
		`{"custom_id":7,"prompt":"x","note":1}` + "\n" +
		`{"input":["y"],"custom_id":"\u0063"}` + "\n" +
		`{"url":"/openai/deployments/d/embeddings","body":{"input":"z","model":"e"},"label":"l"}`
	want := []string{
		`{"custom_id":"\u0063","method":"POST","url":"/v1/embeddings","body":{"input":["y"]}}` + "\n",
		`{"custom_id":"a","method":"POST","url":"/v1/chat/completions",` +
			`"body":{"model":"m", "messages":[ ],"seed":1e3}}` + "\n",
		`{"custom_id":"request-2","method":"POST","url":"/v1/chat/completions",` +
			`"body":{"messages":[{"role":"user","content":"\u00e9"}],"model":null,"n":12345678901234567890}}` + "\n",
		`{"custom_id":"request-5","method":"POST","url":"/v1/embeddings","body":{"input":"z","model":"e"}}` + "\n",
	}

	s := proto.Settings{SkipInvalid: true, Model: "not used", Set: map[string]string{"seed": "1"}}
	got := mustDraw(t, 10, "", s, writeFile(t, "in", text)) // the third line has a custom_id that is a number
	if diff := cmp.Diff(want, sortLines(got.lines)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}

	if got.Requests != 4 || got.Of != 4 || got.Invalid != 1 || got.expected != "" {
		t.Errorf("the sample is %+v", got)
	}
}

// requests returns lines with some lengths, whose custom_ids are ID0, ID1, ...
func requests(id string, lengths ...int) string {
	var b strings.Builder
	for i, n := range lengths {
		fmt.Fprintf(&b, `{"custom_id":"%s%d","url":"/v1/completions","body":{"model":"m","prompt":"%s"},"label":%d}`+"\n",
			id, i, strings.Repeat("x", n), i)
	}
	return b.String()
}

// randomLengths returns some lengths, which are the same each time.
func randomLengths(n int) []int {
	random := rand.New(rand.NewPCG(5, 6))
	lengths := make([]int, n)
	for i := range lengths {
		lengths[i] = random.IntN(1000)
	}

	return lengths
}

// A sample is the same one each time, however the files are compressed and divided, and --sample of a run chooses the
// same requests.
func TestSameSample(t *testing.T) {
	t.Parallel()

	const size = 300
	text := requests("id-", randomLengths(5000)...)
	half := strings.Index(text, `{"custom_id":"id-2000"`)
	plain := writeFile(t, "in.jsonl", text)
	want := mustDraw(t, size, "label", proto.Settings{}, plain)

	for name, files := range map[string][]string{
		"again":   {plain},
		"gzip":    {writeFile(t, "in.gz", prototest.Gzip(t, text))},
		"zstd":    {writeFile(t, "in.zst", prototest.Zstd(t, text))},
		"several": {writeFile(t, "1", text[:half]), writeFile(t, "2", prototest.Gzip(t, text[half:]))},
	} {
		got := mustDraw(t, size, "label", proto.Settings{}, files...)
		got.Files = want.Files
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(drawn{})); diff != "" {
			t.Errorf("%s (-want +got):\n%.2000s", name, diff)
		}
	}

	if want.Requests != size || want.Of != 5000 || want.Expected != size || want.InputBytes != int64(len(text)) ||
		strings.Count(want.lines, "\n") != size {
		t.Errorf("the sample is %+v", want.Sample)
	}

	if diff := cmp.Diff(chosenByRun(t, size, plain), idsOf(t, want.lines)); diff != "" {
		t.Errorf("--sample chooses other requests (-run +sample):\n%.2000s", diff)
	}

	// The expected answers are those of the requests, in their order.
	var labels []string
	for line := range strings.Lines(want.lines) {
		id, _, _ := strings.Cut(strings.TrimPrefix(line, `{"custom_id":"id-`), `"`)
		labels = append(labels, `"`+id+`"`+"\n")
	}
	if diff := cmp.Diff(strings.Join(labels, ""), want.expected); diff != "" {
		t.Errorf("expected answers (-want +got):\n%.2000s", diff)
	}
}

// chosenByRun returns the custom_ids of the requests that a run with --sample has, in order.
func chosenByRun(t *testing.T, size int, file string) (ids []string) {
	t.Helper()

	r, err := producer.NewReader(t.Context(), producer.Source{Files: []string{file}}, proto.Settings{Sample: size}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	for item, err := r.Next(); err == nil; item, err = r.Next() {
		ids = append(ids, string(item.CustomID))
	}

	slices.Sort(ids)

	return ids
}

// idsOf returns the custom_ids of lines, in order.
func idsOf(t *testing.T, lines string) (ids []string) {
	t.Helper()

	for line := range strings.Lines(lines) {
		var l struct {
			ID json.RawMessage `json:"custom_id"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, string(l.ID))
	}

	slices.Sort(ids)

	return ids
}

// All of a small input is drawn, and the lengths are described.
func TestWholeInput(t *testing.T) {
	t.Parallel()

	got := mustDraw(t, 20_000, "", proto.Settings{}, writeFile(t, "in", requests("a", 0, 10, 20, 30)))
	const frame = len(`{"model":"m","prompt":""}`)
	want := Lengths{
		Mean:     float64(frame) + 15,
		Shortest: frame,
		P10:      frame,
		P50:      frame + 10,
		P90:      frame + 30,
		P99:      frame + 30,
		Longest:  frame + 30,
	}
	if got.Lengths != want || got.OfLengths != want || got.Requests != 4 || got.Of != 4 {
		t.Errorf("the sample is %+v, want lengths %+v", got.Sample, want)
	}

	if want := []string{`"a0"`, `"a1"`, `"a2"`, `"a3"`}; !slices.Equal(idsOf(t, got.lines), want) {
		t.Errorf("requests %s", got.lines)
	}
}

// With Limit, the sample is one of the first requests.
func TestLimit(t *testing.T) {
	t.Parallel()

	got := mustDraw(t, 2, "", proto.Settings{Limit: 3}, writeFile(t, "in", requests("a", make([]int, 50)...)))
	for _, id := range idsOf(t, got.lines) {
		if id > `"a2"` {
			t.Errorf("%s is drawn of the first three", id)
		}
	}

	if got.Requests != 2 || got.Of != 3 {
		t.Errorf("the sample is %+v", got.Sample)
	}
}

const prompts = "text,label,id\nalpha,spam,1\nbeta,,2\n\"ga\"\"mma\",ham,3\n"

// Rows become the requests that a run makes of them, with the expected answers of a column that no prompt uses.
func TestTables(t *testing.T) {
	t.Parallel()

	rows := proto.Settings{
		Rows: &proto.Rows{Prompt: "Say {{.text}}"},
		Set:  map[string]string{"user": `"u{{.id}}"`, "max_tokens": "5"},
	}
	line := func(n int, text string) string {
		return fmt.Sprintf(`{"custom_id":"request-%d","method":"POST","url":"/v1/chat/completions",`+
			`"body":{"messages":[{"role":"user","content":"Say %s"}],"user":"u%d"}}`, n, text, n)
	}
	want := map[string]string{
		line(1, "alpha"):   `"spam"`,
		line(2, "beta"):    `null`,
		line(3, `ga\"mma`): `"ham"`,
	}

	jsonRows := `{"text":"alpha","label":"spam","id":1}` + "\n" + `{"text":"beta","id":2}` + "\n" +
		`{"text":"ga\"mma","label":"ham","id":3}`
	for name, file := range map[string]string{
		"CSV":        writeFile(t, "in.csv", prompts),
		"gzip":       writeFile(t, "in.csv.gz", prototest.Gzip(t, prompts)),
		"JSON lines": writeFile(t, "in.jsonl", jsonRows),
		"JSON array": writeFile(t, "in.json", "["+strings.ReplaceAll(jsonRows, "\n", ",")+"]"),
		"Parquet":    writeParquet(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			d := mustDraw(t, 10, "label", rows, file)
			got := map[string]string{}
			answers := strings.Split(d.expected, "\n")
			for i, line := range strings.Split(strings.TrimSuffix(d.lines, "\n"), "\n") {
				got[normalize(t, line)] = answers[i]
			}

			normal := map[string]string{}
			for line, answer := range want {
				normal[normalize(t, line)] = answer
			}
			if diff := cmp.Diff(normal, got); diff != "" {
				t.Errorf("requests and answers (-want +got):\n%s", diff)
			}

			if d.Requests != 3 || d.Expected != 2 {
				t.Errorf("the sample is %+v", d.Sample)
			}
		})
	}
}

// A column that one of several tables lacks is null in its rows, as for templates, and a folder of the path is a column.
func TestSeveralTables(t *testing.T) {
	t.Parallel()

	folder := filepath.Join(t.TempDir(), "lang=de")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}

	third := filepath.Join(folder, "c.csv")
	if err := os.WriteFile(third, []byte("text,label\nc,l3\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	files := []string{
		writeFile(t, "a.csv", "text,id\na,1\n"),
		writeFile(t, "b.jsonl", `{"text":"b","label":"l2"}`),
		third,
	}
	rows := proto.Settings{Rows: &proto.Rows{Prompt: "{{.text}}"}}
	for _, tt := range []struct {
		expect string
		want   map[string]string
	}{
		{"label", map[string]string{`"request-1"`: `null`, `"request-2"`: `"l2"`, `"request-3"`: `"l3"`}},
		{"lang", map[string]string{`"request-1"`: `null`, `"request-2"`: `null`, `"request-3"`: `"de"`}},
	} {
		d := mustDraw(t, 10, tt.expect, rows, files...)
		answers := strings.Split(d.expected, "\n")
		got := map[string]string{}
		for i, line := range strings.Split(strings.TrimSuffix(d.lines, "\n"), "\n") {
			got[idsOf(t, line)[0]] = answers[i]
		}

		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.expect, diff)
		}
	}
}

// normalize returns a JSON text with its members in the order of their names.
func normalize(t *testing.T, text string) string {
	t.Helper()

	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}

	sorted, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}

	return string(sorted)
}

// writeParquet writes the table of prompts.
func writeParquet(t *testing.T) string {
	t.Helper()

	type row struct {
		Text  string  `parquet:"text"`
		Label *string `parquet:"label,optional"`
		ID    int64   `parquet:"id"`
	}

	var out bytes.Buffer
	spam, ham := "spam", "ham"
	w := parquet.NewGenericWriter[row](&out)
	if _, err := w.Write([]row{{"alpha", &spam, 1}, {"beta", nil, 2}, {`ga"mma`, &ham, 3}}); err != nil {
		t.Fatal(err)
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	return writeFile(t, "in.parquet", out.String())
}

// An input that a run refuses is refused, and nothing is written.
func TestRefused(t *testing.T) {
	t.Parallel()

	rows := proto.Settings{Rows: &proto.Rows{Prompt: "{{.text}}"}}
	skip := proto.Settings{SkipInvalid: true}
	good := requests("a", 1, 2)
	for _, tt := range []struct {
		name, text, expect string
		settings           proto.Settings
		want               string
	}{
		{"an empty input", "\n", "", proto.Settings{}, producer.ErrEmpty.Error()},
		{"no rows", "text,b\n", "", rows, producer.ErrNoRows.Error()},
		{"a broken line", good + "{\n", "", proto.Settings{}, "1 of 3 requests cannot be sent"},
		{"a repeated custom_id", good + good[:strings.Index(good, "\n")+1], "", proto.Settings{},
			"1 of 3 requests cannot be sent"},
		{"broken lines alone, to be skipped", "{\n{\n", "", skip, "2 of 2 requests cannot be sent"},
		{"a row without its cell", "text,b\nx,1\n,2\n", "", rows, "1 of 2 requests cannot be sent"},
		{"a field that is not there", good, "labe", proto.Settings{},
			"no request of the sample has the field labe: did you mean label?"},
		{"a field that is null", `{"prompt":"x","label":null}`, "label", proto.Settings{},
			"the field label is null in all requests of the sample: "},
		{"another field", good, "answer.text", proto.Settings{}, "no request of the sample has the field answer.text: " +
			"the first line has the fields custom_id, url, body.model, body.prompt, label"},
		{"a column that is not there", prompts, "answers", rows,
			"the table has no column answers: the table has the columns text, label, id"},
		{"an empty column", "text,label\nx,\n", "label", rows,
			"the column label is empty in all rows of the sample: "},
		{"a column of JSON", `{"text":"x","b":1}` + "\n" + `{"text":"y","c":1}`, "labels", rows,
			"the table has no column labels: the table has the columns text, b, c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			_, err := draw(t, 10, tt.expect, tt.settings, writeFile(t, "in", tt.text))
			if err == nil {
				t.Fatal("no error")
			}

			got := err.Error()
			if missing, ok := errors.AsType[*MissingError](err); ok {
				got += ": " + missing.Hint()
			}
			if got != tt.want {
				t.Errorf("error %q, want %q", got, tt.want)
			}
		})
	}
}

// A duplicate is refused with the place of the first line that has its custom_id, though no line names a model.
func TestRefusedDuplicate(t *testing.T) {
	t.Parallel()

	file := writeFile(t, "in", `{"custom_id":"a","prompt":"x"}`+"\n"+`{"custom_id":"a","prompt":"y"}`)
	_, err := draw(t, 10, "", proto.Settings{}, file)
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok {
		t.Fatalf("error %v, want a RefusedError", err)
	}

	p := refused.Report.Reasons[0].Examples[0]
	want := file + ":2: a: the line has the custom_id of an earlier line: " + file + ":1"
	if p.String() != want {
		t.Errorf("the line is refused with %q, want %q", p, want)
	}
}

// A run of the sample of all requests sends the same ones as a run of the input.
func TestLineSettings(t *testing.T) {
	t.Parallel()

	set := map[string]string{"max_tokens": "5", "user": `"u"`}
	rows := proto.Rows{Prompt: "Say {{.text}}", CustomID: "id"}
	for _, tt := range []struct {
		name, text string
		settings   proto.Settings
	}{
		{"lines", requests("a", randomLengths(50)...) + `{"messages":[],"user":null}`, proto.Settings{Model: "m", Set: set}},
		{"another model", requests("a", 1, 2), proto.Settings{OverrideModel: "m"}},
		{"rows", prompts, proto.Settings{
			Model: "m", Rows: &rows, Set: map[string]string{"max_tokens": "5", "user": `"{{.id}}"`},
			Schema: json.RawMessage(`{"type":"object"}`), Endpoint: "/v1/chat/completions", Sample: 2, Limit: 9,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			file := writeFile(t, "in", tt.text)
			d := mustDraw(t, 100, "", tt.settings, file)

			tt.settings.Sample = 0
			want := readRequests(t, file, tt.settings)
			got := readRequests(t, writeFile(t, "sample", d.lines), LineSettings(tt.settings))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("requests (-input +sample):\n%s", diff)
			}
		})
	}
}

// readRequests returns the requests of a run by their custom_id.
func readRequests(t *testing.T, file string, s proto.Settings) map[string]string {
	t.Helper()

	r, err := producer.NewReader(t.Context(), producer.Source{Files: []string{file}}, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	all := map[string]string{}
	for {
		item, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil || item.Err != nil {
			t.Fatal(item.Place(), item.Err, err)
		}
		all[string(item.CustomID)] = item.URL + " " + string(item.Body)
	}
}
