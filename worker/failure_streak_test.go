package worker

import (
	"bytes"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// A server that fails all attempts for a while is reported, and no other.
func TestFailureStreak(t *testing.T) {
	t.Parallel()

	const (
		answered, reset = 200, 0 // in place of a status
		dead            = "status 503 Service Unavailable: dead"
	)
	type attempt struct {
		second, status int
		took           time.Duration
	}
	attempts := func(status int, seconds ...int) (list []attempt) {
		for _, s := range seconds {
			list = append(list, attempt{second: s, status: status})
		}
		return list
	}

	for _, tt := range []struct {
		name     string
		attempts []attempt
		underway int  // the second at which an attempt began that has not ended; 0: there is none
		idle     bool // the worker holds no request
		down     bool
		at       int // the second of the look
		want     string
	}{
		{name: "all fail from the start", attempts: attempts(503, 0, 1, 2), at: 20, want: dead},
		{name: "not long enough", attempts: attempts(503, 0, 1, 2), at: 19},
		{name: "too few attempts", attempts: attempts(503, 0, 1), at: 60},
		{
			name:     "an internal error",
			attempts: attempts(500, 0, 1, 2),
			at:       20,
			want:     "status 500 Internal Server Error: dead",
		},
		{name: "a status without a name", attempts: attempts(529, 0, 1, 2), at: 20, want: "status 529: dead"},
		{name: "the connection is reset", attempts: attempts(reset, 0, 1, 2), at: 20, want: "it was reset"},
		{name: "a quota may be one of a minute", attempts: attempts(429, 0, 1, 60), at: 74},
		{
			name:     "a quota is of more than a minute",
			attempts: attempts(429, 0, 1, 60),
			at:       75,
			want:     "status 429 Too Many Requests: dead",
		},
		{
			name:     "not only a quota",
			attempts: slices.Concat(attempts(429, 0, 1), attempts(503, 2)),
			at:       20,
			want:     dead,
		},
		{
			name:     "they fail after answers",
			attempts: slices.Concat(attempts(answered, 0, 5), attempts(503, 6, 7, 8)),
			at:       26,
			want:     dead,
		},
		{
			name:     "the time of the answers is no part of it",
			attempts: slices.Concat(attempts(answered, 0, 5), attempts(503, 6, 7, 8)),
			at:       25,
		},
		{
			name:     "it has answered again",
			attempts: slices.Concat(attempts(503, 0, 1, 2), attempts(answered, 30)),
			at:       31,
		},
		{
			name:     "some requests are answered",
			attempts: slices.Concat(attempts(503, 0, 1, 2), attempts(answered, 15), attempts(503, 16, 17, 18)),
			at:       30,
		},
		{
			name:     "a final refusal is no answer",
			attempts: slices.Concat(attempts(503, 0, 1, 2), attempts(400, 15)),
			at:       20,
			want:     dead,
		},
		{name: "final refusals alone have their own lines", attempts: attempts(400, 0, 1, 2), at: 60},
		{name: "a refused key has a rule of its own", attempts: attempts(401, 0, 1, 2), at: 60},
		{name: "it may be at work on a long request", attempts: attempts(503, 0, 1, 2), underway: 14, at: 20},
		{
			name:     "an attempt has just begun",
			attempts: attempts(503, 0, 1, 2),
			underway: 15,
			at:       20,
			want:     dead,
		},
		{
			name: "it takes its time to refuse",
			attempts: slices.Concat(attempts(503, 0, 1), []attempt{
				{second: 12, status: 503, took: 10 * time.Second},
			}),
			underway: 5,
			at:       20,
			want:     dead,
		},
		{name: "it is down, which has its own reason", attempts: attempts(503, 0, 1, 2), down: true, at: 20},
		{name: "the worker was just busy", attempts: attempts(503, 0, 1, 2), idle: true, at: 62, want: dead},
		{name: "the worker has been idle for a while", attempts: attempts(503, 0, 1, 2), idle: true, at: 63},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			w := newStreakWorker(t)
			if !tt.idle {
				w.jobs.held.add(1)
			}
			if tt.down {
				w.server.state.markDown("away", nil)
			}

			f, begin := w.server.failures, time.Now()
			for _, a := range tt.attempts {
				c := classify(chatPath, nil, modelserver.Answer{Status: a.status, Body: []byte(`{"error":"dead"}`)})
				switch a.status {
				case answered:
					c = classification{result: proto.Result{Status: answered}}
				case reset:
					c = classifyError(modelserver.Answer{Err: errors.New("it was reset")})
				}

				f.record(c, a.took, begin.Add(time.Duration(a.second)*time.Second))
			}

			if tt.underway > 0 {
				f.begin(&task{}, begin.Add(time.Duration(tt.underway)*time.Second))
			}

			f.check(begin.Add(time.Duration(tt.at) * time.Second))
			if got, _ := w.Refused(); got != tt.want {
				t.Errorf("the server is said to fail all attempts with %q, want %q", got, tt.want)
			}
		})
	}
}

