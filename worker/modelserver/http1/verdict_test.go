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
)

// message is an answer on the wire.
func message(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		status, len(body), body)
}

// sumOf is what the servers of these tests answer to a request.
func sumOf(body []byte) string { return fmt.Sprintf(`{"id":"c","sum":"%x"}`, sha256.Sum256(body)) }

// extra is what a server sends beyond its answers.
type extra struct {
	greeting string
	behind   func(answer string) string
	first    int // request of a connection that has it; each seventh after that has it, too
}

func twice(answer string) string   { return answer }
func another(string) string        { return message(200, `{"id":"c","sum":"none"}`) }
func refusal(string) string        { return message(400, `{"error":{"message":"no such method"}}`) }
func timeout408(string) string     { return message(408, `{"error":"x"}`) }
func lineEnd(string) string        { return "\r\n" }
func nothing(string) (text string) { return "" }

// outOfStep is a server that takes some time for each request, and sends some more a while
// after the answer. It returns what it has warned of as well. Its time is synctest's: how soon
// things come one after the other is all that there is to tell them by, and a busy machine
// has its own times.
func outOfStep(t *testing.T, e extra, takes, after, far time.Duration) (*Client, *lockedBuffer) {
	t.Helper()

	client := listenInBubble(t, far, far, func(c net.Conn, in *bufio.Reader) {
		io.WriteString(c, e.greeting)
		for k := 1; ; k++ {
			body, ok := hear(in)
			if !ok {
				return
			}

			time.Sleep(takes)
			answer := message(200, sumOf(body))
			io.WriteString(c, answer)

			if k%7 == e.first && e.behind != nil {
				time.Sleep(after)
				io.WriteString(c, e.behind(answer))
			}
		}
	})

	var said lockedBuffer
	client.log = zerolog.New(&said)

	return client, &said
}

// lockedBuffer is a log that several write.
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

// ask sends requests in several slots, and counts the answers that are of another request
// and those that are none.
func ask(t *testing.T, client *Client, slots, each int) (wrong, failed int64) {
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
// be, or be refusals, until the server is found out.
func TestOutOfStep(t *testing.T) {
	t.Parallel()

	const slots = 8
	for _, tt := range []struct {
		name   string
		behind func(answer string) string
		first  []int // of [extra]
		warned bool
	}{
		{"an answer twice", twice, []int{3, 5}, true},
		{"an answer nobody asked for", another, []int{3}, true}, // seen when the connection rests, after its fourth
		{"a refusal nobody asked for", refusal, []int{3, 5}, true},
		{"a timeout nobody asked for", timeout408, []int{3, 5}, false},
		{"a line end behind the body", lineEnd, []int{3, 5}, false},
		{"nothing", nothing, []int{3, 5}, false},
	} {
		for _, takes := range []time.Duration{0, time.Millisecond, 12 * time.Millisecond} {
			for _, after := range []time.Duration{0, time.Millisecond} {
				for _, first := range tt.first {
					t.Run(fmt.Sprintf("%s, %s after the %dth of %s", tt.name, after, first, takes), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							client, said := outOfStep(t, extra{behind: tt.behind, first: first}, takes, after, 0)
							wrong, failed := ask(t, client, slots, 20)
							if wrong+failed > 0 {
								t.Errorf("%d answers are of another request, %d are none", wrong, failed)
							}

							if n := strings.Count(said.String(), `"level":"warn"`); tt.warned && n != 1 || n > 1 {
								t.Errorf("%d warnings: %s", n, said)
							}
						})
					})
				}
			}
		}
	}
}

// A server that speaks before it is asked gives every answer to the next request, also on
// new connections: no answer of it is taken, be it near or far away.
func TestGreeting(t *testing.T) {
	t.Parallel()

	for _, greeting := range []string{another(""), "hello", message(400, "{}")} {
		for _, far := range []time.Duration{0, 100 * time.Millisecond} {
			t.Run(fmt.Sprintf("%.12q from a server %s away", greeting, far), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					client, said := outOfStep(t, extra{greeting: greeting}, time.Millisecond, 0, far)
					wrong, failed := ask(t, client, 8, 2)
					if wrong > 0 || failed != 16 {
						t.Errorf("%d answers are of another request, %d are none", wrong, failed)
					}

					if a := post(t.Context(), client, "/", nil); !errors.Is(a.Err, ErrSpokeFirst) {
						t.Errorf("error %v", a.Err)
					}

					if err := client.CheckSilence(t.Context()); !errors.Is(err, ErrSpokeFirst) {
						t.Errorf("check: %v", err)
					}

					if !strings.Contains(said.String(), "nobody asked for") {
						t.Errorf("%s", said)
					}
				})
			})
		}
	}
}

// The same answer to another request is looked at, to the same request it is not.
func TestRepeats(t *testing.T) {
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

// A server of one thread that keeps its connections open is not asked on two at once.
func TestOneThread(t *testing.T) {
	t.Parallel()

	var busy sync.Mutex
	client := listen(t, func(c *net.TCPConn, in *bufio.Reader) {
		busy.Lock()
		defer busy.Unlock()

		for {
			body, ok := hear(in)
			if !ok {
				return
			}
			io.WriteString(c, message(200, sumOf(body)))
		}
	})
	if wrong, failed := ask(t, client, 1, 50); wrong > 0 || failed > 0 {
		t.Errorf("%d answers are of another request, %d are none", wrong, failed)
	}
}

// A server that is fast now and then, and right, is soon not doubted any more for it: the
// more often that was seen, the longer it is remembered.
func TestClear(t *testing.T) {
	t.Parallel()

	var client Client
	slow := func() (answers int) {
		for ; client.isFast(); answers++ {
			client.recordTime(20 * time.Millisecond)
		}
		return answers
	}

	slow()

	last := 0
	for range 5 {
		client.recordFalseAlarm(time.Millisecond)
		if !client.isFast() {
			t.Fatal("a server that was fast counts as slow")
		}

		answers := slow()
		if answers < last*3/2 {
			t.Errorf("forgotten after %d answers, %d the time before", answers, last)
		}

		last = answers
	}

	client.recordFalseAlarm(50 * time.Millisecond)
	if client.leastNanos.Load() > int64(20*time.Millisecond) {
		t.Error("a slow answer has raised the least time")
	}
}
