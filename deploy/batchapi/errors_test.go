package batchapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/proto"
)

// TestErrors has the errors of each route to the letter. None of them changes what is stored.
func TestErrors(t *testing.T) {
	const unknown = "file-00000000000000000000000a"

	f := start(t)
	file := f.upload("{}\n")
	other := f.upload("{}\n{}\n")
	f.batches.add(batch.Batch{ID: "batch_1", InputFileID: other.ID, State: proto.StateInProgress})
	f.batches.add(batch.Batch{ID: "batch_2x", State: proto.StateCompleted, OutputFileID: "file-answers"})
	f.batches.setOutput("file-answers", &fakeOutput{text: "{}\n", complete: true})
	upload := decode[uploadObject](t, f.post("/v1/uploads", `{"filename":"a","purpose":"batch","bytes":2}`))
	before := f.countStored()

	const noForm = "send a form of the type multipart/form-data, with the file in the field "
	goneFile := "There is no file " + unknown + ": it never existed, has expired or was deleted."

	for _, c := range []struct {
		method, path, body string
		status             int
		param, code        string
		message            string
	}{
		{"GET", "/v2/files", "", 404, "", "unknown_url", "There is no GET /v2/files: this server has files, uploads, " +
			"batches and models under /v1, and describes them in /openapi.json."},
		{"POST", "/v1/chat/completions", "{}", 404, "", "unknown_url", "There is no POST /v1/chat/completions: this server " +
			"has files, uploads, batches and models under /v1, and describes them in /openapi.json."},
		{"POST", "/files", "", 404, "", "unknown_url", "There is no POST /files: set base_url to " + f.url + "/v1."},
		{"GET", "/batches/batch_1", "", 404, "", "unknown_url",
			"There is no GET /batches/batch_1: set base_url to " + f.url + "/v1."},
		{"PUT", "/v1/files", "", 405, "", "", "PUT is no method of /v1/files, which has GET, HEAD, POST."},
		{"DELETE", "/v1/batches/batch_1", "", 405, "", "", "DELETE is no method of /v1/batches/batch_1, which has GET, HEAD."},

		{"POST", "/v1/files", "{}", 400, "", "", "The body is no form: " + noForm + "file."},
		{"GET", "/v1/files?limit=0", "", 400, "limit", "", `The parameter limit is "0", and must be a number from 1 to 10000.`},
		{"GET", "/v1/files?limit=10001", "", 400, "limit", "",
			`The parameter limit is "10001", and must be a number from 1 to 10000.`},
		{"GET", "/v1/files?limit=x", "", 400, "limit", "", `The parameter limit is "x", and must be a number from 1 to 10000.`},
		{"GET", "/v1/files?order=up", "", 400, "order", "", `The parameter order is "up", and must be asc or desc.`},
		{"GET", "/v1/files?after=x", "", 400, "after", "",
			`The parameter after is "x", and must be the id of a file: last_id of the page before.`},
		{"GET", "/v1/files/" + unknown, "", 404, "id", "", goneFile},
		{"GET", "/v1/files/" + unknown + "/content", "", 404, "id", "", goneFile},
		{"DELETE", "/v1/files/" + unknown, "", 404, "id", "", goneFile},
		{"DELETE", "/v1/files/" + other.ID, "", 400, "id", "file_in_use",
			"File " + other.ID + " is the input of batch_1: cancel this batch, or wait until it has ended."},

		{"GET", "/v1/batches?limit=101", "", 400, "limit", "",
			`The parameter limit is "101", and must be a number from 1 to 100.`},
		{"GET", "/v1/batches?after=batch_0", "", 400, "after", "",
			`The parameter after is "batch_0", and must be the id of a batch: last_id of the page before.`},
		{"GET", "/v1/files/batch_1", "", 404, "id", "", "There is no file batch_1: this is the id of a batch."},
		{"GET", "/v1/files/upload_1", "", 404, "id", "", "There is no file upload_1: this is the id of an upload."},
		{"GET", "/v1/batches/" + file.ID, "", 404, "id", "",
			"There is no batch " + file.ID + ": this is the id of a file."},
		{"GET", "/v1/batches/1", "", 404, "id", "",
			"There is no batch 1: did you mean batch_1?"},
		{"GET", "/v1/batches/2", "", 404, "id", "", "There is no batch 2."},
		{"POST", "/v1/batches", `{"endpoint":"/v1/completions","input_file_id":"batch_1"}`, 400, "input_file_id",
			"file_not_found", "There is no file batch_1: this is the id of a batch."},
		{"POST", "/v1/batches", `{"endpoint":"/v1/completions","input_file_id":"file-answers"}`, 400, "input_file_id",
			"invalid_file_purpose", `File file-answers has the purpose "batch_output": upload it with the purpose "batch".`},
		{"GET", "/v1/batches/batch_0", "", 404, "id", "", "There is no batch batch_0."},
		{"POST", "/v1/batches/batch_0/cancel", "", 404, "id", "", "There is no batch batch_0."},
		{"GET", "/v1/batches/batch_0/results", "", 404, "id", "", "There is no batch batch_0."},
		{"POST", "/v1/batches", "", 400, "", "", "The body is empty: send a JSON object."},
		{"POST", "/v1/batches", "[]", 400, "", "", "The body is an array, and must be a JSON object."},
		{"POST", "/v1/batches", "{", 400, "", "", "The body is no JSON: it ends before its object does."},
		{"POST", "/v1/batches", "{} {}", 400, "", "", "The body has more than one JSON object."},
		{"POST", "/v1/batches", `{"endpoint":tru}`, 400, "", "", "The body is no JSON: the fault is at byte 15."},
		{"POST", "/v1/batches", `{"endpoint":1}`, 400, "endpoint", "", "The member endpoint is a number, and must be a string."},
		{"POST", "/v1/batches", `{"endpoint":"a","endpoint":"b"}`, 400, "endpoint", "", "The member endpoint is there twice."},
		{"POST", "/v1/batches", `{"metadata":{"a":1}}`, 400, "metadata.a", "",
			"The member metadata.a is a number, and must be a string."},
		{"POST", "/v1/batches", `{"metadata":{"a":null}}`, 400, "metadata.a", "",
			"The member metadata.a is null, and must be a string."},
		{"POST", "/v1/batches", `{"metadata":"a"}`, 400, "metadata", "", "The member metadata is a string, and must be an object."},
		{"POST", "/v1/batches", `{"x":"` + strings.Repeat("x", maxJSON) + `"}`, 413, "", "",
			"The body is longer than 1 MiB: send requests in the member requests, or as a file."},
		{"POST", "/v1/batches", `{}`, 400, "input_file_id", "",
			"The batch has no requests: give input_file_id, the id of an uploaded file, or requests, an array."},
		{"POST", "/v1/batches", `{"input_file_id":"` + file.ID + `","requests":[{"body":{}}]}`, 400, "requests", "",
			"The batch has input_file_id and requests: give one of them."},
		{"POST", "/v1/batches", `{"requests":[{"body":{}}],"input_file_id":"` + file.ID + `"}`, 400, "requests", "",
			"The batch has input_file_id and requests: give one of them."},
		{"POST", "/v1/batches", `{"requests":{}}`, 400, "requests", "", "The member requests is an object, and must be an array."},
		{"POST", "/v1/batches", `{"requests":[]}`, 400, "requests", "",
			"The array requests is empty: a batch needs at least one request."},
		{"POST", "/v1/batches", `{"requests":[{"body":{}},1]}`, 400, "requests[1]", "",
			"The request requests[1] is a number, and must be an object with custom_id and body."},
		{"POST", "/v1/batches", `{"requests":[{"body":{}},{"custom_id":"a"}]}`, 400, "requests[1].body", "",
			"The request requests[1] has no body."},
		{"POST", "/v1/batches", `{"requests":[{"body":{},"params":{}}]}`, 400, "requests[0]", "",
			"The request requests[0] has body and params, which mean the same: give one of them."},
		{"POST", "/v1/batches", `{"requests":[{"body":{},"body":{}}]}`, 400, "requests[0]", "",
			"The request requests[0] has the member body twice."},
		{"POST", "/v1/batches", `{"requests":[{"body":{}}`, 400, "", "",
			"The body is no JSON: it ends before its object does."},
		{"POST", "/v1/batches", `{"requests":[{"body":{}}]`, 400, "", "",
			"The body is no JSON: it ends before its object does."},
		{"POST", "/v1/batches", `{"requests":[{"body":{]}}`, 400, "", "", "The body is no JSON: the fault is at byte 22."},
		{"POST", "/v1/batches", `{"input_file_id":"` + file.ID + `","output_expires_after":{"anchor":"now","seconds":3600}}`,
			400, "output_expires_after.anchor", "", `The field output_expires_after.anchor is "now", and must be "created_at".`},
		{"POST", "/v1/batches", `{"input_file_id":"` + file.ID + `","output_expires_after":{"seconds":3600}}`,
			400, "output_expires_after.anchor", "",
			`The field output_expires_after.anchor is missing, and must be "created_at".`},
		{"POST", "/v1/batches", `{"requests":[{"body":{}}],"output_expires_after":{"anchor":"created_at","seconds":3599}}`,
			400, "output_expires_after.seconds", "",
			"The field output_expires_after.seconds must be a number from 3600 (one hour) to 2592000 (30 days)."},

		{"POST", "/v1/uploads", `{"purpose":"batch","bytes":1}`, 400, "filename", "", "The member filename is missing."},
		{"POST", "/v1/uploads", `{"filename":"a","bytes":1}`, 400, "purpose", "",
			`The field purpose is missing: give "batch" for the input of a batch.`},
		{"POST", "/v1/uploads", `{"filename":"a","purpose":"x","bytes":1}`, 400, "purpose", "",
			`The purpose is "x", and must be one of assistants, batch, fine-tune, vision, user_data, evals.`},
		{"POST", "/v1/uploads", `{"filename":"a","purpose":"batch"}`, 400, "bytes", "",
			"The member bytes is 0, and must be the size of the file, of at least 1."},
		{"POST", "/v1/uploads", `{"filename":"a","purpose":"batch","bytes":1.5}`, 400, "bytes", "",
			"The member bytes is a number, and must be a whole number."},
		{"POST", "/v1/uploads/upload_0/parts", "", 404, "id", "",
			"There is no upload upload_0: it never existed, or ended long ago."},
		{"POST", "/v1/uploads/upload_0/complete", "{}", 404, "id", "",
			"There is no upload upload_0: it never existed, or ended long ago."},
		{"POST", "/v1/uploads/upload_0/cancel", "", 404, "id", "",
			"There is no upload upload_0: it never existed, or ended long ago."},
		{"POST", "/v1/uploads/" + upload.ID + "/parts", "", 400, "", "", "The body is no form: " + noForm + "data."},
		{"POST", "/v1/uploads/" + upload.ID + "/complete", "{}", 400, "part_ids", "",
			"The member part_ids is missing or empty: give the ids of the parts in the order of the file."},
		{"POST", "/v1/uploads/" + upload.ID + "/complete", `{"part_ids":["part_0"]}`, 400, "part_ids", "",
			`The upload ` + upload.ID + ` has no part "part_0".`},
		{"POST", "/v1/uploads/" + upload.ID + "/complete", `{"part_ids":[1]}`, 400, "part_ids[0]", "",
			"The member part_ids[0] is a number, and must be a string."},

		{"GET", "/v1/models/llama", "", 404, "model", "model_not_found", `No worker serves the model "llama" now.`},
	} {
		t.Run(c.method+" "+c.path[:min(len(c.path), 40)], func(t *testing.T) {
			f.t = t
			a := f.send(c.method, c.path, nil, strings.NewReader(c.body))
			a.checkError(t, c.status, c.param, c.code, c.message)
		})
	}

	f.t = t
	if n := f.countStored(); n != before {
		t.Errorf("%d files are stored, and %d were before", n, before)
	}
	if f.log.Len() > 0 {
		t.Error(f.log.String())
	}
}

