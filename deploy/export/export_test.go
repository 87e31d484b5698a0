package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

// testRun is a run of rows in CSV, with its output.
type testRun struct {
	t   *testing.T
	dir string
	cfg Config
}

// newTestRun writes an input and the output lines of its rows.
func newTestRun(t *testing.T, name, input string, answered, failed []string) testRun {
	t.Helper()

	dir := t.TempDir()
	path := filepath.Join(dir, name)
	must(t, os.WriteFile(path, []byte(input), 0o644))

	out := output.Prefix(filepath.Join(dir, "out"))
	writeLines(t, out.Results(), answered)
	if len(failed) > 0 {
		writeLines(t, out.Errors(), failed)
	}

	r := testRun{t: t, dir: dir}
	r.cfg = Config{
		Input:   producer.Source{Files: []string{path}},
		Output:  out,
		Ordered: true,
		Path:    string(out) + ".csv",
	}
	r.cfg.Run.Input.Requests = len(answered) + len(failed)
	r.cfg.Run.Settings.Rows = &proto.Rows{Prompt: "{{.text}}"}

	return r
}

// writeLines writes output lines as a run writes them.
func writeLines(t *testing.T, path string, lines []string) {
	t.Helper()

	var file bytes.Buffer
	w, err := zstd.NewWriter(&file)
	must(t, err)

	for _, line := range lines {
		_, err := w.Write([]byte(line + "\n"))
		must(t, err)
	}

	must(t, w.Close())
	must(t, os.WriteFile(path, file.Bytes(), 0o644))
}

// answeredLine is the line of an answered request.
func answeredLine(index int, id, message string) string {
	return fmt.Sprintf(`{"id":"b_%d","custom_id":%q,"response":{"status_code":200,"request_id":"r","body":`+
		`{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant",%s}}],`+
		`"usage":{"prompt_tokens":3,"completion_tokens":2}}},"error":null,`+
		`"promptmill":{"index":%d,"attempts":1,"latency_ms":70}}`, index, id, message, index)
}

// failedLine is the line of a request without an answer.
func failedLine(index int, id string) string {
	return fmt.Sprintf(`{"id":"b_%d","custom_id":%q,"response":null,"error":{"code":"timeout","message":"too slow"},`+
		`"promptmill":{"index":%d}}`, index, id, index)
}

