package http1

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/worker/modelserver/internal/rawserver"
)

// httpAnswer returns the bytes of an answer.
func httpAnswer(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		status, len(body), body)
}

// sumOf returns the test servers' answer to a request.
func sumOf(body []byte) string { return fmt.Sprintf(`{"id":"c","sum":"%x"}`, sha256.Sum256(body)) }

// extra describes the bytes that a server sends beyond its answers.
type extra struct {
	greeting string
	behind   func(answer string) string
	first    int // request of a connection that has it; each seventh after that has it, too
}

func answerTwice(answer string) string { return answer }
func otherAnswer(string) string        { return httpAnswer(200, `{"id":"c","sum":"none"}`) }
func refusal(string) string            { return httpAnswer(400, `{"error":{"message":"no such method"}}`) }
func timeout408(string) string         { return httpAnswer(408, `{"error":"x"}`) }
func lineEnd(string) string            { return "\r\n" }
func nothing(string) (text string)     { return "" }

// connectOutOfStep returns a client of a server that takes some time for each request, and
// sends something more a while after the answer, and the client's warnings. The time is
// synctest's: only the delays between the bytes distinguish them, and a busy machine adds its
// own.
func connectOutOfStep(t *testing.T, e extra, takes, after, far time.Duration) (*Client, *lockedBuffer) {
	t.Helper()

	client := listenInBubble(t, far, far, func(c net.Conn, in *bufio.Reader) {
		io.WriteString(c, e.greeting)
		for k := 1; ; k++ {
			body, ok := rawserver.ReadRequest(in)
			if !ok {
				return
			}

			time.Sleep(takes)
			answer := httpAnswer(200, sumOf(body))
			io.WriteString(c, answer)

			if k%7 == e.first && e.behind != nil {
				time.Sleep(after)
				io.WriteString(c, e.behind(answer))
			}
		}
	})

	var logged lockedBuffer
	client.log = zerolog.New(&logged)

	return client, &logged
}

// lockedBuffer is a log for several writers.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// postFromSlots sends requests from several slots, and counts the answers of other requests and
// the errors.
func postFromSlots(t *testing.T, client *Client, slots, each int) (wrong, failed int64) {
	t.Helper()

	var others, errs atomic.Int64
	var clients sync.WaitGroup
	for i := range slots {
		clients.Go(func() {
			for j := range each {
				body := fmt.Appendf(nil, `{"n":"%d %d"}`, i, j)
				switch a := post(t.Context(), client, "/v1/chat/completions", body); {
				case a.Err != nil || a.Status != 200:
					errs.Add(1)
				case string(a.Body) != sumOf(body):
					others.Add(1)
				}
			}
		})
	}

	clients.Wait()

	return others.Load(), errs.Load()
}

// On a machine that does nothing else no answer is of another request. On a busy one some may
// be, or be refusals, until the client finds the server out of step.
func TestOutOfStep(t *testing.T) {
	t.Parallel()

	const slots = 8
	for _, tt := range []struct {
		name   string
		behind func(answer string) string
		first  []int // of [extra]
		warned bool
	}{
		{"an answer twice", answerTwice, []int{3, 5}, true},
		{"an answer unrequested", otherAnswer, []int{3}, true}, // seen when the connection rests, after its fourth
		{"a refusal unrequested", refusal, []int{3, 5}, true},
		{"a timeout unrequested", timeout408, []int{3, 5}, false},
		{"a line end behind the body", lineEnd, []int{3, 5}, false},
		{"nothing", nothing, []int{3, 5}, false},
	} {
		for _, takes := range []time.Duration{0, time.Millisecond, 12 * time.Millisecond} {
			for _, after := range []time.Duration{0, time.Millisecond} {
				for _, first := range tt.first {
					t.Run(fmt.Sprintf("%s, %s after the %dth of %s", tt.name, after, first, takes), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							e := extra{behind: tt.behind, first: first}
							client, logged := connectOutOfStep(t, e, takes, after, 0)
							wrong, failed := postFromSlots(t, client, slots, 20)
							if wrong+failed > 0 {
								t.Errorf("%d answers are of another request, %d are none", wrong, failed)
							}

							if n := strings.Count(logged.String(), `"level":"warn"`); tt.warned && n != 1 || n > 1 {
								t.Errorf("%d warnings: %s", n, logged)
							}
						})
					})
				}
			}
		}
	}
}

