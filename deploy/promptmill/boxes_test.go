package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/sim"
)

// watched is a model server of a box in this process. It outlives the box's worker,
// and records its questions and their times.
type watched struct {
	*sim.Server
	url string

	mu    sync.Mutex
	asked []question
	now   int // questions at once
}

type question struct {
	text string
	at   time.Time
}

func newWatched(t *testing.T, cfg sim.Config) *watched {
	t.Helper()

	if cfg.Models == nil {
		cfg.Models = []string{"sim"}
	}

	w := &watched{Server: sim.New(cfg)}
	s := httptest.NewServer(w)
	t.Cleanup(s.Close)
	w.url = s.URL

	return w
}

var contentOf = regexp.MustCompile(`"content":"([^"]*)"`)

func (w *watched) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Server.ServeHTTP(rw, r)
		return
	}

	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}

	r.Body = io.NopCloser(bytes.NewReader(body))
	text := ""
	if found := contentOf.FindSubmatch(body); found != nil {
		text = string(found[1])
	}

	w.mu.Lock()
	w.asked = append(w.asked, question{text, time.Now()})
	w.now++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.now--
	}()

	w.Server.ServeHTTP(rw, r)
}

// questions returns the questions so far, in order.
func (w *watched) questions() []question {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[:len(w.asked):len(w.asked)]
}

func (w *watched) busy() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// ask writes a file of n requests, whose questions begin with a word, for the models
// by turns.
func (c command) ask(name, word string, n int, models ...string) string {
	c.t.Helper()

	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b,
			"{\"custom_id\":\"%s-%d\",\"model\":%q,\"messages\":[{\"role\":\"user\",\"content\":\"%s %d\"}]}\n",
			word, i, models[i%len(models)], word, i)
	}

	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(b.String()), 0o644); err != nil {
		c.t.Fatal(err)
	}

	return name
}

// Another box runs the requests of a box that died by kill -9, after the bus has waited for
// a sign of life. Nothing is lost, and nothing is twice in the output.
func TestBoxKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("takes proto.AckWait")
	}

	t.Parallel()

	const requests, slots = 800, 16
	c := newCommand(t)
	c.serve()
	answer := sim.Config{Slots: slots, TTFT: 100 * time.Millisecond, Tokens: 10}
	dead, alive := newWatched(t, answer), newWatched(t, answer)
	in := c.input("in.jsonl", requests)
	box, _ := c.start("worker", "--url", dead.url, "--name", "dead", "--concurrency", fmt.Sprint(slots))
	c.start("worker", "--url", alive.url, "--name", "alive", "--concurrency", fmt.Sprint(slots))
	c.workers(2)
	c.must("submit", in, "--model", "sim", "--run", "out")
	poll(t, pollTime, "answers of both", func() bool {
		return dead.Succeeded() > 100 && alive.Succeeded() > 100 && dead.busy() == slots
	})

	box.Process.Kill()
	died := time.Now()
	box.Wait()

	meta := c.ended("out", bus.AckWait+time.Minute)
	c.verified(in, "out")
	if n := meta.Manifest.Counts.Duplicates; n != 0 {
		t.Errorf("%d lines came twice", n)
	}

	here, again, last := map[string]bool{}, 0, time.Duration(0)
	for _, q := range alive.questions() {
		if here[q.text] {
			t.Errorf("the box that lives was asked %q twice", q.text)
		}
		here[q.text] = true
		last = max(last, q.at.Sub(died))
	}

	for _, q := range dead.questions() {
		if here[q.text] {
			again++
		}
	}

	t.Logf("the last request of the dead box began elsewhere %s after its death (AckWait is %s); %d were run again, %d were in flight",
		last.Round(time.Millisecond), bus.AckWait, again, slots)

	if last < 5*time.Second {
		t.Errorf("all was done %s after the death of a box with work in hand: the test shows nothing", last)
	}

	if last > bus.AckWait+10*time.Second {
		t.Errorf("it took %s until the work of the dead box was begun elsewhere", last)
	}

	// In flight are the requests at the server, and answers that were not stored.
	if again > 2*slots {
		t.Errorf("%d requests were run again, of %d in flight", again, slots)
	}
}

// A box that joins during a run gets its share at once.
func TestBoxAdded(t *testing.T) {
	t.Parallel()

	const requests, slots = 900, 32
	c := newCommand(t)
	c.serve()
	answer := sim.Config{Slots: slots, TTFT: 500 * time.Millisecond, Spread: 0.2, Tokens: 10}
	before, added := newWatched(t, answer), newWatched(t, answer)
	in := c.input("in.jsonl", requests)
	c.start("worker", "--url", before.url, "--name", "before", "--concurrency", fmt.Sprint(slots))
	c.must("submit", in, "--model", "sim", "--run", "out")
	poll(t, pollTime, "a busy box", func() bool { return before.busy() == slots })
	begin := time.Now()
	c.start("worker", "--url", added.url, "--name", "added", "--concurrency", fmt.Sprint(slots))
	poll(t, patience, "a busy box that was added", func() bool { return added.busy() == slots })
	t.Logf("all %d slots of the box were taken %s after the start of its process",
		slots, time.Since(begin).Round(time.Millisecond))
	c.ended("out", patience)
	c.verified(in, "out")
}

