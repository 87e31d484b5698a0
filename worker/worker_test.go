package worker

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

func TestWorkerSurvivesFaults(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		fault   string
		timeout time.Duration
		final   bool // the request is not retried
	}{
		{fault: "429"}, {fault: "500"}, {fault: "503"}, {fault: "reset"}, {fault: "truncated"},
		{fault: "html"}, {fault: "garbage"}, {fault: "context", final: true}, {fault: "hang", timeout: 2 * time.Second},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()

			// Faults are rare enough that the waits of a request hardly ever add up to half
			// a minute.
			const n = 100
			g := &concurrencyGauge{Handler: sim.New(sim.Config{
				Seed: 1, Tokens: 5, TTFT: 5 * time.Millisecond, Faults: sim.Faults{tt.fault: 0.1},
			})}

			b := newRunBed(t, startServer(t, g))
			b.cfg.Timeout = tt.timeout

			for i := range uint32(n / 10) {
				b.publishShard(proto.ShardID(0, uint64(i)), chatRequests(10*i, 10*i+9)...)
			}

			w, stop := b.startWorker()
			got := b.finishRun(w, stop, n)
			var scan jsonscan.Scanner
			failed := 0
			for index, lines := range got {
				info, err := proto.ParseLine(&scan, []byte(lines[0]))
				if err != nil {
					t.Fatal(err)
				}

				if want := fmt.Sprintf(`"c-%d"`, index); string(info.CustomID) != want {
					t.Errorf("request %d has the line of %s", index, info.CustomID)
				}

				if tt.final && !isFirstTry(lines[0]) {
					t.Errorf("request %d: %d attempts after a final answer", index, info.Attempts)
				}

				if !info.OK {
					failed++
				}
			}

			if tt.final != (failed > 0) {
				t.Errorf("%d requests failed", failed)
			}

			retries := w.Stats().Retries.Load() - w.Stats().Reasons()[reasonDoubted]
			if (retries > 0) == tt.final {
				t.Errorf("%d retries", retries)
			}

			if most := g.most.Load(); most > 8 && tt.timeout == 0 { // after a timeout the server notices late
				t.Errorf("%d requests at once, the limit is 8", most)
			}
		})
	}
}

func TestWorkerGivesUp(t *testing.T) {
	t.Parallel()

	b := newRunBed(t, startServer(t, sim.New(sim.Config{Faults: sim.Faults{"500": 1}})))
	b.cfg.Attempts = 2
	refused := proto.Request{Index: 1, CustomID: []byte(`"c-1"`), Refused: "line 2: no body"}
	b.publishShard("0-0", append(chatRequests(0, 0), refused)...)
	w, stop := b.startWorker()
	got := b.finishRun(w, stop, 2)
	if !strings.Contains(got[0][0], `"status_code":500`) || !strings.Contains(got[0][0], `"attempts":2`) ||
		w.Stats().Retries.Load() != 1 {
		t.Errorf("line %s", got[0][0])
	}

	if !strings.Contains(got[1][0], `{"code":"invalid_request","message":"line 2: no body"}`) {
		t.Errorf("line %s", got[1][0])
	}
}

// An answer that is no JSON in the same place twice is not retried further: another try cannot
// change it. Other faults are retried.
func TestWorkerRetriesTransientFaults(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, body string
		attempts   int
	}{
		{"a number that JSON does not have", `{"id":"%d","choices":[{"text":"a","logprob":-Infinity}]}`, 2},
		{"no answer", `{"id":"%d","detail":"no"}`, 3},
		{"no answer of the endpoint", `{"id":"%d","data":[{"embedding":[1]}]}`, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var asked atomic.Int64
			b := newRunBed(t, startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, tt.body, asked.Add(1)%10) // the length stays
			})))

			b.cfg.Attempts = 3
			b.publishShard("0-0", chatRequests(0, 0)...)
			w, stop := b.startWorker()
			got := b.finishRun(w, stop, 1)
			if line := got[0][0]; !strings.Contains(line, `"code":"invalid_response"`) ||
				!strings.Contains(line, fmt.Sprintf(`"attempts":%d`, tt.attempts)) {
				t.Errorf("line %s", line)
			}
		})
	}
}

