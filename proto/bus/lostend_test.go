package bus_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// replica is a NATS server in memory, whose time is synctest's, with one copy of a replicated
// bucket of manifests. It answers the requests of readers of the bucket.
type replica struct {
	created time.Time

	mu   sync.Mutex
	keys map[uint64]string // of the bucket's entries, by sequence
}

// hold sets what the copy has.
func (r *replica) hold(keys map[uint64]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = keys
}

// InProcessConn makes a connection to the server.
func (r *replica) InProcessConn() (net.Conn, error) {
	client, server := net.Pipe()
	go r.serve(server)
	return client, nil
}

// serve speaks NATS until the client is gone.
func (r *replica) serve(conn net.Conn) {
	defer conn.Close()

	fmt.Fprint(conn, `INFO {"server_id":"r","version":"2.12.0","proto":1,"headers":true,"max_payload":1048576}`+"\r\n")

	sids := map[string]string{} // of subscriptions, by subject
	for in := bufio.NewReader(conn); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}

		switch words := strings.Fields(line); words[0] {
		case "PING":
			fmt.Fprint(conn, "PONG\r\n")
		case "SUB":
			sids[words[1]] = words[len(words)-1]
		case "PUB":
			size, body := 0, []byte(nil)
			fmt.Sscan(words[len(words)-1], &size)

			body = make([]byte, size+len("\r\n"))
			if _, err := io.ReadFull(in, body); err != nil {
				return
			}

			to := words[2]
			sid, ok := sids[to]
			if !ok {
				sid = sids[to[:strings.LastIndex(to, ".")+1]+"*"]
			}

			head, answer := r.answer(words[1], body)
			fmt.Fprintf(conn, "HMSG %s %s %d %d\r\n%s%s\r\n", to, sid, len(head), len(head)+len(answer), head, answer)
		}
	}
}

// answer returns the header and the body of the answer to a question.
func (r *replica) answer(subject string, body []byte) (head, answer string) {
	if strings.HasPrefix(subject, "$JS.API.STREAM.INFO.") {
		return "NATS/1.0\r\n\r\n",
			fmt.Sprintf(`{"config":{"name":"KV_%s","num_replicas":3,"max_msgs_per_subject":1,"allow_direct":true},"created":%q}`,
				proto.RunsBucket, r.created.Format(time.RFC3339Nano))
	}

	var asked struct{ Seq, Batch uint64 }
	json.Unmarshal(body, &asked)
	r.mu.Lock()
	defer r.mu.Unlock()

	const beyond = 100 // all sequences
	for seq := asked.Seq; seq < beyond && asked.Batch == 0; seq++ {
		if key, ok := r.keys[seq]; ok {
			text, _ := json.Marshal(manifest(key))
			return fmt.Sprintf("NATS/1.0\r\nNats-Stream: KV_%s\r\nNats-Subject: $KV.%s.%s\r\nNats-Sequence: %d\r\nNats-Time-Stamp: %s\r\n\r\n",
				proto.RunsBucket, proto.RunsBucket, key, seq, r.created.Format(time.RFC3339Nano)), string(text)
		}
	}

	return "NATS/1.0 404 Message Not Found\r\n\r\n", ""
}

// A copy that is behind is not believed for a while. A bucket that has lost its end with a
// server's store is as it is from then on.
func TestWatchAllOfBucketThatLostItsEnd(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		r := &replica{created: time.Now(), keys: map[uint64]string{1: "a", 3: "b"}}
		nc, err := nats.Connect("", nats.InProcessServer(r))
		must(t, err)
		closed := make(chan struct{})
		nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
		t.Cleanup(func() {
			nc.Close()
			<-closed
		})

		js, err := jetstream.New(nc)
		must(t, err)
		opened, err := bus.Open(t.Context(), js)
		must(t, err)
		runs := opened.Runs
		says, stop := startWatch(t, runs)
		defer stop()

		both, lost := runStates{
			"a": proto.StateInProgress,
			"b": proto.StateInProgress,
		}, runStates{"a": proto.StateInProgress, "new": proto.StateInProgress}

		hear := func(what string, during time.Duration, want runStates) (after time.Duration) {
			t.Helper()

			begin := time.Now()
			for end := time.After(during); ; {
				select {
				case now := <-says:
					if cmp.Equal(now, want) && after == 0 {
						after = time.Since(begin)
					}
					if !cmp.Equal(now, both) && !cmp.Equal(now, want) {
						t.Errorf("%s: %v", what, now)
					}
				case <-end:
					return after
				}
			}
		}

		hear("all copies are the same", time.Second, both)

		r.hold(map[uint64]string{1: "a"})
		hear("a copy that is behind answers", 20*time.Second, both)
		r.hold(map[uint64]string{1: "a", 3: "b"})
		hear("the copy has caught up", 20*time.Second, both)

		r.hold(map[uint64]string{1: "a", 2: "new"})
		if after := hear("the bucket has lost its end", time.Minute, lost); after < 15*time.Second ||
			after > 40*time.Second {
			t.Errorf("the new entries of the bucket are reported after %s", after)
		}
	})
}