// write writes the table and returns it.
func (r testRun) write() string {
	r.t.Helper()

	tables, err := Write(r.t.Context(), r.cfg)
	must(r.t, err)

	var all []string
	for _, file := range tables {
		path := filepath.Join(r.dir, file.File)
		text, err := os.ReadFile(path)
		must(r.t, err)

		if sum, _, err := output.HashFile(path); err != nil || sum != file.SHA256 {
			r.t.Errorf("%s has the SHA-256 %s (%v), not %s", file.File, sum, err, file.SHA256)
		}
		all = append(all, string(text))
	}

	if c, err := Check(r.t.Context(), r.cfg); err != nil || c.Err() != nil {
		r.t.Errorf("the table does not match its run: %v, %v %q", err, c.Err(), c.Examples)
	}

	return strings.Join(all, "-- \n")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const ticketsCSV = "id,text\n7,hello\n8,\"two\nlines, and a \"\"quote\"\"\"\n9,\n"

func TestWriteCSV(t *testing.T) {
	t.Parallel()

	r := newTestRun(t, "tickets.csv", ticketsCSV, []string{
		answeredLine(0, "request-1", `"content":"Grüße\r\n, \"x\""`),
		answeredLine(2, "request-3", `"content":null,"tool_calls":[{"id":"c"}]`),
	}, []string{failedLine(1, "request-2")})

	want := "id,text,answer,finish_reason,error,input_tokens,output_tokens,latency_ms\n" +
		"7,hello,\"Grüße\r\n, \"\"x\"\"\",stop,,3,2,70\n" +
		"8,\"two\nlines, and a \"\"quote\"\"\",,,timeout: too slow,,,\n" +
		"9,,\"[{\"\"id\"\":\"\"c\"\"}]\",stop,,3,2,70\n"
	if diff := cmp.Diff(want, r.write()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// Each shard has a header, and the rows are spread evenly.
func TestWriteShards(t *testing.T) {
	t.Parallel()

	r := newTestRun(t, "tickets.csv", ticketsCSV, nil, []string{
		failedLine(0, "request-1"), failedLine(1, "request-2"), failedLine(2, "request-3"),
	})
	r.cfg.Shards = 2
	r.cfg.Path = string(r.cfg.Output) + ".tsv"

	const header = "id\ttext\tanswer\tfinish_reason\terror\tinput_tokens\toutput_tokens\tlatency_ms\n"
	want := header + "7\thello\t\t\ttimeout: too slow\t\t\t\n" +
		"8\t\"two\nlines, and a \"\"quote\"\"\"\t\t\ttimeout: too slow\t\t\t\n-- \n" +
		header + "9\t\t\t\ttimeout: too slow\t\t\t\n"
	if diff := cmp.Diff(want, r.write()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// Rows of JSON keep their types, their digits and their own columns. The new columns have other names if one
// of theirs is taken, and the fields of a schema are typed.
func TestWriteJSONL(t *testing.T) {
	t.Parallel()

	r := newTestRun(t, "rows.jsonl", `{"text":"a","n":1.10,"answer":12345678901234567890}`+"\n"+
		`{"text":"b","list":[1,2]}`+"\n", []string{
		answeredLine(0, "request-1", `"content":"{\"ok\":true,\"score\":0.10,\"error\":\"none\",\"tags\":[\"x\"]}"`),
		answeredLine(1, "request-2", `"content":"{\"ok\":false,\"score\":2}"`),
	}, nil)
	r.cfg.Path = string(r.cfg.Output) + ".jsonl"
	r.cfg.Run.Settings.Schema = []byte(`{"type":"object","properties":{"ok":{"type":"boolean"},` +
		`"score":{"type":["number","null"]},"error":{"type":"string"},"tags":{"type":"array"}}}`)

	want := `{"text":"a","n":1.10,"answer":12345678901234567890,` +
		`"answer_2":"{\"ok\":true,\"score\":0.10,\"error\":\"none\",\"tags\":[\"x\"]}",` +
		`"ok_2":true,"score_2":0.10,"answer.error_2":"none","tags_2":["x"],` +
		`"finish_reason_2":"stop","error_2":null,"input_tokens_2":3,"output_tokens_2":2,"latency_ms_2":70}` + "\n" +
		`{"text":"b","list":[1,2],"answer_2":"{\"ok\":false,\"score\":2}",` +
		`"ok_2":false,"score_2":2,"answer.error_2":null,"tags_2":null,` +
		`"finish_reason_2":"stop","error_2":null,"input_tokens_2":3,"output_tokens_2":2,"latency_ms_2":70}` + "\n"
	if diff := cmp.Diff(want, r.write()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// Lines in any order give the same table.
func TestWriteUnordered(t *testing.T) {
	t.Parallel()

	const rows = 2000
	input := strings.Builder{}
	input.WriteString("text\n")
	var lines []string
	for i := range rows {
		fmt.Fprintf(&input, "t%d\n", i)
		lines = append(lines, answeredLine(i, fmt.Sprintf("request-%d", i+1), fmt.Sprintf(`"content":"a%d"`, i)))
	}

	ordered := newTestRun(t, "in.csv", input.String(), lines, nil)
	want := ordered.write()

	mixed := make([]string, rows)
	for i, line := range lines {
		mixed[(i*7919)%rows] = line
	}

	r := newTestRun(t, "in.csv", input.String(), mixed, nil)
	r.cfg.Ordered = false

	if diff := cmp.Diff(want, r.write()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}

	if left, err := filepath.Glob(filepath.Join(r.dir, ".promptmill-sort-*")); err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %q %v", left, err)
	}
}

// An output that does not have exactly one line for each row gives no table.
func TestWriteMismatch(t *testing.T) {
	t.Parallel()

	line := func(i int) string { return answeredLine(i, fmt.Sprintf("request-%d", i+1), `"content":"x"`) }
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"a line is missing", []string{line(0), line(2)}, "tickets.csv, row 2: the output has no line for it"},
		{"the last line is missing", []string{line(0), line(1)}, "tickets.csv, row 3: the output has no line for it"},
		{
			"a line is there twice",
			[]string{line(0), line(0), line(1), line(2)},
			"tickets.csv, row 2: the output has a line of request 1, \"request-1\", before its line: a second one, or one of another run",
		},
		{
			"a line too many",
			[]string{line(0), line(1), line(2), line(3)},
			"the output does not match its input: it has 3 requests, and the output has a further line, of request 4, \"request-4\"",
		},
		{
			"another custom_id",
			[]string{line(0), answeredLine(1, "b", `"content":"x"`), line(2)},
			"tickets.csv, row 2: its custom_id is \"request-2\", and its output line has \"b\"",
		},
	} {
		for _, ordered := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, ordered %t", tt.name, ordered), func(t *testing.T) {
				t.Parallel()

				r := newTestRun(t, "tickets.csv", ticketsCSV, tt.lines, nil)
				r.cfg.Run.Input.Requests, r.cfg.Ordered = 3, ordered

				_, err := Write(t.Context(), r.cfg)
				if mismatch, ok := errors.AsType[*MismatchError](err); !ok || mismatch.Error() != tt.want {
					t.Errorf("error %v, want %s", err, tt.want)
				}

				if _, err := os.Stat(r.cfg.Path); err == nil {
					t.Error("the table is there")
				}
			})
		}
	}
}

// No file of a table appears before all are whole, and the input is checked once, at the end.
func TestWriteShardsAtOnce(t *testing.T) {
	t.Parallel()

	lines := []string{failedLine(0, "request-1"), failedLine(1, "request-2"), failedLine(2, "request-3")}
	r := newTestRun(t, "tickets.csv", ticketsCSV, nil, lines)
	r.cfg.Shards = 3

	checks := 0
	r.cfg.CheckInput = func(context.Context) error {
		checks++
		if got := r.listTables(); len(got) > 0 {
			t.Errorf("before the check there is %q", got)
		}
		return nil
	}
	if _, err := Write(t.Context(), r.cfg); err != nil || checks != 1 {
		t.Errorf("error %v, and %d checks of the input, want 1", err, checks)
	}
	if got := r.listTables(); len(got) != 3 {
		t.Errorf("the files are %q, want 3", got)
	}

	r = newTestRun(t, "tickets.csv", ticketsCSV, nil, lines[:2]) // the last row has no line
	r.cfg.Shards, r.cfg.Run.Input.Requests = 3, 3
	_, err := Write(t.Context(), r.cfg)
	if mismatch, ok := errors.AsType[*MismatchError](err); !ok || mismatch.Row != 3 {
		t.Errorf("error %v, want one of row 3", err)
	}
	if got := r.listTables(); len(got) > 0 {
		t.Errorf("after the error there is %q", got)
	}
	if left, err := filepath.Glob(filepath.Join(r.dir, "*.tmp")); err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %q %v", left, err)
	}
}

