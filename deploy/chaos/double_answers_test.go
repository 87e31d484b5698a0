package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// A server whose answers come twice: the bytes of each answer, one after the other.
func TestAnswersTwice(t *testing.T) {
	t.Parallel()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	connections := &doublingListener{Listener: listener}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"id":"chatcmpl-%s"}`, r.URL.Path[1:])
	})}

	go server.Serve(connections)
	t.Cleanup(func() { server.Close() })

	ask := func(rate float64, paths ...string) string {
		t.Helper()

		connections.set(rate, 1)

		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()

		for _, path := range paths {
			fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		}

		var got strings.Builder
		want := len(paths)
		if rate == 1 {
			want *= 2
		}

		conn.SetReadDeadline(time.Now().Add(time.Minute))
		for b := make([]byte, 4096); strings.Count(got.String(), "chatcmpl-") < want; {
			n, err := conn.Read(b)
			if err != nil {
				t.Fatalf("%v after %s", err, got.String())
			}
			got.Write(b[:n])
		}

		conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) // no more than that
		rest, _ := io.ReadAll(conn)

		return got.String() + string(rest)
	}
	if got := ask(0, "x", "y"); strings.Count(got, "chatcmpl-x") != 1 || strings.Count(got, "chatcmpl-y") != 1 {
		t.Errorf("answers come once, and it answered %s", got)
	}

	if got := ask(1, "x", "y"); strings.Count(got, "chatcmpl-x") != 2 || strings.Count(got, "chatcmpl-y") != 2 {
		t.Errorf("answers come twice, and it answered %s", got)
	}
}

// Wrong answers are borne from a server that answered twice, then, and no more of them than
// it had connections.
func TestSwapped(t *testing.T) {
	t.Parallel()

	twice := disruption{
		what:     "answers twice model1",
		models:   []string{"worker1"},
		from:     at(10),
		to:       at(20),
		recovery: time.Second,
	}

	tests := []struct {
		name   string
		worker string
		end    float64 // when the answer that was taken was given
		twice  []disruption
		n      int
		want   string
	}{
		{"all is well", "", 15, []disruption{twice}, 0, ""},
		{"then, by that server", "worker1", 15, []disruption{twice}, 2, ""},
		{"before", "worker1", 5, []disruption{twice}, 0, "q-0 has the wrong answer"},
		{"by another server", "worker2", 15, []disruption{twice}, 0, "q-0 has the wrong answer"},
		{"no server answered twice", "worker1", 15, nil, 0, "q-0 has the wrong answer"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			input, o := evidence(t)
			executed := map[string][]execution{}
			for _, w := range input {
				executed[w.answer] = []execution{by("worker1", test.end-1, test.end)}
			}

			if test.worker != "" {
				for i := range 2 {
					o.results[i].Extras.Worker = test.worker
				}
				o.results[0].Response.Body, o.results[1].Response.Body = o.results[1].Response.Body,
					o.results[0].Response.Body
			}

			var found findings
			borne, n := findSwapped(map[string][]expected{"run": input}, map[string][]line{"run": o.results}, executed,
				test.twice, &found)
			checkOutput("run", borne["run"], o, &found)
			wantFinding(t, found, test.want)
			if n != test.n {
				t.Errorf("%d are borne, want %d", n, test.n)
			}
		})
	}
}

func TestTooManySwapped(t *testing.T) {
	t.Parallel()

	var input []expected
	var lines []line
	executed := map[string][]execution{}
	for i := range mostInFlight + 2 {
		w := expected{customID: fmt.Sprintf("q-%d", i), answer: fmt.Sprintf("%016x", i)}
		input = append(input, w)
		executed[w.answer] = []execution{by("worker1", 14, 15)}
		var l line
		text := fmt.Sprintf(`{"custom_id":"q-%d","response":{"status_code":200,"body":{"id":"chatcmpl-%016x"}},"promptmill":{"index":%d,"worker":"worker1"}}`,
			i, (i+1)%(mostInFlight+2), i)
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}

		lines = append(lines, l)
	}

	twice := disruption{models: []string{"worker1"}, from: at(10), to: at(20)}
	var found findings
	borne, n := findSwapped(map[string][]expected{"run": input}, map[string][]line{"run": lines}, executed,
		[]disruption{twice}, &found)
	wantFinding(t, found, "34 answers were taken for those of other requests")
	if n != mostInFlight+2 || slices.Collect(maps.Keys(borne))[0] != "run" {
		t.Errorf("%d are borne", n)
	}
}