// An answer that is doubted is reported with the answer that the request got when it was sent again.
func TestDoubtedAnswer(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		const slow = 100 * time.Millisecond
		const known = 30 // answers after which the client knows the server as slow
		var served atomic.Int64
		client := listenInBubble(t, 0, 0, func(c net.Conn, in *bufio.Reader) {
			for k := 1; ; k++ {
				body, ok := rawserver.ReadRequest(in)
				if !ok {
					return
				}

				served.Add(1)
				if k <= known {
					time.Sleep(slow)
				}
				io.WriteString(c, httpAnswer(200, sumOf(body)))
			}
		})

		body := []byte(`{"n":"1"}`)
		for range known {
			if a := post(t.Context(), client, "/", body); a.Err != nil || a.Doubted != nil {
				t.Fatalf("%+v", a)
			}
		}

		begin := time.Now()
		a := post(t.Context(), client, "/", body)
		if a.Err != nil || a.Doubted == nil || served.Load() != known+2 {
			t.Fatalf("%d requests were served, the last with %+v", served.Load(), a)
		}

		d := a.Doubted
		if string(d.Body) != sumOf(body) || d.Took != 0 || d.Resent != begin || time.Since(d.Resent) < slow {
			t.Errorf("%s took %v, and the next answer %v", d.Body, d.Took, time.Since(d.Resent))
		}

		client.Close()
	})
}

// A server that sends something before it is asked gives every answer to the next request, also
// on new connections: no answer of it is accepted, be it near or far away.
func TestGreeting(t *testing.T) {
	t.Parallel()

	for _, greeting := range []string{otherAnswer(""), "hello", httpAnswer(400, "{}")} {
		for _, far := range []time.Duration{0, 100 * time.Millisecond} {
			t.Run(fmt.Sprintf("%.12q from a server %s away", greeting, far), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					client, logged := connectOutOfStep(t, extra{greeting: greeting}, time.Millisecond, 0, far)
					wrong, failed := postFromSlots(t, client, 8, 2)
					if wrong > 0 || failed != 16 {
						t.Errorf("%d answers are of another request, %d are none", wrong, failed)
					}

					if a := post(t.Context(), client, "/", nil); !errors.Is(a.Err, ErrSpokeFirst) {
						t.Errorf("error %v", a.Err)
					}

					if err := client.CheckSilence(t.Context()); !errors.Is(err, ErrSpokeFirst) {
						t.Errorf("check: %v", err)
					}

					if !strings.Contains(logged.String(), "unrequested answers") {
						t.Errorf("%s", logged)
					}
				})
			})
		}
	}
}

// The same answer to another request is a repetition, to an equal request it is not.
func TestRepeatsLast(t *testing.T) {
	t.Parallel()

	var c conn
	for i, tt := range []struct {
		digest uint64
		answer string
		want   bool
	}{
		{1, "a", false},
		{1, "a", false},
		{2, "a", true},
		{3, "b", false},
		{3, "b", false},
	} {
		c.uses++
		c.prevDigest, c.digest = c.digest, tt.digest
		if got := c.repeatsLast([]byte(tt.answer)); got != tt.want {
			t.Errorf("answer %d repeats: %t", i, got)
		}
	}
}

// A server of one thread that keeps its connections open gets requests on one at a time.
func TestOneThread(t *testing.T) {
	t.Parallel()

	var busy sync.Mutex
	client := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		busy.Lock()
		defer busy.Unlock()

		for {
			body, ok := rawserver.ReadRequest(in)
			if !ok {
				return
			}
			io.WriteString(c, httpAnswer(200, sumOf(body)))
		}
	})
	if wrong, failed := postFromSlots(t, client, 1, 50); wrong > 0 || failed > 0 {
		t.Errorf("%d answers are of another request, %d are none", wrong, failed)
	}
}
