package worker

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// BenchmarkAttempt is an attempt from the slot to the output line, with a server that takes no
// time.
func BenchmarkAttempt(b *testing.B) {
	server, err := modelserver.New(answerAll(b, answered), "")
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()

	w := newWorker(b, Config{JS: noBus{}, Server: server, Limiter: limit.Fixed(1)})
	run := &activeRun{id: "r", requests: b.Context()}
	shard := &shardJob{jobs: w.jobs, run: run, id: "0-0", outcomes: make(chan outcome, 1)}
	request := chatRequests(0, 0)[0]

	b.ReportAllocs()
	for b.Loop() {
		slot, err := w.cfg.Limiter.Acquire(b.Context())
		if err != nil {
			b.Fatal(err)
		}

		t := &task{Request: request, shard: shard, arrived: time.Now()}
		w.server.attempts.run(attemptJob{w.server.state.epoch(), t, slot})

		if o := <-shard.outcomes; o.line == nil || w.stats.Failed.Load() > 0 {
			b.Fatalf("outcome %+v", o)
		}
	}
}

// answerAll serves the same answer to each request. It returns the server's URL.
func answerAll(tb testing.TB, body string) string {
	tb.Helper()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}

	ended := make(chan struct{})
	tb.Cleanup(func() { listener.Close(); <-ended })

	answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		len(body), body)

	go func() {
		defer close(ended)

		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}

			go func() {
				defer c.Close()

				in := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}

					io.Copy(io.Discard, r.Body)
					io.WriteString(c, answer)
				}
			}()
		}
	}()

	return "http://" + listener.Addr().String()
}