// An answer that is huge when it is unpacked fails at once, and its neighbours do not.
func TestWorkerAnswerTooLarge(t *testing.T) {
	t.Parallel()

	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if _, err := z.Write(make([]byte, bus.MaxAnswer+1)); err != nil || z.Close() != nil {
		t.Fatal(err)
	}

	isHuge := mentions("1")
	b := newRunBed(t, startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if isHuge(body) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(packed.Bytes())
			return
		}
		io.WriteString(w, answered)
	})))

	b.publishShard("0-0", chatRequests(0, 2)...)

	w, stop := b.startWorker()
	for index, lines := range b.finishRun(w, stop, 3) {
		huge := strings.Contains(lines[0],
			`"code":"answer_too_large","message":"answer is too long: longer than 268435456 bytes when unpacked"`)
		if huge != (index == 1) || !isFirstTry(lines[0]) {
			t.Errorf("request %d: %s", index, lines[0])
		}
	}
}

// A refusal because of too many requests counts as a quarter of an attempt.
func TestWorkerRetriesOverload(t *testing.T) {
	t.Parallel()

	b := newRunBed(t, startServer(t, sim.New(sim.Config{Faults: sim.Faults{"503": 1}})))
	b.cfg.Attempts = 1
	b.publishShard("0-0", chatRequests(0, 0)...)
	w, stop := b.startWorker()
	got := b.finishRun(w, stop, 1)
	if !strings.Contains(got[0][0], `"status_code":503`) || !strings.Contains(got[0][0], `"attempts":4`) {
		t.Errorf("line %s", got[0][0])
	}
}

// Bodies reach the server, and answers the output, byte for byte.
func TestWorkerKeepsBytes(t *testing.T) {
	t.Parallel()

	bodies := []string{
		`{"model":"m","messages":[],"unknown":{"x":[1,{}]},"unknown":2}`,
		`{"model":"m","seed":123456789012345678901234567890,"t":1.0,"e":1E+2,"z":-0}`,
		`{"model":"m","messages":"\u0000\ud83d\ude00 <>&\/\u2028"}`,
		"{ \t\"model\"  :\t\"m\" , \"a\":[ ]  }",
		`{"model":"m","messages":"` + strings.Repeat("0123456789", 1<<20) + `"}`,
		`{"model":"m","messages":"` + strings.Repeat("ä", 9<<20) + `"}`, // does not fit into a message
	}

	var mu sync.Mutex
	seen := map[string]int{}
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}

		mu.Lock()
		seen[string(body)]++
		mu.Unlock()
		fmt.Fprintf(w, `{"choices":[{"text":"\ud83d"}],"echo":%s}`, body)
	})

	b := newRunBed(t, startServer(t, echo))
	for i, body := range bodies {
		b.publishShard(proto.ShardID(0, uint64(i)), proto.Request{
			Index: uint32(i), CustomID: []byte(`"\u0063 <>"`), URL: "/v1/completions", Body: []byte(body),
		})
	}

	w, stop := b.startWorker()
	got := b.finishRun(w, stop, len(bodies))
	for i, body := range bodies {
		if seen[body] != 1 {
			t.Errorf("body %d reaches the server unchanged %d times", i, seen[body])
		}

		if len(got[uint32(i)]) != 1 {
			continue
		}

		line := got[uint32(i)][0]
		if !strings.Contains(line, `"body":{"choices":[{"text":"\ud83d"}],"echo":`+body+`}},"error":null`) ||
			!strings.Contains(line, `"custom_id":"\u0063 <>"`) {
			t.Errorf("answer %d is changed in the line %.300s", i, line)
		}
	}
}

// A redelivered shard runs only the requests without a result.
func TestWorkerRunsMissingRequests(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		junk []byte // stored between the results
	}{{"results alone", nil}, {"a message among them that is no result", []byte("junk")}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server := sim.New(sim.Config{})
			b := newRunBed(t, startServer(t, server))
			for _, indexes := range [][]uint32{{0, 1}, {4}} {
				var lines []byte
				for _, index := range indexes {
					lines = proto.AppendResult(lines, proto.Result{
						Run:         "r",
						Index:       index,
						CustomID:    fmt.Appendf(nil, `"c-%d"`, index),
						Status:      200,
						Body:        []byte("{}"),
						RequestHash: chatRequests(index, index)[0].Hash(),
					})
				}

				if _, err := b.js.PublishMsg(t.Context(), proto.EncodeResults("r", "0-0", indexes, lines)); err != nil {
					t.Fatal(err)
				}

				if tt.junk != nil {
					if _, err := b.js.Publish(t.Context(), proto.ResultsSubject("r", "0-0"), tt.junk); err != nil {
						t.Fatal(err)
					}
				}
			}

			b.publishShard("0-0", chatRequests(0, 5)...)
			w, stop := b.startWorker()
			b.finishRun(w, stop, 6)
			if server.Succeeded() != 3 || w.Stats().Redelivered.Load() != 1 {
				t.Errorf("%d requests were run, want 3; %d shards redelivered",
					server.Succeeded(), w.Stats().Redelivered.Load())
			}

			if usage := w.jobs.usage.snapshot(nil, false)["r"]; usage.Requests != 3 || usage.Redeliveries != 1 {
				t.Errorf("the run's usage is %+v", usage)
			}
		})
	}
}