// listTables returns the files of the table that have appeared.
func (r testRun) listTables() []string {
	r.t.Helper()
	all, err := filepath.Glob(string(r.cfg.Output) + "*.csv")
	must(r.t, err)
	return all
}

// Check finds each change of a table.
func TestCheck(t *testing.T) {
	t.Parallel()

	r := newTestRun(t, "tickets.csv", ticketsCSV, nil, []string{
		failedLine(0, "request-1"), failedLine(1, "request-2"), failedLine(2, "request-3"),
	})
	text := r.write()

	for _, tt := range []struct {
		name, from, to string
		want           Comparison
		err            string
	}{
		{
			"a cell", "7,hello", "7,Hello",
			Comparison{Rows: 3, Found: 3, Differing: 1, Examples: []string{
				`out.csv, row 1: text is "Hello", must be "hello"`,
			}},
			"the table is not as the run gives it: 1 row differs",
		},
		{
			"an answer", "9,,,", "9,,yes,",
			Comparison{Rows: 3, Found: 3, Differing: 1, Examples: []string{
				`out.csv, row 3: answer is "yes", must be empty`,
			}},
			"the table is not as the run gives it: 1 row differs",
		},
		{
			"a column", "id,text", "id,texts",
			Comparison{Rows: 3, Found: 3, Examples: []string{
				`out.csv: it has no column "text"`,
				`out.csv: it must not have column 2, "texts"`,
			}},
			"the table is not as the run gives it: it has other columns or other types",
		},
		{
			"columns in another order", "id,text", "text,id",
			Comparison{Rows: 3, Found: 3, Differing: 3, Examples: []string{
				`out.csv: column 1 is "text", must be "id"`,
				`out.csv: column 2 is "id", must be "text"`,
				`out.csv, row 1: id is "hello", must be "7"`,
				`out.csv, row 2: id is "two\nlines, and a \"quote\"", must be "8"`,
				`out.csv, row 3: id is empty, must be "9"`,
			}},
			"the table is not as the run gives it: 3 rows differ",
		},
		{
			"a row less", "9,,,,timeout: too slow,,,\n", "",
			Comparison{Rows: 3, Found: 2, Missing: 1, Examples: []string{
				`tickets.csv, row 3 (id "9"): it is missing in the table, after out.csv, row 2`,
			}},
			"the table is not as the run gives it: 1 row missing",
		},
		{
			"the first row less", "7,hello,,,timeout: too slow,,,\n", "",
			Comparison{Rows: 3, Found: 2, Missing: 1, Examples: []string{
				`tickets.csv, row 1 (id "7"): it is missing in the table, before the first row`,
			}},
			"the table is not as the run gives it: 1 row missing",
		},
		{
			"a row more", "9,,,,timeout: too slow,,,\n", "9,,,,timeout: too slow,,,\n10,,,,,,,\n",
			Comparison{Rows: 3, Found: 4, Extra: 1, Examples: []string{
				`out.csv, row 4 (id "10"): it is one row too many`,
			}},
			"the table is not as the run gives it: 1 row too many",
		},
		{
			"a row twice", "7,hello,,,timeout: too slow,,,\n",
			"7,hello,,,timeout: too slow,,,\n7,hello,,,timeout: too slow,,,\n",
			Comparison{Rows: 3, Found: 4, Extra: 1, Examples: []string{
				`out.csv, row 2 (id "7"): it is one row too many, and repeats row 1`,
			}},
			"the table is not as the run gives it: 1 row too many",
		},
		{
			"a ragged row", "9,,,,timeout: too slow,,,\n", "9,,,\n",
			Comparison{Rows: 3, Found: 3, Differing: 1, Examples: []string{
				"out.csv, row 3: it has 4 fields, and the header has 8",
			}},
			"the table is not as the run gives it: 1 row differs",
		},
	} {
		must(t, os.WriteFile(r.cfg.Path, []byte(strings.Replace(text, tt.from, tt.to, 1)), 0o644))

		got, err := Check(t.Context(), r.cfg)
		must(t, err)

		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(Comparison{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}

		if err := got.Err(); err == nil || err.Error() != tt.err {
			t.Errorf("%s: error %v, want %s", tt.name, err, tt.err)
		}
	}
}

// The end of the context ends the work, and leaves no file.
func TestWriteInterrupted(t *testing.T) {
	t.Parallel()

	r := newTestRun(t, "tickets.csv", ticketsCSV, nil, []string{
		failedLine(0, "request-1"), failedLine(1, "request-2"), failedLine(2, "request-3"),
	})
	cause := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	r.cfg.CheckInput = func(context.Context) error {
		cancel(cause)
		return context.Cause(ctx)
	}

	if _, err := Write(ctx, r.cfg); !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}

	if left, err := filepath.Glob(string(r.cfg.Output) + ".csv*"); err != nil || len(left) > 0 {
		t.Errorf("files are left: %q %v", left, err)
	}
}

