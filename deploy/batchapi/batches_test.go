package batchapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/proto"
)

// TestBatchOnTheWire has batches to the letter.
func TestBatchOnTheWire(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 999) }

	for _, c := range []struct {
		b    batch.Batch
		want string
	}{
		{
			batch.Batch{
				ID:               "batch_1",
				Endpoint:         "/v1/completions",
				InputFileID:      "file-in",
				CompletionWindow: "24h",
				State:            proto.StateValidating,
				CreatedAt:        at(1),
				ExpiresAt:        at(2),
			},
			`{"id":"batch_1","object":"batch","endpoint":"/v1/completions","errors":null,"input_file_id":"file-in",
			"completion_window":"24h","status":"validating","output_file_id":null,"error_file_id":null,"created_at":1,
			"in_progress_at":null,"expires_at":2,"finalizing_at":null,"completed_at":null,"failed_at":null,
			"expired_at":null,"cancelling_at":null,"cancelled_at":null,
			"request_counts":{"total":0,"completed":0,"failed":0},"metadata":null,"problem":null}`,
		},
		{
			batch.Batch{
				ID:               "batch_2",
				Endpoint:         "/v1/completions",
				InputFileID:      "file-in",
				CompletionWindow: "24h",
				Metadata:         map[string]string{"a": "b"},
				Models:           []string{"llama"},
				State:            proto.StatePaused,
				OutputFileID:     "file-out",
				ErrorFileID:      "file-err",
				Total:            10,
				Completed:        3,
				Failed:           2,
				Usage: &batch.Usage{
					Input:           100,
					CachedInput:     50,
					Output:          20,
					ReasoningOutput: 10,
				},
				CreatedAt:    at(1),
				InProgressAt: at(3),
				FinalizingAt: at(4),
				CompletedAt:  at(5),
				ExpiredAt:    at(6),
				CancellingAt: at(7),
				CancelledAt:  at(8),
			},
			`{"id":"batch_2","object":"batch","endpoint":"/v1/completions","model":"llama","errors":null,
			"input_file_id":"file-in","completion_window":"24h","status":"in_progress","output_file_id":"file-out",
			"error_file_id":"file-err","created_at":1,"in_progress_at":3,"expires_at":null,"finalizing_at":4,
			"completed_at":5,"failed_at":null,"expired_at":6,"cancelling_at":7,"cancelled_at":8,
			"request_counts":{"total":10,"completed":3,"failed":2},
			"usage":{"input_tokens":100,"input_tokens_details":{"cached_tokens":50},"output_tokens":20,
			"output_tokens_details":{"reasoning_tokens":10},"total_tokens":120},"metadata":{"a":"b"},"problem":null}`,
		},
		{
			batch.Batch{
				ID:        "batch_3",
				State:     proto.StateFailed,
				Models:    []string{"a", "b"},
				CreatedAt: at(1),
				FailedAt:  at(2),
				Errors: []batch.InputError{
					{
						Code:    "invalid_json_line",
						Message: "No JSON.",
						Line:    7,
						Param:   "body",
					},
					{Code: "more", Message: "And 2 others."},
				},
			},
			`{"id":"batch_3","object":"batch","endpoint":"","errors":{"object":"list","data":[
			{"code":"invalid_json_line","message":"No JSON.","param":"body","line":7},
			{"code":"more","message":"And 2 others.","param":null,"line":null}]},"input_file_id":"",
			"completion_window":"","status":"failed","output_file_id":null,"error_file_id":null,"created_at":1,
			"in_progress_at":null,"expires_at":null,"finalizing_at":null,"completed_at":null,"failed_at":2,
			"expired_at":null,"cancelling_at":null,"cancelled_at":null,
			"request_counts":{"total":0,"completed":0,"failed":0},"metadata":null,"problem":null}`,
		},
	} {
		f := start(t)
		f.batches.add(c.b)

		want := strings.Join(strings.Split(strings.ReplaceAll(c.want, "\t", ""), "\n"), "")
		if got := strings.TrimSpace(f.get("/v1/batches/" + c.b.ID).body); got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	}
}