const chatPath = "/v1/chat/completions"

// newStreakWorker returns a worker that does not run.
func newStreakWorker(t *testing.T) *Worker {
	t.Helper()

	server, err := modelserver.New("http://127.0.0.1:1", "")
	if err != nil {
		t.Fatal(err)
	}

	return newWorker(t, Config{JS: noBus{}, Server: server, Limiter: limit.Fixed(1)})
}

// A server that fails and answers in turns is logged at most once a minute.
func TestFailureStreakIsLoggedOnce(t *testing.T) {
	t.Parallel()

	var logged bytes.Buffer
	w := newStreakWorker(t)
	w.jobs.held.add(1)
	f, now := w.server.failures, time.Now()
	f.log = zerolog.New(&logged)
	dead := classify(chatPath, nil, modelserver.Answer{Status: 503, Body: []byte("<html><title>Away</title></html>")})

	for range 3 { // streaks of 25 s each
		for range 25 {
			now = now.Add(time.Second)
			f.record(dead, 0, now)
			f.check(now)
		}
		f.record(classification{result: proto.Result{Status: 200}}, 0, now)
	}

	const want = `{"level":"warn","server":"http://127.0.0.1:1","error":"status 503 Service Unavailable: Away",` +
		`"attempts":21,"message":"the model server has answered no request for 20s; trying it again and again"}
{"level":"warn","server":"http://127.0.0.1:1","after":"24s","message":"the model server answers again"}
`
	if got := logged.String(); got != want {
		t.Errorf("the log has\n%s\nwant\n%s", got, want)
	}
}

func TestDescribeFailure(t *testing.T) {
	t.Parallel()

	long := strings.Repeat("é", 400)
	for _, tt := range []struct {
		name, body, want string
	}{
		{"OpenAI", `{"error":{"message":"no memory"}}`, "no memory"},
		{"a worker that died", `{"error":"CB worker died.\nMemory footprint 9 GB"}`, "CB worker died. Memory footprint 9 GB"},
		{"FastAPI", `{"detail":"not now"}`, "not now"},
		{"a text", "no healthy upstream\n", "no healthy upstream"},
		{"a page", "<html><head><title>503 Away</title></head></html>", "503 Away"},
		{"nothing", "", "the answer has no body"},
		{"characters that move the cursor", `{"error":"a\u001b[2Jb\u202ec"}`, "a [2Jb c"},
		{"a long one", `{"error":"` + long + `"}`, long[:264] + "..."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			c := classify(chatPath, nil, modelserver.Answer{Status: 503, Body: []byte(tt.body)})
			got, want := c.describeFailure(), "status 503 Service Unavailable: "+tt.want
			if got != want || len(got) > maxFailureText {
				t.Errorf("%d bytes %q, want %q", len(got), got, want)
			}
		})
	}
}

// A worker says in its announcement and in its log that its server refuses all requests, and when
// it answers again. Nothing fails.
func TestServerRefusesAllForAWhile(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name    string
		answers uint32 // before it refuses all
	}{{"from the start", 0}, {"after some answers", 20}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			g := &refusingServer{status: http.StatusServiceUnavailable, body: `{"error":"CB worker died"}`}
			var logged bytes.Buffer
			b := newRunBed(t, startServer(t, g))
			b.cfg.Log = zerolog.New(zerolog.SyncWriter(&logged))
			b.publishRange("r", "m", 0, tt.answers, 10)
			w, stop := b.startWorker(func(w *Worker) { w.server.failures.after = time.Millisecond })
			b.awaitRun("r")

			g.shut.Store(true)
			b.publishRange("r", "m", tt.answers, 40, 10)
			prototest.Poll(t, patience, "the refusals to be noticed", func() bool {
				why, _ := w.Refused()
				return why == "status 503 Service Unavailable: CB worker died"
			})

			info := w.describe()
			const problem = "the model server answers no request: status 503 Service Unavailable: CB worker died"
			if !info.Ready || info.Problem != problem {
				t.Errorf("the worker says ready %t, %q", info.Ready, info.Problem)
			}

			g.shut.Store(false)
			b.finishAnswered(w, stop, 40)

			for _, want := range []string{`"error":"status 503 Service Unavailable: CB worker died"`, "answers again"} {
				if n := strings.Count(logged.String(), want); n != 1 {
					t.Errorf("the log has %q %d times:\n%s", want, n, logged.String())
				}
			}

			if why, _ := w.Refused(); why != "" || w.describe().Problem != "" {
				t.Errorf("the worker still says %q", why)
			}
		})
	}
}
