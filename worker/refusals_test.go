package worker

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// refusingServer is a model server that refuses the requests that a test chooses.
type refusingServer struct {
	status int
	posts  atomic.Int64
	asked  sync.Map               // bodies
	shut   atomic.Bool            // it refuses all
	refuse func(body []byte) bool // of the others, these; nil: none
	wait   func(body []byte)      // before it answers; nil: it does not
	header map[string]string      // of a refusal
	body   string                 // of a refusal; "": the usual
}

func (g *refusingServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		http.NotFound(w, r)
		return
	}

	g.posts.Add(1)
	body, _ := io.ReadAll(r.Body)
	g.asked.Store(string(body), true)
	if g.shut.Load() || g.refuse != nil && g.refuse(body) {
		for name, value := range g.header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(g.status)
		io.WriteString(w, cmp.Or(g.body, `{"error":{"message":"you may not"}}`))
		return
	}

	if g.wait != nil {
		g.wait(body)
	}

	io.WriteString(w,
		`{"choices":[{"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`)
}

// countRequests returns the number of different requests that it got.
func (g *refusingServer) countRequests() (n int) {
	g.asked.Range(func(any, any) bool { n++; return true })
	return n
}

// mentions returns a function that reports whether a body has one of the questions.
func mentions(questions ...string) func([]byte) bool {
	return func(body []byte) bool {
		for _, q := range questions {
			if bytes.Contains(body, []byte("question "+q+`"`)) {
				return true
			}
		}
		return false
	}
}

// A run whose requests are all refused stops, and no request fails.
func TestRunRefused(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		status   int
		requests uint32
		asked    int // of these, at most
		location string
		body     string
		error    string
		fix      string
	}{
		{
			status:   400,
			requests: 200,
			asked:    enoughRefusals + 8,
			body:     `{"error":{"message":"Invalid model name passed in model=m"}}`,
			error:    "status 400 Bad Request: Invalid model name",
			fix:      "--override-model",
		},
		{
			status:   422,
			requests: 3,
			asked:    3,
			body:     `{"detail":"the model m does not exist"}`,
			error:    "status 422 Unprocessable Entity: the model m does not exist",
			fix:      "--override-model",
		},
		{
			status:   501,
			requests: 200,
			asked:    enoughRefusals + 8,
			body:     `{"error":{"code":501,"message":"Start it with --embeddings","type":"not_supported_error"}}`,
			error:    "status 501 Not Implemented: Start it with --embeddings",
			fix:      "start the server with the option that its message names",
		},
		{
			status:   505,
			requests: 200,
			asked:    enoughSureRefusals + 8,
			error:    "status 505 HTTP Version Not Supported",
			fix:      "--url",
		},
		{
			status:   200,
			requests: 200,
			asked:    enoughSureRefusals + 8,
			body:     login,
			error:    "status 200 OK, with a page in place of an answer: Sign in to go on",
			fix:      "login",
		},
		{
			status:   200,
			requests: 1,
			asked:    1,
			body:     "OK",
			error:    "status 200 OK, with a page in place of an answer: OK",
			fix:      "login",
		},
		{
			status:   401,
			requests: 200,
			asked:    enoughSureRefusals + 8,
			error:    "POST /v1/chat/completions: status 401 Unauthorized: you may not",
			fix:      "PROMPTMILL_API_KEY",
		},
		{status: 403, requests: 1, asked: 1, error: "status 403 Forbidden: you may not", fix: "PROMPTMILL_API_KEY"},
		{
			status:   404,
			requests: 200,
			asked:    enoughRefusals + 8,
			error:    "status 404 Not Found: you may not",
			fix:      "--url",
		},
		{
			status:   402,
			requests: 200,
			asked:    enoughSureRefusals + 8,
			error:    "status 402 Payment Required: you may not",
			fix:      "no credit",
		},
		{status: 410, requests: 200, asked: enoughRefusals + 8, error: "status 410 Gone", fix: "--url"},
		{
			status:   421,
			requests: 200,
			asked:    enoughSureRefusals + 8,
			error:    "status 421 Misdirected Request",
			fix:      "--url",
		},
		{
			status:   426,
			requests: 200,
			asked:    enoughSureRefusals + 8,
			error:    "status 426 Upgrade Required",
			fix:      "https://",
		},
		{
			status:   302,
			requests: 3,
			asked:    3,
			location: "https://h/",
			error:    "status 302 Found, Location: https://h/: you may not",
			fix:      "--url",
		},
		{status: 407, requests: 3, asked: 3, error: "status 407 Proxy Authentication Required", fix: "HTTP_PROXY"},
	} {
		t.Run(http.StatusText(tt.status), func(t *testing.T) {
			t.Parallel()

			g := &refusingServer{status: tt.status, header: map[string]string{}, body: tt.body}
			if tt.location != "" {
				g.header["Location"] = tt.location
			}

			g.shut.Store(true)
			b := newRunBed(t, startServer(t, g))
			b.cfg.StopRefused = true
			b.publishRange("r", "m", 0, tt.requests, 10)

			w := newWorker(t, b.cfg)
			err := w.Run(t.Context())
			refused, ok := errors.AsType[*RefusedError](err)
			if !ok || !strings.Contains(err.Error(), tt.error) || !strings.Contains(refused.Fix(), tt.fix) {
				t.Errorf("Run: %v", err)
			}

			if got := b.results(); len(got) != 0 {
				t.Errorf("results %v, want none", got)
			}

			if n := g.countRequests(); n > tt.asked {
				t.Errorf("the server got %d requests, want %d at most", n, tt.asked)
			}

			b.checkIdle(w)
		})
	}
}