// TestServerErrors has the errors that are not the client's.
func TestServerErrors(t *testing.T) {
	f := start(t)
	file := f.upload("{}\n")

	const body = `{"requests":[{"body":{}}],"endpoint":"/v1/completions"}`
	for _, c := range []struct {
		err     error
		status  int
		code    string
		message string
		headers http.Header
		logged  bool
	}{
		{&batch.RequestError{Message: "No.", Param: "", Code: "no"}, 400, "no", "No.", nil, false},
		{fmt.Errorf("store: %w", syscall.ENOSPC), 507, "disk_full",
			"The disk of the server is full, and nothing was stored: delete files that are no longer needed, " +
				"or free space on the server, and send it again.", http.Header{"X-Should-Retry": {"false"}}, true},
		{nats.ErrTimeout, 503, "bus_unavailable", "The message bus does not answer now: try again in a few seconds.",
			http.Header{"Retry-After": {"5"}}, true},
		{fmt.Errorf("store: %w", filestore.ErrClosed), 503, "", "The server is stopping: try again in a few seconds.",
			http.Header{"Retry-After": {"5"}}, false},
		{errors.New("secret"), 500, "", "The server failed to handle the request. Its log has the reason.", nil, true},
	} {
		f.batches.err = c.err
		f.log.Reset()

		a := f.post("/v1/batches", body)
		a.checkError(t, c.status, "", c.code, c.message)
		for name := range c.headers {
			if a.header.Get(name) != c.headers.Get(name) {
				t.Errorf("%v: %s is %q", c.err, name, a.header.Get(name))
			}
		}
		if logged := strings.Contains(f.log.String(), c.err.Error()); logged != c.logged {
			t.Errorf("%v: logged %t: %s", c.err, logged, f.log.String())
		}
	}

	if list := f.files.List(); len(list) != 1 || list[0].ID != file.ID {
		t.Errorf("the requests of refused batches are stored: %+v", list)
	}
}