// A number of an answer that is larger than the type of its column is kept: the column has text then. A value that
// is none of the type is null, and the answer has it.
func TestWriteWideNumbers(t *testing.T) {
	t.Parallel()

	r := newTestRun(t, "rows.csv", "text\na\nb\nc\nd\n", []string{
		answeredLine(0, "request-1", `"content":"{\"n\":1,\"x\":0.5,\"m\":1e2}"`),
		answeredLine(1, "request-2", `"content":"{\"n\":12345678901234567890123,\"x\":1e400,\"m\":-9223372036854775808}"`),
		answeredLine(2, "request-3", `"content":"{\"n\":1.5,\"x\":\"high\",\"m\":1.0}"`),
		answeredLine(3, "request-4", `"content":"no JSON"`),
	}, nil)
	r.cfg.Run.Settings.Schema = []byte(`{"type":"object","properties":{` +
		`"n":{"type":"integer"},"x":{"type":"number"},"m":{"type":"integer"}}}`)

	want := "text,answer,n,x,m,finish_reason,error,input_tokens,output_tokens,latency_ms\n" +
		"a,\"{\"\"n\"\":1,\"\"x\"\":0.5,\"\"m\"\":1e2}\",1,0.5,1e2,stop,,3,2,70\n" +
		"b,\"{\"\"n\"\":12345678901234567890123,\"\"x\"\":1e400,\"\"m\"\":-9223372036854775808}\"," +
		"12345678901234567890123,1e400,-9223372036854775808,stop,,3,2,70\n" +
		"c,\"{\"\"n\"\":1.5,\"\"x\"\":\"\"high\"\",\"\"m\"\":1.0}\",,,1.0,stop,,3,2,70\n" +
		"d,no JSON,,,,stop,,3,2,70\n"
	if diff := cmp.Diff(want, r.write()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}

	r.cfg.Path, r.cfg.Shards = string(r.cfg.Output)+".parquet", 2
	r.write() // and compares it

	var got [][]string
	for _, path := range Paths(r.cfg.Path, r.cfg.Shards) {
		rows, columns := readTable(t, path)
		if kinds := fmt.Sprint(columns["n"], columns["x"], columns["m"]); kinds !=
			fmt.Sprint(table.KindText, table.KindText, table.KindInt) {
			t.Errorf("%s: the columns n, x and m have the kinds %s", path, kinds)
		}
		for _, row := range rows {
			got = append(got, row[2:5])
		}
	}

	if diff := cmp.Diff([][]string{
		{"1", "0.5", "100"}, {"12345678901234567890123", "1e400", "-9223372036854775808"}, {"", "", "1"}, {"", "", ""},
	}, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

// TestCheckTypes finds columns of Parquet with the right values and another type: of the input's and of the answers'.
func TestCheckTypes(t *testing.T) {
	t.Parallel()

	r := newTestRun(t, "in.csv", "text\nx\n", []string{answeredLine(0, "request-1", `"content":"1"`)}, nil)
	r.cfg.Path = string(r.cfg.Output) + ".parquet"
	r.write()

	columns := []table.Column{
		{Name: "text", Kind: table.KindText},
		{Name: "answer", Kind: table.KindText},
		{Name: "finish_reason", Kind: table.KindText},
		{Name: "error", Kind: table.KindText},
		{Name: "input_tokens", Kind: table.KindInt},
		{Name: "output_tokens", Kind: table.KindInt},
		{Name: "latency_ms", Kind: table.KindInt},
	}
	values := []table.Value{
		textValue([]byte("x")), textValue([]byte("1")), textValue([]byte("stop")), {}, intValue(3), intValue(2), intValue(70),
	}

	for _, tt := range []struct {
		column int
		kind   table.Kind
		value  table.Value
		want   []string
	}{
		{0, table.KindText, values[0], []string{}},
		{1, table.KindJSON, table.Value{Kind: table.KindJSON, Text: []byte(`"1"`)}, nil},
		{4, table.KindFloat, table.Value{Kind: table.KindFloat, Bits: math.Float64bits(3)}, []string{
			`out.parquet: column "input_tokens" has another type`,
		}},
		{6, table.KindUint, table.Value{Kind: table.KindUint, Bits: 70}, []string{
			`out.parquet: column "latency_ms" has another type`,
		}},
		{3, table.KindBytes, table.Value{}, []string{`out.parquet: column "error" has another type`}},
	} {
		changed, row := slices.Clone(columns), slices.Clone(values)
		changed[tt.column].Kind, row[tt.column] = tt.kind, tt.value

		var file bytes.Buffer
		w, err := newParquetWriter(&file, changed, "run-1")
		must(t, err)
		must(t, w.close(w.writeRow(changed, row)))
		must(t, os.WriteFile(r.cfg.Path, file.Bytes(), 0o644))

		c, err := Check(t.Context(), r.cfg)
		must(t, err)

		if diff := cmp.Diff(tt.want, c.Examples); tt.want != nil && diff != "" {
			t.Errorf("%s as kind %d (-want +got):\n%s", columns[tt.column].Name, tt.kind, diff)
		}
		if isSame := columns[tt.column].Kind == tt.kind; c.Complete != isSame {
			t.Errorf("%s as kind %d: complete is %t", columns[tt.column].Name, tt.kind, c.Complete)
		}
	}
}

// readTable returns the texts of the values of a table, and the kinds of its columns.
func readTable(t *testing.T, path string) (rows [][]string, kinds map[string]table.Kind) {
	t.Helper()

	local := inputfile.Local{}
	file, err := local.Stat(t.Context(), path)
	must(t, err)

	r, err := table.Open(t.Context(), table.Config{Opener: local, File: file})
	must(t, err)
	defer r.Close()

	kinds = map[string]table.Kind{}
	for _, c := range r.Columns() {
		kinds[c.Name] = c.Kind
	}

	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return rows, kinds
		}
		must(t, err)

		var texts []string
		for _, v := range row.Values {
			texts = append(texts, string(v.AppendText(nil)))
		}
		rows = append(rows, texts)
	}
}