// TestCreateBatch checks what a batch is created with.
func TestCreateBatch(t *testing.T) {
	f := start(t)
	file := f.upload("{}\n")

	b := decode[batchObject](t, f.post("/v1/batches", `{"unknown":[{"a":1}],"endpoint":"/v1/completions",
		"input_file_id":"`+file.ID+`","completion_window":"7d","metadata":{"a":"b"},"model":"llama",
		"output_expires_after":{"anchor":"created_at","seconds":3600,"more":1}}`))
	if b.InputFileID != file.ID || b.Status != "validating" || b.Metadata["a"] != "b" {
		t.Errorf("%+v", b)
	}

	decode[batchObject](t, f.post("/v1/batches", `{"input_file_id":"`+file.ID+`","metadata":null,"requests":null}`))

	want := []batch.Request{
		{
			Endpoint:           "/v1/completions",
			InputFileID:        file.ID,
			CompletionWindow:   "7d",
			Metadata:           map[string]string{"a": "b"},
			Model:              "llama",
			OutputExpiresAfter: time.Hour,
		},
		{InputFileID: file.ID, CompletionWindow: "24h"},
	}
	if fmt.Sprint(f.batches.requests) != fmt.Sprint(want) {
		t.Errorf("%+v", f.batches.requests)
	}

	retried := http.Header{"Idempotency-Key": {"k"}}
	again := decode[batchObject](t, f.send(http.MethodPost, "/v1/batches", retried,
		strings.NewReader(`{"input_file_id":"`+file.ID+`"}`)))
	if again.ID != b.ID {
		t.Errorf("%+v", again)
	}
}

// TestInlineBatch checks the file that the requests of a body become, for members in several orders.
func TestInlineBatch(t *testing.T) {
	const requests = `"requests" : [ {"custom_id" : "a b", "body": {"x": 1.0e+1, "y": "\u00e9 \/", "x": 2 } , "z":1},
		{"body":{"n":18446744073709551617},"custom_id":null,"url":"/v1/embeddings"},
		{"params":{ },"method":"GET"} ]`

	withURL := `{"custom_id":"a b","method":"POST","url":"/v1/completions","body":{"x":1.0e+1,"y":"\u00e9 \/","x":2}}
{"method":"POST","url":"/v1/embeddings","body":{"n":18446744073709551617}}
{"method":"GET","url":"/v1/completions","body":{}}
`
	withoutURL := strings.ReplaceAll(withURL, `"url":"/v1/completions",`, "")

	for body, want := range map[string]string{
		`{"endpoint":"/v1/completions",` + requests + `}`:               withURL,
		`{` + requests + `,"endpoint":"/v1/completions"}`:               withoutURL,
		`{"model":"m","endpoint":"/v1/completions",` + requests + ` } `: withURL,
	} {
		f := start(t)

		b := decode[batchObject](t, f.post("/v1/batches", body))
		if got := f.get("/v1/files/" + b.InputFileID + "/content").body; got != want {
			t.Errorf("%s becomes\n%s", body, got)
		}

		file := decode[fileObject](t, f.get("/v1/files/"+b.InputFileID))
		if file.Filename != "requests.jsonl" || file.Purpose != "batch" {
			t.Errorf("%+v", file)
		}
		if q := f.batches.requests[0]; q.Endpoint != "/v1/completions" || q.CompletionWindow != "24h" {
			t.Errorf("%+v", q)
		}
	}
}

// TestInlineBatchOfAnySize sends requests that are larger than other bodies may be, in a chunked body.
func TestInlineBatchOfAnySize(t *testing.T) {
	f := start(t)

	one := `{"body":{"prompt":"` + strings.Repeat("x", 100<<10) + `"}}`
	body := `{"endpoint":"/v1/completions","requests":[` + strings.Repeat(one+",", 99) + one + `],"metadata":{"a":"b"}}`
	b := decode[batchObject](t, f.send(http.MethodPost, "/v1/batches", nil, io.MultiReader(strings.NewReader(body))))
	if b.Metadata["a"] != "b" {
		t.Errorf("%+v", b)
	}

	got := f.get("/v1/files/" + b.InputFileID + "/content").body
	if n := strings.Count(got, "\n"); n != 100 || len(got) < len(body) {
		t.Errorf("%d lines, %d bytes of %d", n, len(got), len(body))
	}
}

