package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/sim"
)

// A process of a race build waits for a second at its end, unless its options say not to.
// There are hundreds in these tests. testscript passes the variable on.
func init() {
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
}

// pollTime bounds waits for events that happen at once.
const pollTime = 30 * time.Second

// prepare makes a process that is not started yet.
func (c command) prepare(args ...string) *exec.Cmd {
	c.t.Helper()

	path, err := exec.LookPath("promptmill")
	if err != nil {
		c.t.Fatal(err)
	}

	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = c.dir, append(c.environ(), c.env...)
	cmd.SysProcAttr = endWithTest()
	c.t.Cleanup(func() {
		if cmd.Process != nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})

	return cmd
}

// output runs the process to its end, with its two outputs apart.
func (c command) output(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()

	cmd, product, said := c.prepare(args...), &lockedBuffer{}, &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = product, said
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}

	code = waitExit(c.t, cmd, said, patience)

	return product.String(), said.String(), code
}

// must runs the process to its end, which has to be good, and returns its product.
func (c command) must(args ...string) string {
	c.t.Helper()
	stdout, stderr, code := c.output(args...)
	if code != exit.CodeOK {
		c.t.Fatalf("promptmill %s: exit code %d:\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// serve starts a bus with a collector of all runs, and waits until others can use it.
func (c command) serve(args ...string) (*exec.Cmd, *lockedBuffer) {
	c.t.Helper()

	for _, usual := range [][2]string{
		{"--listen", "127.0.0.1:0"}, {"--advertise", "127.0.0.1"}, {"--flush", "200ms"},
	} {
		if !slices.Contains(args, usual[0]) {
			args = append(args, usual[0], usual[1])
		}
	}

	cmd, out := c.start(append([]string{"serve"}, args...)...)
	poll(c.t, pollTime, "the bus", func() bool { return strings.Contains(out.String(), "serving ") })

	return cmd, out
}

// ended waits until the files of a run are written. -o or serve has put
// them into the working directory.
func (c command) ended(run string, within time.Duration) *metadata.Run {
	c.t.Helper()
	out := output.Prefix(filepath.Join(c.dir, run))
	poll(c.t, within, "the end of run "+run, func() bool {
		return files.Exists(out.Meta()) && !files.Exists(out.Journal())
	})
	return c.meta(run)
}

// meta is the metadata of a run whose files are written.
func (c command) meta(run string) *metadata.Run {
	c.t.Helper()
	meta, err := output.Prefix(filepath.Join(c.dir, run)).ReadMeta()
	if err != nil {
		c.t.Fatal(err)
	}
	return meta
}

// verified fails the test unless the output of a run holds each request exactly once.
func (c command) verified(in, run string) {
	c.t.Helper()
	c.must("verify", in, run+output.ResultsSuffix)
}

// lines are the lines of a zstd file of ours, by their custom_id.
func (c command) lines(path string) map[string][]byte {
	c.t.Helper()

	data, err := os.ReadFile(filepath.Join(c.dir, path))
	if err != nil {
		c.t.Fatal(err)
	}

	dec, err := zstd.NewReader(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer dec.Close()

	text, err := dec.DecodeAll(data, nil)
	if err != nil && !strings.HasSuffix(path, ".part.zst") { // its last frame may be on its way
		c.t.Fatalf("%s: %v", path, err)
	}

	return byID(c.t, text)
}

// byID are JSONL lines by their custom_id. None may be there twice.
func byID(t *testing.T, text []byte) map[string][]byte {
	t.Helper()

	lines := map[string][]byte{}
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // the rest of it was not written
		}

		var l struct {
			ID string `json:"custom_id"`
		}
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}

		if lines[l.ID] != nil {
			t.Fatalf("%s has two lines", l.ID)
		}

		lines[l.ID] = line
	}

	return lines
}

// workerOf returns the worker that answered a line.
func workerOf(t *testing.T, line []byte) string {
	t.Helper()

	var l struct {
		Promptmill struct {
			Worker string `json:"worker"`
		} `json:"promptmill"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		t.Fatal(err)
	}

	return l.Promptmill.Worker
}

// manifest returns the manifest of a run on the bus.
func (c command) manifest(run string) (m proto.Manifest, ok bool) {
	c.t.Helper()

	stdout, _, code := c.output("list", "--json")
	if code != exit.CodeOK {
		return m, false
	}

	var all []proto.Manifest
	if err := json.Unmarshal([]byte(stdout), &all); err != nil {
		c.t.Fatalf("%v: %s", err, stdout)
	}

	for _, m := range all {
		if m.Run == run {
			return m, true
		}
	}

	return m, false
}

// workers waits until that many workers are known to the bus and ready.
func (c command) workers(n int) []proto.WorkerInfo {
	c.t.Helper()

	var all []proto.WorkerInfo
	poll(c.t, pollTime, fmt.Sprintf("%d workers", n), func() bool {
		stdout, _, code := c.output("workers", "--json")
		all = nil
		if code != exit.CodeOK || json.Unmarshal([]byte(stdout), &all) != nil || len(all) != n {
			return false
		}

		for _, w := range all {
			if !w.Ready {
				return false
			}
		}

		return true
	})

	return all
}

// The output of --json is one JSON value with the fields that the documentation of the
// types names, and nothing else is on standard output.
func TestJSON(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.serve()
	in := c.input("in.jsonl", 3)
	run := []string{"schema", "run", "state", "created_at", "policy", "input", "settings", "publish", "counts"}
	runFields := append(run[:len(run):len(run)], "collector", "missing_models", "served_models", "problem",
		"input_name", "progress", "age_s")
	workers := []string{
		"name", "host", "version", "server", "ready", "models", "concurrency", "in_flight", "done",
		"requests_per_second", "since", "gpu", "heard_at", "heard_ago_s",
	}

	// Nothing there is an empty list, not null.
	for _, name := range []string{"list", "workers"} {
		if got := c.must(name, "--json"); strings.TrimSpace(got) != "[]" {
			t.Errorf("%s of nothing: %s", name, got)
		}
	}

	all := object(t, c.must("status", "--json"))
	if string(all["runs"]) != "[]" || string(all["workers"]) != "[]" {
		t.Errorf("status of nothing: %s", all)
	}

	has(t, "submit", c.must("submit", in, "--model", "sim", "--run", "one", "--json"), run)
	has(t, "pause", c.must("pause", "one", "--json"), run)
	m := newModel(t, sim.Config{Tokens: 5})
	c.start("worker", "--url", m.url, "--name", "box")
	c.workers(1)
	has(t, "workers", first(t, c.must("workers", "--json")), workers)
	has(t, "list", first(t, c.must("list", "--json")), runFields)
	one := object(t, c.must("status", "one", "--json"))
	has(t, "status: run", first(t, string(one["runs"])), runFields)
	has(t, "status: worker", first(t, string(one["workers"])), workers)

	var st status.Run
	if err := json.Unmarshal([]byte(first(t, string(one["runs"]))), &st); err != nil {
		t.Fatal(err)
	}

	if st.Run != "one" || st.State != proto.StatePaused || st.Input.Requests != 3 || st.Collector == nil ||
		time.Since(st.Collector.RenewedAt) > time.Minute || st.AgeS <= 0 ||
		st.Problem != "" || st.InputName != "in.jsonl" || st.Progress.Total != 3 || st.Progress.Done != 0 ||
		st.Progress.RequestsPerS != nil || st.Progress.RemainingS != nil || st.Progress.ElapsedS <= 0 {
		t.Errorf("status: %+v", st)
	}

	has(t, "resume", c.must("resume", "one", "--json"), run)
	c.ended("one", pollTime)
	c.must("submit", in, "--model", "other", "--run", "two")
	has(t, "cancel", c.must("cancel", "two", "--json"), run)

	if m, ok := c.manifest("two"); !ok || m.State != proto.StateCancelled || m.Failures[proto.CodeCancelled] != 3 {
		t.Errorf("after cancel, which waits, the run is %+v", m)
	}

	c.ended("two", pollTime)

	has(t, "retry", c.must("retry", "two", "--json"), append(run[:len(run):len(run)], "retries"))

	got := object(t, c.must("delete", "two", "--force", "--json"))
	if string(got["run"]) != `"two"` || string(got["deleted"]) != "true" || len(got) != 2 {
		t.Errorf("delete: %s", got)
	}
}

func object(t *testing.T, text string) (fields map[string]json.RawMessage) {
	t.Helper()

	d := json.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&fields); err != nil {
		t.Fatalf("%v: %s", err, text)
	}

	if d.More() {
		t.Fatalf("more than one value: %s", text)
	}

	return fields
}

// first is the only element of a list.
func first(t *testing.T, text string) string {
	t.Helper()
	var list []json.RawMessage
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 {
		t.Fatalf("want a list of one (%v): %s", err, text)
	}
	return string(list[0])
}

// has fails the test unless an object has these fields. It may have more: a program that reads it
// ignores unknown fields.
func has(t *testing.T, what, text string, want []string) {
	t.Helper()
	got := object(t, text)
	for _, name := range want {
		if got[name] == nil {
			t.Errorf("%s: no field %q: %s", what, name, text)
		}
	}
}

// A run is collected by hand, in several steps, on a NATS server without a serve:
// lines that were there at a kill -9 stay.
func TestCollectByHand(t *testing.T) {
	t.Parallel()

	const requests = 3000
	c := newCommand(t)
	_, url := startNATS(t)
	m := newModel(t, sim.Config{Slots: 64, TTFT: 40 * time.Millisecond, Tokens: 10})
	in := c.input("in.jsonl", requests)
	_, stderr, code := c.output("submit", in, "--model", "sim", "--run", "out", "--nats", url)
	if code != exit.CodeOK || !strings.Contains(stderr, "no process collects it yet") {
		t.Fatalf("exit code %d:\n%s", code, stderr)
	}

	c.start("worker", "--url", m.url, "--nats", url)
	collect := []string{
		"collect", "out", "-o", "out.jsonl.zst", "--flush", "100ms", "--nats", url, "--progress", "none",
	}

	cmd, _ := c.start(collect...)
	poll(t, pollTime, "answers", func() bool { return m.sim.Succeeded() > 300 })
	poll(t, pollTime, "lines", func() bool { return len(c.journal("out")) > 100 })
	cmd.Process.Kill()
	cmd.Wait()
	before := c.journal("out")

	// An interrupted command prints the way to resume.
	cmd, out := c.start(collect...)
	poll(t, pollTime, "more lines", func() bool { return len(c.journal("out")) > len(before) })
	cmd.Process.Signal(syscall.SIGINT)
	if code := waitExit(t, cmd, out, pollTime); code != exit.CodeInterrupted ||
		!strings.Contains(out.String(), "promptmill collect out -o out.jsonl.zst") {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	if len(c.journal("out")) >= requests {
		t.Error("all was collected before the interrupt: the test is too slow")
	}

	if text, code := c.run(collect...); code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, text)
	}

	c.verified(in, "out")
	c.keeps("out", before)

	if again := m.sim.Succeeded() - requests; again != 0 {
		t.Errorf("%d requests were run again, though no worker died", again)
	}

	// The same command again reports that all is done, and changes nothing.
	if text, code := c.run(collect...); code != exit.CodeOK || !strings.Contains(text, "done: 3,000 answered") {
		t.Errorf("exit code %d:\n%s", code, text)
	}
}

// journal returns the lines in the journal of a run in progress.
func (c command) journal(run string) map[string][]byte {
	c.t.Helper()
	path := run + ".part.zst"
	if !files.Exists(filepath.Join(c.dir, path)) {
		return nil
	}
	return c.lines(path)
}

// keeps fails the test unless the output of a run has these lines as they were.
func (c command) keeps(run string, before map[string][]byte) {
	c.t.Helper()
	after := c.lines(run + output.ResultsSuffix)
	for id, line := range before {
		if !bytes.Equal(after[id], line) {
			c.t.Fatalf("the line of %s was\n%sand is\n%s", id, line, after[id])
		}
	}
}

// run with --listen needs no model server of its own: it waits for boxes.
func TestRunWithoutModelServer(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	if found, _ := modelserver.Find(t.Context(), ""); len(found) > 0 {
		t.Skip("SKIPPED: there is a model server at " + found[0].URL())
	}

	in := c.input("in.jsonl", 50)
	cmd, out := c.start("run", in, "-o", "out.jsonl.zst", "--model", "sim", "--listen", "127.0.0.1:0",
		"--advertise", "127.0.0.1")
	join := joinOf(t, out)
	if text := out.String(); !strings.Contains(text, ": 50 requests from in.jsonl\n") ||
		!strings.Contains(text, "\n  server    none here, waiting for workers\n") {
		t.Errorf("missing output:\n%s", out)
	}

	elsewhere := newCommand(t) // a box of its own: another state folder
	m := newModel(t, sim.Config{Tokens: 5})
	elsewhere.start("worker", "--url", m.url, "--name", "box", "--join", join)

	if code := waitExit(t, cmd, out, patience); code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	c.verified(in, "out")
	for id, line := range c.lines("out.jsonl.zst") {
		if who := workerOf(t, line); who != "box" {
			t.Fatalf("%s was answered by %q", id, who)
		}
	}

	// On one box alone, a server that is not there is an error at once.
	if text, code := c.run("run", in, "-o", "alone.jsonl.zst"); code != exit.CodeUnreachable {
		t.Errorf("exit code %d:\n%s", code, text)
	}
}

// A named reader continues where it stopped, without repeats.
func TestTailGoesOn(t *testing.T) {
	t.Parallel()

	const requests = 2000
	c := newCommand(t)
	c.serve()
	m := newModel(t, sim.Config{Slots: 32, TTFT: 20 * time.Millisecond, Tokens: 10})
	in := c.input("in.jsonl", requests)
	c.must("submit", in, "--model", "sim", "--run", "out")
	reader, stdout, stderr := c.prepare("tail", "out", "--as", "me"), &lockedBuffer{}, &lockedBuffer{}
	reader.Stdout, reader.Stderr = stdout, stderr
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}

	c.start("worker", "--url", m.url)
	poll(t, pollTime, "lines", func() bool { return strings.Count(stdout.String(), "\n") > 100 })
	reader.Process.Signal(syscall.SIGINT)

	if code := waitExit(t, reader, stderr, pollTime); code != exit.CodeInterrupted {
		t.Fatalf("exit code %d:\n%s", code, stderr)
	}

	begin := stdout.String()
	if n := strings.Count(begin, "\n"); n >= requests {
		t.Error("all was read before the interrupt: the test is too slow")
	}

	rest := c.must("tail", "out", "--as", "me")
	if got := byID(t, []byte(begin+rest)); len(got) != requests {
		t.Errorf("%d requests of %d have a line", len(got), requests)
	}

	c.verified(in, "out")
}

// --new leaves out the results from before its start.
func TestTailNew(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	s, url := startNATS(t)
	a, b := newWatched(t, sim.Config{
		Models: []string{"a"},
		Tokens: 5,
	}), newWatched(t, sim.Config{Models: []string{"b"}, Tokens: 5})

	in := c.ask("in.jsonl", "q", 100, "a", "b")
	c.start("submit", in, "--run", "out", "--wait", "-o", "out.jsonl.zst", "--flush", "100ms", "--nats", url)
	c.start("worker", "--url", a.url, "--nats", url, "--name", "a")
	poll(t, pollTime, "half of the lines", func() bool { return len(c.journal("out")) == 50 })

	reader, stdout, stderr := c.prepare("tail", "out", "--new", "--nats", url), &lockedBuffer{}, &lockedBuffer{}
	reader.Stdout, reader.Stderr = stdout, stderr
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}

	// It has found its place once it has asked for results that are not there.
	poll(t, pollTime, "the reader", func() bool { return asked(t, s, busconn.ReaderName) > 20 })
	c.start("worker", "--url", b.url, "--nats", url, "--name", "b")

	if code := waitExit(t, reader, stderr, patience); code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, stderr)
	}

	got := byID(t, []byte(stdout.String()))
	if len(got) != 50 {
		t.Errorf("%d lines, want the 50 that came", len(got))
	}

	for id, line := range got {
		if who := workerOf(t, line); who != "b" {
			t.Fatalf("%s was answered by %s, before", id, who)
		}
	}

	c.ended("out", pollTime)
	c.verified(in, "out")
}

// A signal ends commands that run until stopped; others have exit code 130,
// and print the way to resume.
func TestSignals(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	server, said := c.serve()

	in := c.input("in.jsonl", 10)
	for _, test := range []struct {
		args []string
		up   string // is printed once it runs
		code int
		want string
	}{
		{[]string{"submit", in, "--model", "sim", "--run", "out", "--wait"}, "check its progress: ",
			exit.CodeInterrupted,
			"promptmill status out"},
		{[]string{"status", "out", "--watch"}, "in_progress", exit.CodeOK, ""},
		{[]string{"worker", "--url", "http://127.0.0.1:9"}, "worker ", exit.CodeOK,
			"stopping: finishing the requests in flight"},
	} {
		cmd, out := c.start(test.args...)
		poll(t, pollTime, test.args[0], func() bool { return strings.Contains(out.String(), test.up) })
		cmd.Process.Signal(syscall.SIGINT)
		if code := waitExit(t, cmd, out, pollTime); code != test.code || !strings.Contains(out.String(), test.want) {
			t.Errorf("%s: exit code %d:\n%s", test.args[0], code, out)
		}
	}

	if m, ok := c.manifest("out"); !ok || m.State != proto.StateInProgress {
		t.Errorf("the run ended with the one that waited for it: %s", m.State)
	}

	server.Process.Signal(syscall.SIGTERM)
	if code := waitExit(t, server, said, pollTime); code != exit.CodeOK ||
		!strings.Contains(said.String(), "stopping: ") {
		t.Errorf("serve: exit code %d:\n%s", code, said)
	}

	if text, code := c.run("list"); code != exit.CodeUnreachable {
		t.Errorf("list: exit code %d:\n%s", code, text)
	}
}

// startNATS starts a NATS server with JetStream, as users have one, and returns
// it with its URL.
func startNATS(t *testing.T) (*server.Server, string) {
	t.Helper()

	s := startNATSWith(t, &server.Options{
		Host:       "127.0.0.1",
		Port:       server.RANDOM_PORT,
		JetStream:  true,
		StoreDir:   t.TempDir(),
		MaxPayload: 8 << 20,
	})

	return s, s.ClientURL()
}

// asked returns how many messages the server has had from connections of that name.
func asked(t *testing.T, s *server.Server, name string) (n int64) {
	t.Helper()

	list, err := s.Connz(&server.ConnzOptions{})
	if err != nil {
		t.Fatal(err)
	}

	for _, conn := range list.Conns {
		if conn.Name == name {
			n += conn.InMsgs
		}
	}

	return n
}
