package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// BenchmarkBoxes: throughput of 16 boxes of 64 slots and a second an answer, one
// worker process a box, over 16 times that of one. From the first request to the last
// answer, on a bus that stays up.
//
//	go test -run - -bench 'Boxes|Speeds' -benchtime 1x -timeout 30m ./deploy/promptmill
func BenchmarkBoxes(b *testing.B) {
	for b.Loop() {
		one := runFleet(b, 64*30, box(time.Second, 0))
		sixteen := runFleet(b, 16*64*30, slices.Repeat([]sim.Config{box(time.Second, 0)}, 16)...)
		b.ReportMetric(one.perSecond, "1-box-req/s")
		b.ReportMetric(sixteen.perSecond, "16-boxes-req/s")
		b.ReportMetric(sixteen.perSecond/(16*one.perSecond), "ratio")
	}
}

// BenchmarkSpeeds: boxes that need 1 s, 2 s and 4 s for an answer, over the sum of the
// boxes' speeds alone.
func BenchmarkSpeeds(b *testing.B) {
	for b.Loop() {
		var alone float64
		speeds := []sim.Config{box(time.Second, 0.2), box(2*time.Second, 0.2), box(4*time.Second, 0.2)}
		for _, speed := range speeds {
			alone += runFleet(b, 64*20, speed).perSecond
		}

		all := runFleet(b, 64*250, speeds...)
		b.ReportMetric(all.perSecond/alone, "ratio")
		b.ReportMetric(100*all.idle, "idle-%-of-fastest-at-end")
	}
}

func box(answer time.Duration, spread float64) sim.Config {
	return sim.Config{Models: []string{"sim"}, Slots: 64, TTFT: answer, Spread: spread, Tokens: 150}
}

// fleet holds the figures of some boxes.
type fleet struct {
	perSecond float64
	idle      float64 // of the first box's slots in the last tenth of the run
}

// timed is a model server that notes when it was busy.
type timed struct {
	*sim.Server
	mu    sync.Mutex
	spans [][2]time.Time
}

func (s *timed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	s.Server.ServeHTTP(w, r)
	if r.Method == http.MethodPost {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.spans = append(s.spans, [2]time.Time{begin, time.Now()})
	}
}

// runFleet runs requests on boxes, each a worker process with a model server in this
// one.
func runFleet(b *testing.B, requests int, boxes ...sim.Config) fleet {
	b.Helper()

	dir := b.TempDir()
	in := benchInput(b, requests, 4096)
	command := func(args ...string) *exec.Cmd {
		path, err := exec.LookPath("promptmill")
		if err != nil {
			b.Fatal(err)
		}
		cmd := exec.Command(path, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PROMPTMILL_STATE="+filepath.Join(dir, "state"))
		return cmd
	}

	start := func(args ...string) {
		cmd := command(args...)
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}

		b.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
	}

	start("serve", "--listen", "127.0.0.1:0", "--flush", "500ms")
	var servers []*timed
	waitFor(b, "the bus", func() bool { return command("list").Run() == nil })

	for i, cfg := range boxes {
		s := &timed{Server: sim.New(cfg)}
		listener := httptest.NewServer(s)
		b.Cleanup(listener.Close)
		servers = append(servers, s)
		start("worker", "--url", listener.URL, "--name", fmt.Sprintf("box%02d", i))
	}

	waitFor(b, "the workers", func() bool {
		out, err := command("workers", "--json").Output()
		var list []proto.WorkerInfo
		return err == nil && json.Unmarshal(out, &list) == nil && len(list) == len(boxes)
	})

	if out, err := command("submit", in, "--run", "r").CombinedOutput(); err != nil {
		b.Fatalf("submit: %v: %s", err, out)
	}

	waitFor(b, "the end of the run", func() bool {
		_, err := os.Stat(filepath.Join(dir, "r.meta.json"))
		return err == nil
	})

	var first, last time.Time
	for _, s := range servers {
		for _, span := range s.spans {
			if first.IsZero() || span[0].Before(first) {
				first = span[0]
			}
			if span[1].After(last) {
				last = span[1]
			}
		}
	}

	tail := last.Add(-last.Sub(first) / 10)
	var busy time.Duration
	for _, span := range servers[0].spans {
		if span[1].After(tail) {
			busy += span[1].Sub(later(span[0], tail))
		}
	}

	return fleet{
		perSecond: float64(requests) / last.Sub(first).Seconds(),
		idle:      1 - busy.Seconds()/(float64(boxes[0].Slots)*last.Sub(tail).Seconds()),
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func waitFor(b *testing.B, what string, ok func() bool) {
	b.Helper()
	for end := time.Now().Add(5 * time.Minute); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("%s: not within 5 minutes", what)
		}
	}
}

// benchInput writes n requests of about size bytes.
func benchInput(b *testing.B, n, size int) string {
	b.Helper()

	words := strings.Fields("the customer wrote that payment failed after an update and asks for a refund of order number since delivery was late again this month")
	path := filepath.Join(b.TempDir(), fmt.Sprintf("in-%d.jsonl", n))
	file, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}

	w := bufio.NewWriterSize(file, 1<<20)
	var text bytes.Buffer
	for i := range n {
		text.Reset()
		for x := uint64(i) + 1; text.Len() < size-180; {
			x = x*6364136223846793005 + 1442695040888963407
			text.WriteString(words[x>>33%uint64(len(words))])
			text.WriteByte(' ')
		}

		fmt.Fprintf(w,
			`{"custom_id":"r-%d","method":"POST","url":"/v1/chat/completions","body":{"model":"sim","messages":[{"role":"user","content":"%d %s"}]}}`+
				"\n",
			i, i, text.Bytes())
	}

	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}

	file.Close()

	return path
}
