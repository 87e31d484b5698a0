package export

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

// The answers of each endpoint are one cell: the first choice of several, the calls of tools, a vector.
func TestAnswersOfEndpoints(t *testing.T) {
	t.Parallel()

	line := func(status int, body string) string {
		return fmt.Sprintf(`{"id":"b_0","custom_id":"a","response":{"status_code":%d,"request_id":"r","body":%s},`+
			`"error":null,"promptmill":{"index":0,"attempts":1,"latency_ms":7}}`, status, body)
	}

	for _, tt := range []struct {
		name, endpoint, line string
		want                 []string // answer, finish_reason, error, input_tokens, output_tokens, latency_ms
	}{
		{
			"several choices", "/v1/chat/completions",
			line(200, `{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"length"},`+
				`{"index":1,"message":{"content":"b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`),
			[]string{"a", "length", "", "1", "2", "7"},
		},
		{
			"calls of tools", "/v1/chat/completions",
			line(200, `{"choices":[{"message":{"content":null,"tool_calls":[{"id":"c","type":"function",`+
				`"function":{"name":"f","arguments":"{\"x\": 1}"}}]},"finish_reason":"tool_calls"}]}`),
			[]string{
				`[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"}}]`,
				"tool_calls", "", "", "", "7",
			},
		},
		{
			"a text beside a call", "/v1/chat/completions",
			line(200, `{"choices":[{"message":{"content":"wait","tool_calls":[{"id":"c"}]},"finish_reason":"tool_calls"}]}`),
			[]string{"wait", "tool_calls", "", "", "", "7"},
		},
		{
			"a text in parts", "/v1/chat/completions",
			line(200, `{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}]}`),
			[]string{"ab", "", "", "", "", "7"},
		},
		{
			"a refusal", "/v1/chat/completions",
			line(200, `{"choices":[{"message":{"content":null,"refusal":"no"},"finish_reason":"stop"}]}`),
			[]string{"no", "stop", "", "", "", "7"},
		},
		{
			"no text", "/v1/chat/completions",
			line(200, `{"choices":[{"message":{"content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":4}}`),
			[]string{"", "stop", "", "4", "0", "7"},
		},
		{
			"a completion", "/v1/completions",
			line(200, `{"choices":[{"index":0,"text":" world","finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`),
			[]string{" world", "stop", "", "1", "1", "7"},
		},
		{
			"a response", "/v1/responses",
			line(200, `{"status":"completed","output":[{"type":"reasoning","summary":[]},{"type":"message","content":`+
				`[{"type":"output_text","text":"hi"}]}],"usage":{"input_tokens":3,"output_tokens":2}}`),
			[]string{"hi", "stop", "", "3", "2", "7"},
		},
		{
			"a call of a response", "/v1/responses",
			line(200, `{"status":"completed","output":[{"type":"function_call","name":"f","arguments":"{}"}]}`),
			[]string{`[{"type":"function_call","name":"f","arguments":"{}"}]`, "stop", "", "", "", "7"},
		},
		{
			"an embedding", "/v1/embeddings",
			line(200, `{"data":[{"index":0,"embedding":[0.10,-2e-3]}],"usage":{"prompt_tokens":5,"total_tokens":5}}`),
			[]string{"[0.10,-2e-3]", "", "", "5", "0", "7"},
		},
		{
			"embeddings", "/v1/embeddings",
			line(200, `{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[2]}]}`),
			[]string{"[[1],[2]]", "", "", "", "", "7"},
		},
		{
			"an embedding in base64", "/v1/embeddings",
			line(200, `{"data":[{"index":0,"embedding":"AACAPw=="}]}`),
			[]string{`"AACAPw=="`, "", "", "", "", "7"},
		},
		{
			"a refusal of the server", "/v1/chat/completions",
			line(400, `{"error":{"message":"too long","type":"invalid_request_error","code":null}}`),
			[]string{"", "", "http_400: too long", "", "", "7"},
		},
		{
			"no answer", "/v1/chat/completions",
			`{"id":"b_0","custom_id":"a","response":null,"error":{"code":"timeout","message":"too \"slow\""},` +
				`"promptmill":{"index":0,"attempts":3,"latency_ms":9000}}`,
			[]string{"", "", `timeout: too "slow"`, "", "", "9000"},
		},
		{
			"not sent", "/v1/chat/completions",
			`{"id":"b_0","custom_id":"a","response":null,"error":{"code":"invalid_request","message":"no JSON"},` +
				`"promptmill":{"index":0,"attempts":0,"latency_ms":0}}`,
			[]string{"", "", "invalid_request: no JSON", "", "", ""},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			r := newTestRun(t, "in.csv", "id,text\na,x\n", []string{tt.line}, nil)
			r.cfg.Run.Settings.Rows.CustomID = "id"
			r.cfg.Run.Settings.Endpoint = tt.endpoint

			rows, err := csv.NewReader(bytes.NewReader([]byte(r.write()))).ReadAll()
			must(t, err)
			if diff := cmp.Diff(append([]string{"a", "x"}, tt.want...), rows[1]); diff != "" {
				t.Errorf("row (-want +got):\n%s", diff)
			}

			for _, ending := range []string{".jsonl", ".parquet"} {
				r.cfg.Path = string(r.cfg.Output) + ending
				r.write() // and compares it
			}
		})
	}
}

