package worker

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// script is a model server that answers the attempts at one request one after the other, and notes
// the times at which it had them.
type script struct {
	answers []scriptedAnswer

	mu     sync.Mutex
	begins []time.Time
	ends   []time.Time
}

// scriptedAnswer is an answer with a status that takes a time.
type scriptedAnswer struct {
	status int
	body   string
	takes  time.Duration
}

// answerOf returns a good answer with a text, a finish reason and tokens.
func answerOf(text, finish string, tokens int) scriptedAnswer {
	return scriptedAnswer{status: http.StatusOK, body: fmt.Sprintf(
		`{"choices":[{"message":{"content":%q},"finish_reason":%q}],"usage":{"prompt_tokens":3,"completion_tokens":%d}}`,
		text, finish, tokens)}
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.NotFound(w, r)
		return
	}

	io.Copy(io.Discard, r.Body)

	s.mu.Lock()
	a := s.answers[min(len(s.begins), len(s.answers)-1)]
	s.begins = append(s.begins, time.Now())
	s.mu.Unlock()

	if a.takes > 0 {
		select {
		case <-time.After(a.takes):
		case <-r.Context().Done():
		}
	}

	s.mu.Lock()
	s.ends = append(s.ends, time.Now())
	s.mu.Unlock()

	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	io.WriteString(w, a.body)
}

// The output line and the run's usage have what the attempts cost whose answers were thrown away,
// and the time of all.
func TestCostOfAttempts(t *testing.T) {
	t.Parallel()

	broken := scriptedAnswer{status: http.StatusInternalServerError, body: `{}`, takes: 30 * time.Millisecond}
	noChoice := scriptedAnswer{status: http.StatusOK, body: `{"choices":[],"usage":{"completion_tokens":5}}`}

	for _, tt := range []struct {
		name     string
		settings proto.Settings
		answers  []scriptedAnswer
		used     int // the attempt whose answer the line has

		status int
		tokens int64 // of the others
	}{
		{"one attempt", proto.Settings{}, []scriptedAnswer{answerOf("yes", "stop", 9)}, 0, 200, 0},
		{"one that failed", proto.Settings{}, []scriptedAnswer{broken, answerOf("yes", "stop", 9)}, 1, 200, 0},
		{"an answer without a choice", proto.Settings{}, []scriptedAnswer{noChoice, noChoice, answerOf("yes", "stop", 9)}, 2, 200, 10},
		{"all failed", proto.Settings{}, []scriptedAnswer{broken, noChoice, broken}, 2, 500, 5},
		{
			"an answer that does not match the schema", proto.Settings{Schema: []byte(`{"type":"object"}`)},
			[]scriptedAnswer{answerOf("no", "stop", 7), answerOf("{}", "stop", 9)}, 1, 200, 7,
		},
		{
			"two that do not match", proto.Settings{Schema: []byte(`{"type":"object"}`)},
			[]scriptedAnswer{answerOf("no", "stop", 7), answerOf("no", "stop", 8)}, 1, 200, 7,
		},
		{
			"a truncated answer that is replaced", proto.Settings{RetryTruncated: 2},
			[]scriptedAnswer{answerOf("ye", "length", 4), answerOf("yes", "stop", 8)}, 1, 200, 4,
		},
		{
			"a truncated answer that is kept", proto.Settings{RetryTruncated: 2},
			[]scriptedAnswer{answerOf("ye", "length", 4), broken, noChoice}, 0, 200, 5,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server := &script{answers: tt.answers}
			b := newTestBed(t, startServer(t, server))
			b.cfg.Run, b.cfg.Attempts = "r", 3
			m := b.createStreams("r", 0, "m")
			m.Settings = tt.settings
			b.createRun(m)

			requests := chatRequests(0, 0)
			requests[0].Body = []byte(`{"model":"m","max_tokens":4,"messages":[]}`)
			b.publishShard("0-0", requests...)

			begin := time.Now()
			w, stop := b.startWorker()
			lines := b.finishRun(w, stop, 1)
			whole := time.Since(begin)

			checkCost(t, server, lines[0][0], w.jobs.usage.snapshot(nil, false)["r"], tt.used, tt.tokens, whole)
			if want := fmt.Sprintf(`"status_code":%d`, tt.status); !strings.Contains(lines[0][0], want) {
				t.Errorf("no %s in %s", want, lines[0][0])
			}
		})
	}
}

