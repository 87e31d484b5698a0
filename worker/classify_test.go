package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/modelserver"
)

func TestClassify(t *testing.T) {
	t.Parallel()

	const refusal = `{"error":{"message":"too  long","n":12345678901234567890}}`
	type row struct {
		name    string
		status  int
		body    string
		verdict verdict
		want    string // the result's body, or the code of its error
	}

	object := func(message string, status int) string { // where a refusal is none
		return fmt.Sprintf(`{"error":{"message":"%s","type":"invalid_response","param":null,"code":"%d"}}`,
			message, status)
	}

	rows := []row{
		{"an answer", 200, `{"choices": [{"text":"\u0000"}],  "a":1.0}`, final,
			`{"choices": [{"text":"\u0000"}],  "a":1.0}`},
		{"an answer with no error in it", 200, `{"error":null,"object":"list","choices":[{"text":"a"}]}`, final,
			`{"error":null,"object":"list","choices":[{"text":"a"}]}`},
		{"another good status", 201, `{"choices":[{"text":"a"}]}`, final, `{"choices":[{"text":"a"}]}`},
		{"a pretty-printed answer", 200, "{\r\n  \"choices\": [\n{\"text\":\"a\"}]\n}\n", final,
			`{    "choices": [ {"text":"a"}] }`},
		{"an answer behind a byte-order mark", 200, "\xef\xbb\xbf{\"choices\":[{\"text\":\"a\"}]}", final,
			`{"choices":[{"text":"a"}]}`},
		{"an answer cut in an emoji", 200, `{"choices":[{"text":"\ud83d"}]}`, final, `{"choices":[{"text":"\ud83d"}]}`},
		{"nothing of an answer", 200, `{}`, retry, proto.CodeInvalidResponse},
		{"an answer of another kind", 200, `{"detail":"no"}`, retry, proto.CodeInvalidResponse},
		{"a request that was given up", 200, `{"choices":[{"text":"a","finish_reason":"abort"}]}`, retry,
			proto.CodeAborted},
		{"a number that JSON has not", 200, `{"choices":[{"text":"a","logprob":-Infinity}]}`, retry,
			proto.CodeInvalidResponse},
		{"an error under a good status", 200, `{"error":{"message":"no"}}`, retry, proto.CodeInvalidResponse},
		{"an error text under a good status", 200, `{"error":"no"}`, retry, proto.CodeInvalidResponse},
		{"vLLM's older error object", 200, `{"object":"error","message":"no"}`, retry, proto.CodeInvalidResponse},
		{"an error object that says error: null too", 200, `{"object":"error","error":null}`, retry,
			proto.CodeInvalidResponse},
		{"broken JSON", 200, `{"a":`, retry, proto.CodeInvalidResponse},
		{"text behind the JSON", 200, `{} x`, retry, proto.CodeInvalidResponse},
		{"not an object", 200, `[1]`, retry, proto.CodeInvalidResponse},
		{"nothing", 200, ``, retry, proto.CodeInvalidResponse},
		{"HTML under a good status", 200, `<html></html>`, retry, proto.CodeInvalidResponse},
		{"bytes that are not UTF-8", 200, "{\"a\":\"\xff\"}", retry, proto.CodeInvalidResponse},
		{"a redirect", 307, ``, barred, object("the answer has no body", 307)},
		{"an HTML page of a proxy", 502, "<html>\r\n\"x\"\x00</html>", retry,
			object(`<html>\r\n\"x\"\u0000</html>`, 502)},
		{"a text", 401, "no", barred, object("no", 401)},
		{"a text of many kilobytes", 400, strings.Repeat("é", 3000), final,
			object(strings.Repeat("é", 2048)+"...", 400)},
		{"a text that is not UTF-8", 400, "a\xffb", final, object("a\ufffdb", 400)},
		{"a JSON text", 400, ` "no \u00e9"`, final, object("no é", 400)},
		{"an array", 400, `[{"loc":["body"]}]`, final, object(`[{\"loc\":[\"body\"]}]`, 400)},
		{"a number", 422, "7\n", final, object("7", 422)},
		{"null", 400, "null", final, object("null", 400)},
		{"FastAPI's object", 422, `{"detail":[{"loc":["body"]}]}`, final, `{"detail":[{"loc":["body"]}]}`},
		{"a refusal on several lines", 400, "{\"error\":\n1}\n", final, `{"error": 1}`},
	}
	for _, row := range rows {
		if text := row.want; strings.HasPrefix(text, "{") && !json.Valid([]byte(text)) {
			t.Fatalf("%s: %s is no JSON", row.name, text)
		}
	}

	for _, status := range []int{
		101, 301, 302, 308, 401, 402, 403, 404, 405, 407, 410, 421, 426, 501, 505, 506, 508, 510, 511,
	} {
		rows = append(rows, row{fmt.Sprint(status, " may mean all"), status, refusal, barred, refusal})
	}

	for _, status := range []int{0, 7, 99, 600, 999} {
		rows = append(rows, row{fmt.Sprint(status, " is no status"), status, refusal, retry, proto.CodeInvalidResponse})
	}

	for _, status := range []int{400, 413, 422} {
		rows = append(rows, row{fmt.Sprint(status, " stands"), status, refusal, final, refusal})
	}

	for _, status := range []int{408, 409, 424, 425, 429, 499, 500, 502, 503, 504, 507, 524, 529} {
		rows = append(rows, row{fmt.Sprint(status, " is retried"), status, refusal, retry, refusal})
	}

	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			h := http.Header{"X-Request-Id": {"id-1"}}
			c := classify("/v1/completions", nil, modelserver.Answer{
				Status: tt.status,
				Header: h,
				Body:   []byte(tt.body),
			})
			if c.verdict != tt.verdict {
				t.Errorf("verdict %d, want %d", c.verdict, tt.verdict)
			}

			if (c.reason == "") != (tt.verdict == final) {
				t.Errorf("reason %q", c.reason)
			}

			if c.result.Err != nil {
				if diff := cmp.Diff(tt.want, c.result.Err.Code); diff != "" {
					t.Errorf("code (-want +got):\n%s", diff)
				}

				if !strings.Contains(c.result.Err.Message, tt.body) || c.result.Status != 0 {
					t.Errorf("result %+v, %q", c.result, c.result.Err.Message)
				}
				return
			}

			if diff := cmp.Diff(tt.want, string(c.result.Body)); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}

			if c.result.Status != tt.status || c.result.RequestID != "id-1" {
				t.Errorf("status %d, request id %q", c.result.Status, c.result.RequestID)
			}
		})
	}
}