// Requests that are no rows have a row each in CSV, with their custom_id.
func TestRequestsInCSV(t *testing.T) {
	t.Parallel()

	input := `{"custom_id":"a \"b\"","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]}}` + "\n\n" +
		`{"messages":[{"role":"user","content":"hi"}]}` + "\n"
	r := newTestRun(t, "in.jsonl", input, []string{
		answeredLine(0, `a "b"`, `"content":"x"`),
		answeredLine(1, "request-2", `"content":"y"`),
	}, nil)
	r.cfg.Run.Settings = proto.Settings{Model: "m"}

	want := "custom_id,answer,finish_reason,error,input_tokens,output_tokens,latency_ms\n" +
		"\"a \"\"b\"\"\",x,stop,,3,2,70\nrequest-2,y,stop,,3,2,70\n"
	if diff := cmp.Diff(want, r.write()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// All new columns have the first number with which none is taken.
func TestColumnNames(t *testing.T) {
	t.Parallel()

	for header, want := range map[string]string{
		"text":                         "answer,finish_reason,error",
		"text,Answer":                  "answer_2,finish_reason_2,error_2",
		"text,ERROR,Answer_2":          "answer_3,finish_reason_3,error_3",
		"text,error":                   "answer_2,finish_reason_2,error_2",
		"text,error,answer_2":          "answer_3,finish_reason_3,error_3",
		"text,latency_ms,latency_ms_2": "answer_3,finish_reason_3,error_3",
		"text,answer_2":                "answer,finish_reason,error",
	} {
		cells := bytes.Repeat([]byte("x,"), bytes.Count([]byte(header), []byte(",")))
		r := newTestRun(t, "in.csv", header+"\nx"+string(bytes.TrimSuffix(append([]byte(","), cells...), []byte(",")))+"\n",
			[]string{answeredLine(0, "request-1", `"content":"x"`)}, nil)

		rows := csv.NewReader(bytes.NewReader([]byte(r.write())))
		names, err := rows.Read()
		must(t, err)

		inputs := len(names) - 6
		var got bytes.Buffer
		for _, name := range names[inputs : inputs+3] {
			got.WriteString("," + name)
		}
		if got.String()[1:] != want {
			t.Errorf("%s: columns %s, want %s", header, got.String()[1:], want)
		}

		if _, err := rows.Read(); err != nil {
			t.Error(err)
		}
		if _, err := rows.Read(); err != io.EOF {
			t.Errorf("more than one row: %v", err)
		}
	}
}

// The columns of the fields of a schema have different names, also for readers that do not distinguish upper and lower
// case, and each has the value of its field.
func TestFieldNames(t *testing.T) {
	t.Parallel()

	for properties, want := range map[string]string{
		`"answer":{},"answer.answer":{}`:           "answer.answer.answer=0 answer.answer=1",
		`"answer.answer":{},"answer":{}`:           "answer.answer=0 answer.answer.answer=1",
		`"Error":{},"ANSWER":{}`:                   "answer.Error=0 answer.ANSWER=1",
		`"a":{},"A":{},"answer.A":{}`:              "a=0 answer.answer.A=1 answer.A=2",
		`"a":{"type":"string"},"b":{},"a":{}`:      "b=0 a=1",
		`"error":{},"answer.error":{},"latency":0`: "answer.answer.error=0 answer.error=1 latency=2",
	} {
		a, err := newAnswerColumns(proto.Settings{Schema: []byte(`{"properties":{` + properties + `}}`)}, nil)
		must(t, err)

		p := &answerParser{columns: a, values: make([]table.Value, len(a.all))}
		answer := []byte("{")
		for i, f := range a.fields {
			answer = fmt.Appendf(answer, "%q:%d,", f.Name, i)
		}
		p.readFields(append(answer, `"other":0}`...))

		got := ""
		for i := range a.fields {
			got += fmt.Sprintf(" %s=%s", a.all[1+i].Name, p.values[1+i].Text)
		}
		if got[1:] != want {
			t.Errorf("%s: columns %s, want %s", properties, got[1:], want)
		}
	}
}

// A field with half of a surrogate pair, which no text has, is null. The answer has it.
func TestFieldWithoutText(t *testing.T) {
	t.Parallel()

	r := newTestRun(t, "in.csv", "text\nx\n", []string{
		answeredLine(0, "request-1", `"content":"{\"a\":\"\\ud800\",\"b\":\"\\ud83d\\ude00\",\"c\":\"\"}"`),
	}, nil)
	r.cfg.Path = string(r.cfg.Output) + ".jsonl"
	r.cfg.Run.Settings.Schema = []byte(
		`{"properties":{"a":{"type":"string"},"b":{"type":"string"},"c":{"type":"string"}}}`)

	want := `{"text":"x","answer":"{\"a\":\"\\ud800\",\"b\":\"\\ud83d\\ude00\",\"c\":\"\"}",` +
		`"a":null,"b":"😀","c":"",` +
		`"finish_reason":"stop","error":null,"input_tokens":3,"output_tokens":2,"latency_ms":70}` + "\n"
	if diff := cmp.Diff(want, r.write()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// A queue keeps no more buffers than fit into its window, whatever the rows were that they had.
func TestRowQueueDropsBuffers(t *testing.T) {
	t.Parallel()

	const size, rows = windowBytes / 8, 20
	read := 0
	q := rowQueue{read: func(row *cellRow) (bool, error) {
		read++
		row.text = append(row.text, make([]byte, size)...)
		return read <= rows, nil
	}}

	for range rows { // more than fill reads
		if ok, err := q.readRow(); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	for len(q.rows) > 0 {
		q.pass()
	}

	sum := 0
	for _, row := range q.free {
		sum += cap(row.text)
	}
	if sum != q.freeBytes || sum > windowBytes || len(q.free) == 0 {
		t.Errorf("%d buffers of %d bytes are kept, counted as %d, want at most %d",
			len(q.free), sum, q.freeBytes, windowBytes)
	}
}
