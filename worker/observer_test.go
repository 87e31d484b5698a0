package worker

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/promptmill/promptmill/proto"
)

// recordingObserver keeps what it is told.
type recordingObserver struct {
	mu       sync.Mutex
	begun    int
	attempts map[uint32][]Attempt
	ended    map[uint32][]EndedRequest
}

func newRecordingObserver() *recordingObserver {
	return &recordingObserver{attempts: map[uint32][]Attempt{}, ended: map[uint32][]EndedRequest{}}
}

func (o *recordingObserver) BeginAttempt(run string, index uint32, begin time.Time) string {
	o.mu.Lock()
	defer o.mu.Unlock()

	o.begun++
	if index%2 == 1 || begin.IsZero() {
		return ""
	}

	return fmt.Sprintf("%s-%d-%d", run, index, len(o.attempts[index]))
}

func (o *recordingObserver) EndAttempt(r ObservedRequest, a Attempt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.attempts[r.Index] = append(o.attempts[r.Index], a)
}

func (o *recordingObserver) EndRequest(r EndedRequest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended[r.Index] = append(o.ended[r.Index], r)
}

// An observer sees each attempt with its class and its tokens, and each request once. What it
// returns at the beginning of an attempt is the header of that attempt.
func TestObserver(t *testing.T) {
	t.Parallel()

	const good = `{"object":"chat.completion","choices":[{"message":{"content":"a"},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":7,"completion_tokens":3}}`

	var mu sync.Mutex
	seen := map[string][]string{} // the traceparent of each question's attempts
	url := startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.NotFound(w, r)
			return
		}

		body, _ := io.ReadAll(r.Body)
		question := string(body[strings.Index(string(body), "question"):])

		mu.Lock()
		seen[question] = append(seen[question], r.Header.Get("Traceparent"))
		attempt := len(seen[question])
		mu.Unlock()

		switch {
		case strings.HasPrefix(question, "question 2\"") && attempt == 1:
			http.Error(w, "overloaded", http.StatusServiceUnavailable)
		case strings.HasPrefix(question, "question 3\""):
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"error":{"message":"maximum context length","type":"invalid_request_error"}}`)
		default:
			io.WriteString(w, good)
		}
	}))

	const n = 4
	b := newRunBed(t, url)
	observer := newRecordingObserver()
	b.cfg.Observer = observer
	b.publishShard(proto.ShardID(0, 0), chatRequests(0, n-1)...)

	w, stop := b.startWorker()
	b.finishRun(w, stop, n)

	answered := Attempt{Status: 200, PromptTokens: 7, CompletionTokens: 3, Finish: "stop"}
	with := func(a Attempt, traceParent string) Attempt { a.TraceParent = traceParent; return a }
	want := map[uint32][]Attempt{
		0: {with(answered, "r-0-0")},
		1: {answered},
		2: {{Status: 503, Error: "503", TraceParent: "r-2-0"}, with(answered, "r-2-1")},
		3: {{Status: 400, Error: "400"}},
	}

	ignored := cmpopts.IgnoreFields(Attempt{}, "Begin", "Took")
	if diff := cmp.Diff(want, observer.attempts, ignored); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}

	for index, ended := range observer.ended {
		wantEnd := EndedRequest{
			ObservedRequest: ObservedRequest{
				Run:      "r",
				Shard:    proto.ShardID(0, 0),
				Index:    index,
				CustomID: fmt.Appendf(nil, `"c-%d"`, index),
				Path:     "/v1/chat/completions",
				Model:    "m",
			},
			Attempts: want[index],
		}
		if index == 3 {
			wantEnd.Error = "400"
		}
		if diff := cmp.Diff([]EndedRequest{wantEnd}, ended, ignored); diff != "" {
			t.Errorf("end of request %d (-want +got):\n%s", index, diff)
		}
	}

	if observer.begun != n+1 || len(observer.ended) != n {
		t.Errorf("%d attempts begun, %d requests ended", observer.begun, len(observer.ended))
	}

	for question, headers := range seen {
		var index uint32
		fmt.Sscanf(question, "question %d", &index)

		for i, header := range headers {
			if header != want[index][i].TraceParent {
				t.Errorf("request %d, attempt %d: traceparent %q, want %q", index, i+1, header, want[index][i].TraceParent)
			}
		}
	}
}

// A request that the worker cannot finish is returned, and its attempt was cancelled.
func TestObserverOfAStop(t *testing.T) {
	t.Parallel()

	arrived, release := make(chan struct{}), make(chan struct{})
	url := startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.NotFound(w, r)
			return
		}
		io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-release
	}))

	b := newRunBed(t, url)
	observer := newRecordingObserver()
	b.cfg.Observer, b.cfg.Grace = observer, time.Millisecond
	b.publishShard(proto.ShardID(0, 0), chatRequests(0, 0)...)

	_, stop := b.startWorker()
	<-arrived
	stop()
	close(release)

	ended := observer.ended[0]
	if len(ended) != 1 || !ended[0].Returned || ended[0].Error != "" || len(ended[0].Attempts) != 1 {
		t.Fatalf("ends %+v", ended)
	}

	if a := ended[0].Attempts[0]; a.Error != ErrorCancelled || a.Status != 0 {
		t.Errorf("attempt %+v", a)
	}
}