// Requests go to the boxes that serve their model. Requests for a model that no box
// serves wait, status reports it, and they run once a box does.
func TestTwoModels(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.serve()

	for _, model := range []string{"a", "b"} {
		c.start("worker", "--url", c.simOf(model), "--name", "box-"+model)
	}

	workers := c.workers(2)
	for i, model := range []string{"a", "b"} {
		if got := strings.Join(workers[i].Models, ","); got != model {
			t.Errorf("%s serves %q", workers[i].Name, got)
		}
	}

	in := c.ask("in.jsonl", "q", 100, "a", "b")
	c.must("submit", in, "--run", "out")
	c.ended("out", patience)
	c.verified(in, "out")

	answered := map[string]int{}
	for id, line := range c.lines("out.jsonl.zst") {
		model := "a"
		if id[len(id)-1]%2 == 1 { // "q-17"; the digits' codes are odd as they are
			model = "b"
		}

		if who := workerOf(t, line); who != "box-"+model {
			t.Fatalf("%s, for model %s, was answered by %s", id, model, who)
		}

		answered[model]++
	}

	if answered["a"] != 50 || answered["b"] != 50 {
		t.Errorf("answered: %v", answered)
	}

	if testing.Short() {
		return // it is said after status.ProblemAfter
	}

	in = c.ask("more.jsonl", "q", 30, "a", "b", "c")
	c.must("submit", in, "--run", "more")
	var one status.Run
	poll(t, status.ProblemAfter+pollTime, "a problem", func() bool {
		stdout, _, _ := c.output("status", "more", "--json")
		var all struct {
			Runs []status.Run `json:"runs"`
		}
		if json.Unmarshal([]byte(stdout), &all) == nil && len(all.Runs) == 1 {
			one = all.Runs[0]
		}

		return one.Problem != ""
	})

	if one.Problem != "no worker serves c; the workers serve a, b" || strings.Join(one.Missing, ",") != "c" ||
		strings.Join(one.Served, ",") != "a,b" {
		t.Errorf("problem %q, missing %q, served %q", one.Problem, one.Missing, one.Served)
	}

	text := c.must("status", "more")
	for _, want := range []string{
		"model      c: 10 requests (no worker serves it)", "problem    no worker serves c; the workers serve a, b",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}

	if text := c.must("status"); !strings.Contains(text, "! more: no worker serves c; the workers serve a, b") {
		t.Errorf("the problem is not in\n%s", text)
	}

	c.start("worker", "--url", c.simOf("c"), "--name", "box-c")
	c.ended("more", patience)
	c.verified(in, "more")

	if text := c.must("status", "more"); strings.Contains(text, "problem") {
		t.Errorf("there is a problem still:\n%s", text)
	}
}

// simOf starts a simulated model server as a process of its own, and returns its URL.
func (c command) simOf(model string) (url string) {
	c.t.Helper()

	_, out := c.start("sim", "--listen", "127.0.0.1:0", "--model", model, "--sim-ttft", "5ms", "--sim-tpot", "0s")
	poll(c.t, pollTime, "a model server", func() bool {
		_, after, found := strings.Cut(out.String(), "simulated model server on ")
		var whole bool
		url, _, whole = strings.Cut(after, ",")
		return found && whole
	})

	return url
}

// Runs of equal priority share a box; one of a higher priority goes first.
func TestSharesAndPriority(t *testing.T) {
	t.Parallel()

	const each, urgent, slots = 1000, 300, 32
	c := newCommand(t)
	c.serve()
	m := newWatched(t, sim.Config{Slots: slots, TTFT: 50 * time.Millisecond, Spread: 0.2, Tokens: 10})

	files := map[string]string{}
	for word, n := range map[string]int{"one": each, "two": each, "urgent": urgent} {
		files[word] = c.ask(word+".jsonl", word, n, "sim")
	}

	c.must("submit", files["one"], "--run", "one")
	c.must("submit", files["two"], "--run", "two")
	c.start("worker", "--url", m.url, "--concurrency", fmt.Sprint(slots))
	poll(t, patience, "half of both", func() bool { return len(m.questions()) >= each })
	c.must("submit", files["urgent"], "--run", "urgent", "--priority", "1")

	for word, in := range files {
		c.ended(word, patience)
		c.verified(in, word)
	}

	ones, first, last, all := 0, -1, -1, m.questions()
	for i, q := range all {
		switch word, _, _ := strings.Cut(q.text, " "); {
		case word == "urgent":
			last = i
			if first < 0 {
				first = i
			}
		case word == "one" && i < each:
			ones++
		}
	}

	share := float64(ones) / each
	others := last - first + 1 - urgent
	t.Logf("of the first %d requests, %.3f were of the first run; while %d urgent ones began, %d others did",
		each, share, urgent, others)
	if share < 0.4 || share > 0.6 {
		t.Errorf("the first run had a share of %.3f", share)
	}

	// Others are the requests that the box held when the urgent ones came, and those it took while
	// there were none to be had any more.
	if others > urgent/2 {
		t.Errorf("%d other requests began between %d urgent ones", others, urgent)
	}
}