const login = "<!DOCTYPE html>\n<html><head>\n<title>\n  Sign in\n  to go on </title></head><body><form></form></body></html>\n"

// refuseOnce refuses a request only the first time.
func refuseOnce(refuse func(body []byte) bool) func(body []byte) bool {
	var asked sync.Map
	return func(body []byte) bool {
		_, again := asked.LoadOrStore(string(body), true)
		return !again && refuse(body)
	}
}

// A quota that is used up for a moment, while others are let in, fails no request.
func TestQuotaOfAMinute(t *testing.T) {
	t.Parallel()

	g := &refusingServer{
		status: 429,
		refuse: refuseOnce(mentions("3", "4", "5", "18", "19")),
		body:   `{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details."}}`,
	}

	b := newRunBed(t, startServer(t, g))
	b.cfg.StopRefused = true
	b.publishRange("r", "m", 0, 20, 10)
	w, stop := b.startWorker()
	b.finishAnswered(w, stop, 20)
}

// Where some answers are a page for a while, these requests are retried.
func TestSomePages(t *testing.T) {
	t.Parallel()
	g := &refusingServer{status: 200, refuse: refuseOnce(mentions("3", "4", "5", "18", "19")), body: login}
	b := newRunBed(t, startServer(t, g))
	b.cfg.StopRefused = true
	b.publishRange("r", "m", 0, 20, 10)
	w, stop := b.startWorker()
	b.finishAnswered(w, stop, 20)
}

// A page that the only request of a run gets once is no refusal of all requests.
func TestOnePage(t *testing.T) {
	t.Parallel()

	g := &refusingServer{status: 200, body: login}
	g.refuse = func([]byte) bool { return g.posts.Load() == 1 }
	b := newRunBed(t, startServer(t, g))
	b.cfg.StopRefused = true
	b.publishRange("r", "m", 0, 1, 1)

	w, stop := b.startWorker()
	if line := b.finishRun(w, stop, 1)[0][0]; !strings.Contains(line, `"status_code":200`) {
		t.Errorf("line %s", line)
	}
}

// A request that the server cannot do fails, with one attempt, and those that it can do succeed.
func TestSomeNotSupported(t *testing.T) {
	t.Parallel()

	g := &refusingServer{status: 501, refuse: mentions("3", "4", "5", "38", "39")}
	b := newRunBed(t, startServer(t, g))
	b.publishRange("r", "m", 0, 40, 10)

	w, stop := b.startWorker()
	for index, lines := range b.finishRun(w, stop, 40) {
		if !isFirstTry(lines[0]) {
			t.Errorf("request %d: %s", index, lines[0])
		}
	}

	if failed, retries := w.Stats().Failed.Load(), w.Stats().Retries.Load(); failed != 5 || retries != 0 {
		t.Errorf("%d failed, %d retries; want 5 and none", failed, retries)
	}
}