// TestRetriedInlineBatch repeats the creation of a batch with its requests, which are uploaded again.
func TestRetriedInlineBatch(t *testing.T) {
	f := start(t)

	const body = `{"endpoint":"/v1/completions","requests":[{"body":{}}]}`
	first := decode[batchObject](t, f.post("/v1/batches", body))
	again := decode[batchObject](t, f.send(http.MethodPost, "/v1/batches",
		http.Header{"X-Stainless-Retry-Count": {"1"}}, strings.NewReader(body)))
	if again.ID != first.ID {
		t.Errorf("%+v, and then %+v", first, again)
	}

	f.batches.err = errors.New("no")
	f.post("/v1/batches", strings.Replace(body, "{}", `{"a":1}`, 1))

	if n := f.countStored(); n != 2 {
		t.Errorf("%d files are stored", n)
	}
}

// TestListBatches pages through batches, newest first.
func TestListBatches(t *testing.T) {
	f := start(t)

	var want []string
	for i := range 45 {
		id := fmt.Sprintf("batch_%d", i)
		f.batches.add(batch.Batch{ID: id, State: proto.StateCompleted})
		want = append(want, id)
	}
	slices.Reverse(want)

	var got []string
	for path := "/v1/batches"; ; {
		page := decode[listObject[batchObject]](t, f.get(path))
		for _, b := range page.Data {
			got = append(got, b.ID)
		}

		if len(got) == 20 && (*page.FirstID != "batch_44" || *page.LastID != "batch_25" || !page.HasMore) {
			t.Errorf("%+v", page)
		}
		if !page.HasMore {
			break
		}
		path = "/v1/batches?after=" + *page.LastID
	}

	if !slices.Equal(got, want) {
		t.Error(got)
	}

	if page := decode[listObject[batchObject]](t, f.get("/v1/batches?limit=100")); len(page.Data) != 45 || page.HasMore {
		t.Errorf("%d batches", len(page.Data))
	}
}

// TestCancelBatch cancels a batch.
func TestCancelBatch(t *testing.T) {
	f := start(t)
	f.batches.add(batch.Batch{ID: "batch_1", State: proto.StateInProgress})

	if b := decode[batchObject](t, f.post("/v1/batches/batch_1/cancel", "")); b.Status != "cancelling" {
		t.Errorf("%+v", b)
	}

	f.batches.err = &batch.RequestError{Message: "Batch batch_1 is completed.", Code: "batch_ended"}
	f.post("/v1/batches/batch_1/cancel", "").checkError(t, 400, "", "batch_ended", "Batch batch_1 is completed.")
}

// TestResults reads answers and failures as one file.
func TestResults(t *testing.T) {
	f := start(t)

	const path = "/v1/batches/batch_1/results"
	f.batches.add(batch.Batch{ID: "batch_1", State: proto.StateValidating})
	if a := f.get(path); a.status != 200 || a.body != "" || a.header.Get("X-Incomplete") != "true" ||
		a.header.Get("X-Last-Line") != "0" {
		t.Errorf("%+v", a)
	}

	for _, complete := range []bool{false, true} {
		state := proto.StateInProgress
		if complete {
			state = proto.StateCompleted
		}
		f.batches.batches[0] = batch.Batch{
			ID:           "batch_1",
			State:        state,
			OutputFileID: "file-out",
			ErrorFileID:  "file-err",
		}
		f.batches.setOutput("file-out", &fakeOutput{text: "{\"a\":1}\n{\"b\":1}\n", complete: complete})
		f.batches.setOutput("file-err", &fakeOutput{text: "{\"c\":1}\n", complete: complete})

		a := f.get(path)
		incomplete, last := a.header.Get("X-Incomplete"), a.header.Get("X-Last-Line")
		if a.body != "{\"a\":1}\n{\"b\":1}\n{\"c\":1}\n" || a.header.Get("Content-Length") != "24" ||
			(incomplete == "true") == complete || (last == "3") == complete {
			t.Errorf("%+v", a)
		}
	}
}

