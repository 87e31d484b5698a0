package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/promptmill/promptmill/deploy/progress"
)

// A run on a server that refuses all requests says so in its log and in its progress, with the
// server's words. When the server answers again, the run ends as any other.
func TestRunOnServerThatRefusesAll(t *testing.T) {
	t.Parallel()

	var dead atomic.Bool
	dead.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/models":
			io.WriteString(w, `{"object":"list","data":[{"id":"m"}]}`)
		case r.Method == http.MethodGet:
			http.NotFound(w, r)
		case dead.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"error":"CB worker died"}`)
		default:
			io.WriteString(w, `{"choices":[{"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}]}`)
		}
	}))
	t.Cleanup(server.Close)

	const words = "status 503 Service Unavailable: CB worker died"
	c := newCommand(t)
	run, out := c.start("run", c.input("in.jsonl", 5), "--url", server.URL, "-o", "out.jsonl.zst", "--progress", "json")
	awaitSample(t, out, "the state", func(s progress.Sample) bool {
		return strings.HasPrefix(s.State, "no answer for ") && strings.HasSuffix(s.State, words) &&
			len(s.ByWorker) == 1 && s.ByWorker[0].WaitsFor == s.State && s.RequestsPerS == nil
	})
	poll(t, pollTime, "the warning", func() bool {
		return strings.Contains(out.String(), `"message":"the model server has answered no request for `) &&
			strings.Contains(out.String(), `"error":"`+words+`"`)
	})

	dead.Store(false)
	if code := waitExit(t, run, out, patience); code != 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}

	if got := strings.Count(out.String(), `"message":"the model server answers again"`); got != 1 {
		t.Errorf("the log says %d times that the server answers again:\n%s", got, out)
	}
}

// awaitSample waits for a new sample of --progress json that is ok.
func awaitSample(t *testing.T, out *lockedBuffer, what string, ok func(progress.Sample) bool) {
	t.Helper()

	from := len(out.String())
	poll(t, patience, what, func() bool {
		for line := range strings.Lines(out.String()[from:]) {
			var s progress.Sample
			// others are log lines, or cut
			if json.Unmarshal([]byte(line), &s) == nil && s.Type == "progress" && ok(s) {
				return true
			}
		}

		return false
	})
}