// A few requests that are refused, among others that are not, fail as the only ones: at the
// beginning, in the middle, and at the end of a run.
func TestSomeRefused(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name        string
		concurrency int
		refused     []string
	}{
		{"the first ones", 8, []string{"0", "1", "2", "3", "4"}},
		{"the last ones", 8, []string{"35", "36", "37", "38", "39"}},
		{"those between", 1, []string{"7", "20"}},
		{"the last one, one at a time", 1, []string{"39"}},
	} {
		for _, status := range []int{403, 404} {
			t.Run(tt.name+" "+http.StatusText(status), func(t *testing.T) {
				t.Parallel()

				g := &refusingServer{status: status, refuse: mentions(tt.refused...)}
				b := newRunBed(t, startServer(t, g))
				b.cfg.Limiter = limit.Fixed(tt.concurrency)
				b.cfg.StopRefused = true
				b.publishRange("r", "m", 0, 40, 10)
				w, stop := b.startWorker()
				got := b.finishRun(w, stop, 40)
				failed := 0
				for index, lines := range got {
					if !isFirstTry(lines[0]) {
						t.Errorf("request %d: %s", index, lines[0])
					}
					if !strings.Contains(lines[0], `"status_code":200`) {
						failed++
					}
				}

				if failed != len(tt.refused) || w.Stats().Failed.Load() != int64(failed) {
					t.Errorf("%d failed, want %d", failed, len(tt.refused))
				}
			})
		}
	}
}

// When a server begins to refuse all requests in the middle of a run, the worker waits.
func TestRefusedForAWhile(t *testing.T) {
	t.Parallel()

	g := &refusingServer{status: 401}
	release := make(chan struct{})
	var answers atomic.Int64
	g.wait = func([]byte) { // with all answers but the first, so that most of the run is left to refuse
		if answers.Add(1) > 1 {
			<-release
		}
	}

	b := newRunBed(t, startServer(t, g))
	b.cfg.StopRefused = true // which is for a server that never took one
	b.publishRange("r", "m", 0, 200, 10)
	w, stop := b.startWorker()
	prototest.Poll(t, patience, "an answer", func() bool { return w.stats.Done.Load() > 0 })
	g.shut.Store(true)
	close(release)
	prototest.Poll(t, patience, "the refusal to be noticed", func() bool {
		why, _ := w.Waiting()
		return strings.Contains(why, "refuses all requests")
	})

	prototest.Poll(t, patience, "the worker to hold nothing", func() bool { return w.jobs.held.load() == 0 })
	before := g.posts.Load()
	prototest.Poll(t, patience, "the server to get a request again", func() bool { return g.posts.Load() > before })

	if info := w.describe(); info.Ready || !strings.Contains(info.Problem, "401 Unauthorized: you may not") {
		t.Errorf("the worker says ready %t, %q", info.Ready, info.Problem)
	}

	g.shut.Store(false)
	for index, lines := range b.finishRun(w, stop, 200) {
		if !strings.Contains(lines[0], `"status_code":200`) || !isFirstTry(lines[0]) {
			t.Errorf("request %d: %s", index, lines[0])
		}
	}
}

// A worker that serves all runs waits for a server that has refused all requests from the
// beginning. The refused requests of one run do not keep the worker from trying another run.
func TestWorkerWaitsWhileRefused(t *testing.T) {
	t.Parallel()

	isOfRunA := func(body []byte) bool { return bytes.Contains(body, []byte("a question")) }
	g := &refusingServer{status: 404, refuse: isOfRunA}
	b := newTestBed(t, startServer(t, g))
	b.addRun("a", 0, "m")
	b.publishRange("a", "m", 0, 5, 5)
	w, stop := b.startWorker()
	prototest.Poll(t, patience, "the refusal to be noticed", func() bool {
		why, _ := w.Waiting()
		return strings.Contains(why, "refuses all requests")
	})

	b.addRun("b", 0, "m")
	b.publishRange("b", "m", 0, 5, 5)
	b.awaitRun("b")
	b.awaitRun("a") // they are known to be at fault now
	stop()

	for index, lines := range b.checkLines("a", 5) {
		if !strings.Contains(lines[0], `"status_code":404`) {
			t.Errorf("request %d of a: %s", index, lines[0])
		}
	}

	for index, lines := range b.checkLines("b", 5) {
		if !strings.Contains(lines[0], `"status_code":200`) {
			t.Errorf("request %d of b: %s", index, lines[0])
		}
	}

	b.checkIdle(w)
}