// TestDiskFullOfRequests ensures that a disk that fills up under the requests of a body is no fault of the
// body: syscall.Errno counts as a net.Error.
func TestDiskFullOfRequests(t *testing.T) {
	full := fmt.Errorf("store the file: %w", &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC})
	_, _, err := readCreateBatch(strings.NewReader(`{"requests":[{"body":{}}]}`), nil,
		func(io.Reader) (*filestore.Pending, error) { return nil, full })

	if f, fault := toFailure(err); f.status != http.StatusInsufficientStorage || !fault {
		t.Errorf("%d: %v", f.status, f)
	}
}

// TestBodyCutOff ensures that a body whose connection breaks off is not taken for wrong JSON.
func TestBodyCutOff(t *testing.T) {
	for _, begin := range []string{"", "{", `{"requests":[{"body":{}}`} {
		body := io.MultiReader(strings.NewReader(begin), failingReader{io.ErrUnexpectedEOF})
		err := newBodyDecoder(body).readMembers(map[string]any{}, nil)

		const want = "The body ends in the middle, and nothing was created: send it again."
		if f, fault := toFailure(err); f.status != http.StatusBadRequest || f.Error() != want || fault {
			t.Errorf("%s: %d: %v", begin, f.status, f)
		}
	}
}

// TestBrokenKeys ensures that keys that cannot be read take one line of the log, not one for each request.
func TestBrokenKeys(t *testing.T) {
	f := start(t, func(f *fixture) { f.keysErr = errors.New("the file of keys is broken") })

	for range 3 {
		f.get("/v1/files").checkError(t, 503, "", "",
			"The server failed to read its API keys. Its log has the reason.")
	}
	if n := strings.Count(f.log.String(), f.keysErr.Error()); n != 1 {
		t.Errorf("%d lines: %s", n, f.log.String())
	}
}