// A server that sends a time to retry after has not run out of credit.
func TestQuotaThatComesBack(t *testing.T) {
	t.Parallel()

	a := modelserver.Answer{
		Status: 429,
		Header: http.Header{"Retry-After": {"3"}},
		Body:   []byte(`{"error":{"message":"You exceeded your current quota"}}`),
	}
	if c := classify("/v1/completions", nil, a); c.verdict != retry || !c.overload || c.after != 3*time.Second {
		t.Errorf("verdict %d, overload %t, after %s", c.verdict, c.overload, c.after)
	}
}

func TestClassifyRetryAfter(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, value string
		status      int
		least, most time.Duration
	}{
		{"seconds", "7", 429, 7 * time.Second, 7 * time.Second},
		{"a date", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat), 503, 40 * time.Second, time.Minute},
		{"ignored for a final status", "7", 400, 0, 0},
	} {
		h := http.Header{"Retry-After": {tt.value}}
		if got := classify("/v1/completions", nil, modelserver.Answer{
			Status: tt.status,
			Header: h,
		}).after; got < tt.least || got > tt.most {
			t.Errorf("%s: wait of %v, want %v to %v", tt.name, got, tt.least, tt.most)
		}
	}
}

func TestClassifyLongBody(t *testing.T) {
	t.Parallel()

	long := strings.Repeat("ä", 5000) // an excerpt may end inside a letter
	c := classify("/v1/completions", nil, modelserver.Answer{
		Status: 200,
		Header: http.Header{"X-Request-Id": {long}},
		Body:   []byte(long),
	})
	if got := len(c.result.Err.Message); got > 500 {
		t.Errorf("message of %d bytes", got)
	}

	if c = classify("/v1/completions", nil, modelserver.Answer{
		Status: 200,
		Header: http.Header{"X-Request-Id": {long}},
		Body:   []byte(`{"choices":[{"text":"a"}]}`),
	}); c.result.RequestID != "" {
		t.Error("a request id of 10,000 bytes is kept")
	}
}

// An answer that is too long is final: the next one would be too long again.
func TestClassifyTooLong(t *testing.T) {
	t.Parallel()

	err := fmt.Errorf("%w: longer than 7 bytes when unpacked", modelserver.ErrTooLong)
	c := classify("/v1/completions", nil, modelserver.Answer{Status: 200, Err: err})
	if c.verdict != final || c.maybeCrash || c.reason != "" || c.result.Err.Code != proto.CodeTooLarge ||
		!strings.Contains(c.result.Err.Message, "longer than 7 bytes") {
		t.Errorf("an answer that is too long is classified %+v", c)
	}

	if c = classify("/v1/completions", nil, modelserver.Answer{Status: 503, Err: err}); c.verdict != retry ||
		c.reason != "503" {
		t.Errorf("a refusal that is too long is classified %+v", c)
	}
}

// An attempt that ends without an answer may be a crash of the server, or cut off by something in
// front of it.
func TestClassifyLost(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name       string
		answer     modelserver.Answer
		crash, cut bool
	}{
		{"a server's fault", modelserver.Answer{Status: 500}, true, false},
		{"a gateway without a server", modelserver.Answer{Status: 502}, true, true},
		{"a queue that is full", modelserver.Answer{Status: 503}, false, false},
		{"a gateway that has waited", modelserver.Answer{Status: 504}, false, true},
		{"Cloudflare has waited", modelserver.Answer{Status: 524}, false, true},
		{"LiteLLM has waited", modelserver.Answer{Status: 408}, false, true},
		{"not supported", modelserver.Answer{Status: 501}, false, false},
		{"closed before the answer", modelserver.Answer{Err: io.ErrUnexpectedEOF}, true, true},
		{"closed in the answer", modelserver.Answer{Status: 200, Err: io.ErrUnexpectedEOF}, true, false},
		{"our own time", modelserver.Answer{Err: context.DeadlineExceeded}, false, false},
		{"never sent", modelserver.Answer{Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, false, false},
	} {
		if c := classify("/v1/completions", nil, tt.answer); c.maybeCrash != tt.crash || c.maybeCutOff != tt.cut {
			t.Errorf("%s: crash %t, cut %t; want %t, %t", tt.name, c.maybeCrash, c.maybeCutOff, tt.crash, tt.cut)
		}
	}
}