// FuzzCreateBatch gives bodies to the parser. What it accepts is the same as what encoding/json reads,
// and each line of the stored file is a request.
func FuzzCreateBatch(f *testing.F) {
	store, err := filestore.Open(f.TempDir(), zerolog.Nop())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { store.Close() })

	for _, body := range []string{
		`{}`, `[]`, `{"requests":[]}`, `{"requests":null,"endpoint":"a"}`, `{"requests":[{"body":{}}]}`,
		`{"endpoint":"/v1/x","requests":[{"custom_id":"a","body":{"a":[1,2]}},{"params":{}}],"metadata":{"a":"b"}}`,
		`{"requests":[{"body":{}},`, `{"requests":[{"body":"\ud800"}]}`, `{"a":{"requests":[1]},"model":"m"} x`,
		"{\"requests\":[{\"body\":{\n\t\"a\" : \"\\n\"}}]}", `{"requests":[{"body":1,"params":2}]}`,
	} {
		f.Add([]byte(body))
	}

	f.Fuzz(func(t *testing.T, body []byte) {
		var text []byte
		storeLines := func(r io.Reader) (*filestore.Pending, error) {
			var err error
			if text, err = io.ReadAll(r); err != nil {
				return nil, err
			}
			return store.Begin(t.Context(), bytes.NewReader(text))
		}

		fields, pending, err := readCreateBatch(bytes.NewReader(body), func() error { return nil }, storeLines)
		if err != nil {
			if _, ok := errors.AsType[*failure](err); !ok {
				t.Errorf("%q: %v is no error for a client", body, err)
			}
			return
		}
		if pending != nil {
			pending.Abort()
		}

		var want struct {
			InputFileID string                       `json:"input_file_id"`
			Endpoint    string                       `json:"endpoint"`
			Requests    []map[string]json.RawMessage `json:"requests"`
		}
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatalf("%q: %v", body, err)
		}

		if fields.InputFileID != want.InputFileID || fields.Endpoint != want.Endpoint {
			t.Errorf("%q is read as %+v", body, fields)
		}

		lines := bytes.SplitAfter(text, []byte("\n"))
		if lines = lines[:len(lines)-1]; len(lines) != len(want.Requests) {
			t.Fatalf("%q becomes %q", body, text)
		}

		for i, line := range lines {
			var got map[string]json.RawMessage
			if err := json.Unmarshal(line, &got); err != nil {
				t.Fatalf("%q becomes %q: %v", body, line, err)
			}

			sent := want.Requests[i]["body"]
			if sent == nil {
				sent = want.Requests[i]["params"]
			}
			var compact bytes.Buffer
			if err := json.Compact(&compact, sent); err != nil || compact.String() != string(got["body"]) {
				t.Errorf("the body %q becomes %q", sent, got["body"])
			}
		}
	})
}

// A batch whose models no ready worker serves has that as its problem, and one that is not collected the reason.
func TestBatchProblems(t *testing.T) {
	f := start(t)
	f.workers = []proto.WorkerInfo{workerOf("vllm", 1, "llama")}
	old := time.Now().Add(-time.Minute)
	for id, b := range map[string]batch.Batch{
		"no worker serves gpt":    {Models: []string{"gpt", "llama"}, InProgressAt: old},
		"no space left on device": {Models: []string{"gpt"}, InProgressAt: old, Problem: "no space left on device"},
		"":                        {Models: []string{"llama"}, InProgressAt: old},
		"new":                     {Models: []string{"gpt"}, InProgressAt: time.Now()},
	} {
		b.ID, b.State = "batch_"+strings.ReplaceAll(id, " ", "-"), proto.StateInProgress
		f.batches.add(b)
		want := strings.TrimSuffix(id, "new")
		got := decode[batchObject](t, f.get("/v1/batches/"+b.ID)).Problem
		if (got == nil) != (want == "") || got != nil && *got != want {
			t.Errorf("batch %s has the problem %v", b.ID, got)
		}
	}

	for _, b := range decode[listObject[batchObject]](t, f.get("/v1/batches")).Data {
		if (b.Problem != nil) != strings.Contains(b.ID, "-") {
			t.Errorf("batch %s is listed with the problem %v", b.ID, b.Problem)
		}
	}
}