// A server that comes up late costs no attempt.
func TestWorkerWaitsForServer(t *testing.T) {
	t.Parallel()

	reserved, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	address := reserved.Addr().String()
	reserved.Close()
	b := newRunBed(t, "http://"+address)
	b.cfg.Attempts = 1
	b.publishShard("0-0", chatRequests(0, 19)...)
	w, stop := b.startWorker()
	prototest.Poll(t, patience, "the worker to notice", func() bool { return w.Down() })

	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("the port was taken by another process: %v", err)
	}

	server := httptest.NewUnstartedServer(sim.New(sim.Config{}))
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)

	for index, lines := range b.finishRun(w, stop, 20) {
		if !isFirstTry(lines[0]) || !strings.Contains(lines[0], `"status_code":200`) {
			t.Errorf("request %d: %.300s", index, lines[0])
		}
	}

	if w.Down() {
		t.Error("the server still counts as down")
	}
}

// A stopped worker stores the finished results and returns the other requests at once.
func TestWorkerStops(t *testing.T) {
	t.Parallel()

	// Request 0 is answered, request 1 within the grace period, the others never.
	released := make(chan struct{})
	g := &concurrencyGauge{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/v1/models":
		case bytes.Contains(body, []byte("question 0")):
		case bytes.Contains(body, []byte("question 1")):
			select {
			case <-released:
			case <-r.Context().Done():
				return
			}
		default:
			<-r.Context().Done()
			return
		}

		io.WriteString(w, `{"choices":[{"text":"1"}]}`)
	})}

	b := newRunBed(t, startServer(t, g))
	b.cfg.Limiter = limit.Fixed(4)
	b.cfg.Grace = time.Second
	b.publishShard("0-0", chatRequests(0, 7)...)
	w, stop := b.startWorker()
	prototest.Poll(t, patience, "all slots to be taken", func() bool {
		return w.Stats().InFlight.Load() == 4 && len(b.results()) == 1
	})

	begin := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		stop()
	}()

	prototest.Poll(t, patience, "the stop to begin", w.queue.isClosed)
	close(released)
	<-done

	if took := time.Since(begin); took > patience/2 {
		t.Errorf("the stop took %v of a grace of 1 s", took)
	}

	got := b.results()
	if len(got) != 2 || len(got[0]) != 1 || len(got[1]) != 1 {
		t.Errorf("results %v, want those of 0 and 1", got)
	}

	if open, slots := w.jobs.held.load(), b.cfg.Limiter.InFlight(); open != 0 || slots != 0 {
		t.Errorf("%d requests are held and %d slots taken", open, slots)
	}

	consumer, err := b.js.Consumer(t.Context(), proto.WorkStream("r"), proto.ConsumerName("m"))
	if err != nil {
		t.Fatal(err)
	}

	if _, err := consumer.Next(jetstream.FetchMaxWait(5 * time.Second)); err != nil {
		t.Errorf("the shard cannot be fetched again: %v", err)
	}
}

// isClosed reports whether the queue is closed.
func (q *requestQueue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

func TestWorkerDropsUnreadableShard(t *testing.T) {
	t.Parallel()

	b := newRunBed(t, startServer(t, sim.New(sim.Config{})))
	if _, err := b.js.Publish(t.Context(), proto.WorkSubject("r", "m", "0-0"), []byte("junk")); err != nil {
		t.Fatal(err)
	}

	b.publishShard("0-1", chatRequests(0, 1)...)
	w, stop := b.startWorker()
	b.finishRun(w, stop, 2)
}