// TestExpectContinue ensures that a client that asks before it sends its body is refused without it.
func TestExpectContinue(t *testing.T) {
	f := start(t)

	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))

	fmt.Fprint(conn, "POST /v1/uploads/upload_none/parts HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n"+
		"Content-Type: multipart/form-data; boundary=b\r\nExpect: 100-continue\r\n\r\n")

	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "HTTP/1.1 404 Not Found\r\n" {
		t.Errorf("%q, %v", line, err)
	}
}

// TestPanic ensures that a client sees nothing of a panic, and that the log does.
func TestPanic(t *testing.T) {
	f := start(t)
	f.handler.Models = nil

	f.get("/v1/models").checkError(t, 500, "", "", "The server failed to handle the request. Its log has the reason.")
	if !strings.Contains(f.log.String(), "nil pointer") || !strings.Contains(f.log.String(), "models.go") {
		t.Errorf("log: %s", f.log.String())
	}
}

// TestClientIsGone ensures that a client that takes no answer is no fault in the log.
func TestClientIsGone(t *testing.T) {
	f := start(t)
	f.upload("{}\n")

	for _, path := range []string{"/v1/files", "/v1/files?limit=0", "/v1/files/x"} {
		func() {
			defer func() {
				v := recover()
				if err, ok := v.(error); v != nil && (!ok || !errors.Is(err, http.ErrAbortHandler)) {
					t.Errorf("%s panics: %v", path, v)
				}
			}()
			f.handler.ServeHTTP(goneClient{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, path, nil))
		}()
	}

	if f.log.Len() > 0 {
		t.Error(f.log.String())
	}
}

// goneClient is the writer to a client that has gone.
type goneClient struct{ *httptest.ResponseRecorder }

func (goneClient) Write([]byte) (int, error) { return 0, syscall.EPIPE }