// A truncated answer that is kept, since no later one is better, does not count if it does not match the schema.
func TestTruncatedAnswerOfSchema(t *testing.T) {
	t.Parallel()

	broken := scriptedAnswer{status: http.StatusInternalServerError, body: `{}`}
	for _, tt := range []struct {
		name    string
		answers []scriptedAnswer
		want    string // the code of the error
	}{
		{"no other answer", []scriptedAnswer{answerOf("{", "length", 4), broken, broken}, proto.CodeSchemaMismatch},
		{
			"another that does not match", []scriptedAnswer{answerOf("{", "length", 4), answerOf("no", "stop", 8)},
			proto.CodeSchemaMismatch,
		},
		{"a better one", []scriptedAnswer{answerOf("{", "length", 4), answerOf("{}", "stop", 8)}, ""},
		{"it matches", []scriptedAnswer{answerOf("{}", "length", 4), broken, broken}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newTestBed(t, startServer(t, &script{answers: tt.answers}))
			b.cfg.Run, b.cfg.Attempts = "r", 3
			m := b.createStreams("r", 0, "m")
			m.Settings = proto.Settings{RetryTruncated: 2, Schema: []byte(`{"type":"object"}`)}
			b.createRun(m)

			requests := chatRequests(0, 0)
			requests[0].Body = []byte(`{"model":"m","max_tokens":4,"messages":[]}`)
			b.publishShard("0-0", requests...)

			w, stop := b.startWorker()
			lines := b.finishRun(w, stop, 1)

			l, err := proto.ParseLine(new(jsonscan.Scanner), []byte(lines[0][0]))
			if err != nil || l.ErrorCode != tt.want || l.Status != http.StatusOK {
				t.Errorf("%v, the line has the error %q, want %q: %s", err, l.ErrorCode, tt.want, lines[0][0])
			}
		})
	}
}

// checkCost compares a line and the usage of its run with what the server saw: its attempts but the
// one whose answer was used, tokens of the others, and the time that the test took.
func checkCost(
	t *testing.T, server *script, line string, usage proto.RunUsage, used int, tokens int64, whole time.Duration,
) {
	t.Helper()

	var scan jsonscan.Scanner
	l, err := proto.ParseLine(&scan, []byte(line))
	if err != nil {
		t.Fatal(err)
	}

	others, n := time.Duration(0), len(server.begins)
	for i := range n {
		if i != used {
			others += server.ends[i].Sub(server.begins[i])
		}
	}

	if l.DiscardedTokens != tokens || usage.DiscardedTokens != tokens {
		t.Errorf("%d tokens were thrown away, the usage has %d, want %d", l.DiscardedTokens, usage.DiscardedTokens, tokens)
	}

	if usage.DiscardedAttempts != int64(n-1) || usage.Requests != 1 {
		t.Errorf("the usage has %+v after %d attempts", usage, n)
	}

	discarded := time.Duration(usage.DiscardedSeconds * float64(time.Second))
	if discarded < others-time.Microsecond || discarded > whole {
		t.Errorf("%v were thrown away, the server had them for %v", discarded, others)
	}

	if l.DiscardedMS != discarded.Milliseconds() {
		t.Errorf("the line has %d ms, the usage %v", l.DiscardedMS, discarded)
	}

	total := time.Duration(l.TotalMS) * time.Millisecond
	seen := server.ends[n-1].Sub(server.begins[0])
	if total < seen-time.Millisecond || total > whole {
		t.Errorf("the whole request took %v, the server saw %v, and the test took %v", total, seen, whole)
	}

	if n == 1 && (l.TotalMS != l.LatencyMS || usage.DiscardedSeconds != 0) {
		t.Errorf("one attempt took %d ms, the whole request %d", l.LatencyMS, l.TotalMS)
	}

	if n > 1 && total < time.Duration(l.LatencyMS)*time.Millisecond+discarded-2*time.Millisecond {
		t.Errorf("the whole request took %v, less than its attempts", total)
	}
}