// A request whose answer is malformed in the same way twice is not retried again.
func TestClassifyMalformed(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, first, second string
		want                bool // both are the same fault of the answer itself
	}{
		{"the same number", `{"id":"a1","p":-Infinity}`, `{"id":"b2","p":-Infinity}`, true},
		{"the same byte", "{\"id\":\"a1\",\"p\":\"\xff\"}\n", "{\"id\":\"b2\",\"p\":\"\xff\"}\n", true},
		{"a number elsewhere", `{"p":NaN}`, `{"pp":NaN}`, false},
		{"cut", `{"a":`, `{"a":`, false},
		{"a page", `<html></html>`, `<html></html>`, false},
		{"an error, which passes", `{"detail":"busy"}`, `{"detail":"busy"}`, false},
	} {
		answer := func(body string) string {
			return classify("/v1/completions", nil, modelserver.Answer{Status: 200, Body: []byte(body)}).malformed
		}
		if first, second := answer(tt.first), answer(tt.second); (first != "" && first == second) != tt.want {
			t.Errorf("%s: %q and %q", tt.name, first, second)
		}
	}
}

// The errors come from the HTTP client itself.
func TestClassifyErrors(t *testing.T) {
	t.Parallel()

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			io.Copy(io.Discard, r.Body) // only then does the server see the client go
			<-r.Context().Done()
		case "/short":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "{")
		default:
			panic(http.ErrAbortHandler)
		}
	}))

	t.Cleanup(server.Close)
	gone := httptest.NewServer(nil)
	gone.Close()
	post := func(base, path string, within time.Duration) error {
		s, err := modelserver.New(base, "")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()

		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()

		return s.Post(ctx, path, []byte("{}")).Err
	}

	_, dialTimeout := net.DialTimeout("tcp", "127.0.0.1:1", 1) // as with a host that drops packets
	for _, tt := range []struct {
		name    string
		err     error
		verdict verdict
		code    string
	}{
		{"connection refused", post(gone.URL, "/", patience), unsent, proto.CodeConnection},
		{"connection reset", post(server.URL, "/reset", patience), retry, proto.CodeConnection},
		{"answer cut", post(server.URL, "/short", patience), retry, proto.CodeConnection},
		{"no answer in time", post(server.URL, "/hang", 300*time.Millisecond), retry, proto.CodeTimeout},
		{"unknown host", &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}, unsent,
			proto.CodeConnection},
		{"no connection in the dialer's time", dialTimeout, unsent, proto.CodeConnection},
		{"something else", errors.New("odd"), retry, proto.CodeConnection},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if tt.err == nil {
				t.Fatal("there is no error")
			}

			c := classify("/v1/completions", nil, modelserver.Answer{Err: tt.err})
			if c.verdict != tt.verdict || c.result.Err.Code != tt.code || c.result.Err.Message == "" {
				t.Errorf("%v: verdict %d, %+v; want %d, %s", tt.err, c.verdict, *c.result.Err, tt.verdict, tt.code)
			}
		})
	}
}

// Too many open files are a fault of this process, not of the server.
func TestClassifyOpenFiles(t *testing.T) {
	t.Parallel()

	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ECONNREFUSED} {
		err := &url.Error{
			Op:  "Post",
			URL: "http://h",
			Err: &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", errno)},
		}

		c := classify("/v1/completions", nil, modelserver.Answer{Err: err})
		if c.verdict != unsent || c.outOfFiles != (errno != syscall.ECONNREFUSED) || c.maybeCrash {
			t.Errorf("%v: %+v", errno, c)
		}
	}
}

// An answer with only a part of the results is retried.
func TestClassifyPart(t *testing.T) {
	t.Parallel()

	request := []byte(`{"model":"m","input":["a","b"]}`)
	c := classify("/v1/embeddings", request, modelserver.Answer{
		Status: 200,
		Body:   []byte(`{"data":[{"index":0,"embedding":[1]}]}`),
	})
	if c.ok() || c.verdict != retry || c.reason != proto.CodeInvalidResponse {
		t.Errorf("one of two embeddings is classified %+v", c)
	}

	c = classify("/v1/embeddings", request, modelserver.Answer{
		Status: 200,
		Body:   []byte(`{"data":[{"index":1,"embedding":[1]},{"index":0,"embedding":[1]}]}`),
	})
	if !c.ok() || c.verdict != final {
		t.Errorf("both embeddings are judged %+v", c)
	}
}