// All requests that are left of a run may be refused for their own sake. Requests that were
// answered before show which it is.
func TestRefusedAfterSamples(t *testing.T) {
	t.Parallel()

	for _, shut := range []bool{false, true} {
		g := &refusingServer{status: 404, refuse: mentions("5", "6")}
		g.shut.Store(shut)
		b := newRunBed(t, startServer(t, g))
		b.cfg.StopRefused, b.cfg.Samples = true, chatRequests(1, 2)
		b.publishShard("0-0", chatRequests(5, 6)...)
		w := newWorker(t, b.cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()

		if shut {
			if _, ok := errors.AsType[*RefusedError](<-done); !ok {
				t.Error("Run does not stop")
			}
		} else {
			b.awaitRun("r")
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}

		cancel()
		if got := len(b.results()); shut != (got == 0) || !shut && got != 2 {
			t.Errorf("%d results of a server that refuses all: %t", got, shut)
		}
	}
}

// When a key stops working, long answers that began before it did do not show that the later
// refusals meant single requests.
func TestAnswerBeganBefore(t *testing.T) {
	t.Parallel()

	began, release := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(began) })
	g := &refusingServer{status: 403, refuse: mentions("1", "2", "3", "4")}
	g.wait = func(body []byte) {
		if mentions("0")(body) {
			begin()
			<-release
		}
		<-began // the first has begun before any is refused
	}

	b := newRunBed(t, startServer(t, g))
	b.publishShard("0-0", chatRequests(0, 4)...)
	w, _ := b.startWorker()
	prototest.Poll(t, patience, "four refusals", func() bool { return w.server.refusals.n.Load() == 4 })
	g.shut.Store(true)
	close(release)
	prototest.Poll(t, patience, "the answer", func() bool { return len(b.results()) == 1 })
	prototest.Poll(t, patience, "the refusal to be noticed", func() bool { return w.server.state.isRefusing() })
	if got := b.results(); len(got) != 1 {
		t.Errorf("results %v", got)
	}
}

// A refusal of a run that is paused ends once, also if another goroutine takes it out meanwhile.
func TestSetAsideEndsOnce(t *testing.T) {
	t.Parallel()

	const n = 20000
	w := newWorker(t, Config{JS: noBus{}, Server: new(modelserver.Server), Limiter: limit.Fixed(1)})
	f := &activeRun{}
	f.paused.Store(true)
	shard := &shardJob{jobs: w.jobs, run: f, outcomes: make(chan outcome, 2*n)}

	done := make(chan struct{})
	var putters, takers sync.WaitGroup
	for range 4 {
		putters.Go(func() {
			for range n / 4 {
				w.server.attempts.setRefusalAside(&task{shard: shard}, classification{verdict: barred}, 0)
			}
		})

		takers.Go(func() {
			for {
				for _, a := range w.server.refusals.take(func(refusal) bool { return true }) {
					a.task.handBack()
				}

				select {
				case <-done:
					return
				default:
				}
			}
		})
	}

	putters.Wait()
	close(done)
	takers.Wait()

	if got := len(shard.outcomes); got != n {
		t.Errorf("%d tasks ended %d times", n, got)
	}
}

func TestRefusedError(t *testing.T) {
	t.Parallel()
	err := &RefusedError{Server: "http://h", Path: "/v1/embeddings", Status: 302, Location: "https://h/"}
	if got, want := err.Error(),
		"the model server at http://h refuses all requests: POST /v1/embeddings: status 302 Found, Location: https://h/"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