// A server that dies by kill -9 resumes at its last position after a restart; workers
// come back by themselves, and the lines of the output stay.
func TestServeKilled(t *testing.T) {
	t.Parallel()

	const requests, slots = 3000, 32
	c := newCommand(t)
	address := fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)[0]) // the same again, for the workers
	m := newWatched(t, sim.Config{Slots: slots, TTFT: 40 * time.Millisecond, Tokens: 10})
	in := c.input("in.jsonl", requests)
	server, _ := c.serve("--listen", address)
	c.start("worker", "--url", m.url, "--concurrency", fmt.Sprint(slots))
	c.must("submit", in, "--model", "sim", "--run", "out")
	poll(t, patience, "lines", func() bool { return len(c.journal("out")) >= requests/4 })
	server.Process.Kill()
	server.Wait()
	died := time.Now()

	before := c.journal("out")
	if len(before) >= requests {
		t.Error("the run was done before its server died")
	}

	asked := len(m.questions())
	_, said := c.serve("--listen", address)
	poll(t, patience, "work after the death", func() bool { return len(m.questions()) > asked+slots })
	t.Logf("work went on %s after the death", time.Since(died).Round(time.Millisecond))
	c.ended("out", patience)
	c.verified(in, "out")
	c.keeps("out", before)
	again := len(m.questions()) - requests
	t.Logf("%d lines were there at the death; %d requests were run again", len(before), again)
	if again > 2*slots {
		t.Errorf("%d requests were run again, of %d in flight:\n%s", again, slots, said)
	}
}

// A reader whose output is not read stands still, and the run does not notice. It has
// everything when it continues.
func TestReaderStandsStill(t *testing.T) {
	t.Parallel()

	const requests = 3000
	c := newCommand(t)
	c.serve()
	m := newWatched(t, sim.Config{TTFT: 5 * time.Millisecond, Tokens: 100})
	in := c.input("in.jsonl", requests)
	c.must("submit", in, "--model", "sim", "--run", "out")
	reader, stderr := c.prepare("tail", "out"), &lockedBuffer{}
	stdout, err := reader.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}

	reader.Stderr = stderr
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}

	c.start("worker", "--url", m.url)
	c.ended("out", patience)
	c.verified(in, "out")

	text, err := io.ReadAll(stdout)
	if err != nil {
		t.Fatal(err)
	}

	if len(text) < 1<<20 {
		t.Errorf("%d bytes: they fit into the pipe, so the reader never stood still", len(text))
	}

	if code := waitExit(t, reader, stderr, pollTime); code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, stderr)
	}

	if got := byID(t, text); len(got) != requests {
		t.Errorf("%d requests of %d have a line", len(got), requests)
	}
}

// One worker process may serve several model servers of its box.
func TestTwoServersOfABox(t *testing.T) {
	t.Parallel()

	const requests = 600
	c := newCommand(t)
	c.serve()
	answer := sim.Config{Slots: 16, TTFT: 30 * time.Millisecond, Tokens: 10}
	servers := []*watched{newWatched(t, answer), newWatched(t, answer)}
	in := c.input("in.jsonl", requests)
	c.start("worker", "--url", servers[0].url, "--url", servers[1].url, "--name", "box", "--concurrency", "16")

	for i, w := range c.workers(2) {
		if w.Name != fmt.Sprintf("box-%d", i+1) || w.Server != servers[i].url {
			t.Errorf("worker %d is %s at %s", i+1, w.Name, w.Server)
		}
	}

	c.must("submit", in, "--model", "sim", "--run", "out")
	c.ended("out", patience)
	c.verified(in, "out")

	counts := map[string]int{}
	for _, line := range c.lines("out.jsonl.zst") {
		counts[workerOf(t, line)]++
	}

	t.Logf("answered by %v", counts)
	for i, s := range servers {
		if n := counts[fmt.Sprintf("box-%d", i+1)]; int64(n) != s.Succeeded() || n < requests/4 {
			t.Errorf("server %d answered %d requests, and has %d lines of %d", i+1, s.Succeeded(), n, requests)
		}
	}
}
