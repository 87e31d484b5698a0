package worker

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
)

const goodAnswer = `{"choices":[{"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}]}`

// A server that counts no tokens and takes longer for an answer than the stall time makes
// progress, and does not get the same requests for ever.
func TestSlowServer(t *testing.T) {
	t.Parallel()

	var posts atomic.Int64
	b := newRunBed(t, startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.NotFound(w, r)
			return
		}

		io.Copy(io.Discard, r.Body)
		posts.Add(1)

		select {
		case <-time.After(1500 * time.Millisecond):
			io.WriteString(w, goodAnswer)
		case <-r.Context().Done():
		}
	})))

	b.cfg.Stall, b.cfg.Attempts = 200*time.Millisecond, 3
	b.publishRange("r", "m", 0, 3, 3)
	w, stop := b.startWorker()
	b.finishAnswered(w, stop, 3)

	if n := posts.Load(); n > 9 {
		t.Errorf("%d requests for 3 answers", n)
	}

	if w.Stats().Reasons()["stall"] == 0 {
		t.Error("no attempt counts as stalled")
	}
}

// A request that is never answered gets its attempts, the last one with all its time, and then
// fails. The others are answered.
func TestRequestNeverEnds(t *testing.T) {
	t.Parallel()

	b := newRunBed(t, startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.NotFound(w, r)
			return
		}

		body, _ := io.ReadAll(r.Body)
		if mentions("0")(body) {
			<-r.Context().Done()
			return
		}

		io.WriteString(w, goodAnswer)
	})))

	b.cfg.Limiter = limit.Fixed(1)
	b.cfg.Stall, b.cfg.Timeout, b.cfg.Attempts = 200*time.Millisecond, 2*time.Second, 2
	b.publishRange("r", "m", 0, 5, 5)

	w, stop := b.startWorker()
	for index, lines := range b.finishRun(w, stop, 5) {
		want := `"status_code":200`
		if index == 0 {
			want = `"code":"timeout"`
		}

		if !strings.Contains(lines[0], want) || index == 0 && !strings.Contains(lines[0], `"attempts":2`) {
			t.Errorf("request %d: %s", index, lines[0])
		}
	}
}

// A worker that stops hands back the request that it would have sent again.
func TestStopDuringHangProbe(t *testing.T) {
	t.Parallel()

	b := newRunBed(t, startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.NotFound(w, r)
			return
		}
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})))

	b.cfg.Stall, b.cfg.Grace = 200*time.Millisecond, 100*time.Millisecond
	b.publishRange("r", "m", 0, 5, 5)
	w, stop := b.startWorker()
	prototest.Poll(t, patience, "the request to be sent again", func() bool {
		return w.Down() && w.stats.InFlight.Load() == 1 && w.jobs.held.load() == 1
	})

	stop()
	b.checkIdle(w)

	if got := b.results(); len(got) != 0 {
		t.Errorf("results %v", got)
	}
}

// A server of one thread that keeps connections open answers all requests, however many the worker
// sends at once.
func TestOneThread(t *testing.T) {
	t.Parallel()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	ended := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-ended })

	go func() {
		defer close(ended)

		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}

			in := bufio.NewReader(c)
			for {
				r, err := http.ReadRequest(in)
				if err != nil {
					break
				}

				io.Copy(io.Discard, r.Body)

				status, body := "200 OK", goodAnswer
				if r.Method == http.MethodGet {
					status, body = "404 Not Found", ""
				}

				if _, err := fmt.Fprintf(
					c, "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body,
				); err != nil || r.Close {
					break
				}
			}

			c.Close()
		}
	}()

	b := newRunBed(t, "http://"+listener.Addr().String())
	b.cfg.Limiter = limit.Fixed(4)
	b.publishRange("r", "m", 0, 40, 10)
	w, stop := b.startWorker()
	begin := time.Now()

	for index, lines := range b.finishRun(w, stop, 40) {
		if !strings.Contains(lines[0], `"status_code":200`) || !isFirstTry(lines[0]) {
			t.Errorf("request %d: %s", index, lines[0])
		}
	}

	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}