// Numbers of JSON that no type is sure to hold are text in Parquet, and compare as such.
func TestWriteLargeNumbersOfRows(t *testing.T) {
	t.Parallel()

	r := newTestRun(t, "rows.jsonl",
		`{"text":"a","n":12345678901234567890123,"m":1}`+"\n"+`{"text":"b","n":1,"m":"x"}`+"\n",
		nil, []string{failedLine(0, "request-1"), failedLine(1, "request-2")})
	r.cfg.Path = string(r.cfg.Output) + ".parquet"
	r.write() // and compares it
}

// The answer that does not match the schema is in the table, but no field of it.
func TestWriteSchemaMismatch(t *testing.T) {
	t.Parallel()

	line := strings.Replace(answeredLine(0, "request-1", `"content":"{\"n\":\"one\"}"`), `"error":null`,
		`"error":{"code":"schema_mismatch","message":"n is no integer"}`, 1)
	r := newTestRun(t, "rows.csv", "text\na\n", nil, []string{line})
	r.cfg.Run.Settings.Schema = []byte(`{"properties":{"n":{"type":"integer"}}}`)

	want := "text,answer,n,finish_reason,error,input_tokens,output_tokens,latency_ms\n" +
		"a,\"{\"\"n\"\":\"\"one\"\"}\",,stop,schema_mismatch: n is no integer,3,2,70\n"
	if diff := cmp.Diff(want, r.write()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}
