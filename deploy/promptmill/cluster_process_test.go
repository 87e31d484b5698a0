package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// With this variable, which names a configuration file, the test binary is a plain
// NATS server. It is here and not in TestMain, since a server has no command line that
// testscript could give it.
const natsNodeFile = "PROMPTMILL_TEST_NATS_CONFIG"

func init() {
	if file := os.Getenv(natsNodeFile); file != "" {
		if err := runNATSNode(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func runNATSNode(file string) error {
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		return err
	}

	s, err := server.NewServer(opts)
	if err != nil {
		return err
	}

	s.ConfigureLogger()
	go func() { // it ends with the test, however that ends
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()

	s.Start()
	s.WaitForShutdown()

	return nil
}

// natsNode is a NATS server in a process of its own.
type natsNode struct {
	clusterSeat
	program string // the server to run; empty: the server in the test binary
	cmd     *exec.Cmd
	env     []string
	said    *lockedBuffer // in all its lives
}

// startNATSNodes starts a server in each seat and waits until a connection with
// opts can make streams.
func startNATSNodes(
	t *testing.T, seats []clusterSeat, env []string, opts ...nats.Option,
) (nodes []*natsNode, l *busconn.Connection) {
	t.Helper()
	return startNATSProgram(t, "", seats, env, opts...)
}

// startNATSProgram is startNATSNodes with another server than the test binary's.
func startNATSProgram(
	t *testing.T, program string, seats []clusterSeat, env []string, opts ...nats.Option,
) (nodes []*natsNode, l *busconn.Connection) {
	t.Helper()

	var urls []string
	for _, seat := range seats {
		n := &natsNode{clusterSeat: seat, program: program, env: env, said: &lockedBuffer{}}
		n.start(t)
		t.Cleanup(func() {
			n.kill()
			if t.Failed() {
				t.Logf("output of node %s:\n%s", n.name, n.said)
			}
		})

		nodes, urls = append(nodes, n), append(urls, n.url())
	}

	poll(t, patience, "a stream with a copy on each node", func() bool {
		if l == nil {
			l, _ = busconn.Dial(strings.Join(urls, ","), zerolog.Nop(), opts...)
		}

		if l == nil {
			return false
		}

		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()

		_, err := l.JS.CreateStream(ctx, jetstream.StreamConfig{Name: "ready", Replicas: len(nodes)})

		return err == nil && l.JS.DeleteStream(ctx, "ready") == nil
	})

	t.Cleanup(l.Close)

	return nodes, l
}

func (n *natsNode) start(t *testing.T) {
	t.Helper()

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}

	n.cmd = exec.Command(self)
	n.cmd.Env = append(append(os.Environ(), natsNodeFile+"="+n.config), n.env...)
	if n.program != "" {
		n.cmd = exec.Command(n.program, "-c", n.config)
		n.cmd.Env = append(os.Environ(), n.env...)
		n.cmd.SysProcAttr = endWithTest()
	}

	n.cmd.Stdout, n.cmd.Stderr = n.said, n.said
	if _, err := n.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}

	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (n *natsNode) kill() { killHard(n.cmd) }

// startAs starts a promptmill process with more in its environment. A failed test
// logs its output.
func (c command) startAs(env []string, args ...string) (*exec.Cmd, *lockedBuffer) {
	c.t.Helper()
	path, err := exec.LookPath("promptmill")
	if err != nil {
		c.t.Fatal(err)
	}
	return c.launch(env, exec.Command(path, args...))
}

// launch starts a process in the command's folder.
func (c command) launch(env []string, cmd *exec.Cmd) (*exec.Cmd, *lockedBuffer) {
	c.t.Helper()

	cmd.Dir, cmd.Env = c.dir, append(c.environ(), env...)
	cmd.SysProcAttr = endWithTest()
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out

	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}

	c.t.Cleanup(func() {
		killHard(cmd)
		if c.t.Failed() {
			c.t.Logf("output of %s:\n%s", strings.Join(cmd.Args, " "), out)
		}
	})

	return cmd, out
}

// killHard kills a process as kill -9 does.
func killHard(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

// terminate ends a process with a signal and wants it to end well.
func terminate(t *testing.T, cmd *exec.Cmd, out *lockedBuffer) {
	t.Helper()
	cmd.Process.Signal(syscall.SIGTERM)
	if code := waitExit(t, cmd, out, patience); code != exit.CodeOK {
		t.Errorf("%s ends with code %d:\n%s", strings.Join(cmd.Args[1:], " "), code, out)
	}
}

// wholeStream waits until all copies of a stream are as they should be, and returns
// the name of the node that leads them.
func wholeStream(t *testing.T, js jetstream.JetStream, stream string) (leader string) {
	t.Helper()

	poll(t, patience, "all copies of "+stream, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()

		s, err := js.Stream(ctx, stream)
		if err != nil || s.CachedInfo().Cluster.Leader == "" {
			return false
		}

		leader = s.CachedInfo().Cluster.Leader
		for _, replica := range s.CachedInfo().Cluster.Replicas {
			if !replica.Current || replica.Offline {
				return false
			}
		}

		return true
	})

	return leader
}

// A run on a cluster of three server processes survives kill -9 of the node that leads
// its work, of the one that leads its results, of its worker and of its collector, and
// ends with exactly one line for each request.
func TestClusterProcessesKilled(t *testing.T) {
	t.Parallel()

	const requests = 5000
	nodes, l := startNATSNodes(t, clusterSeats(t, 3, ""), nil)
	var urls []string
	for _, n := range nodes {
		urls = append(urls, n.url())
	}

	bus := []string{"--nats", strings.Join(urls, ",")}
	c := newCommand(t)
	m := newModel(t, sim.Config{Slots: 256, TTFT: 200 * time.Millisecond, Spread: 0.2, Tokens: 20})
	in := c.input("in.jsonl", requests)
	if err := os.Mkdir(filepath.Join(c.dir, "out"), 0o755); err != nil {
		t.Fatal(err)
	}

	watching, stop := context.WithCancel(t.Context())
	defer stop()

	var answers, lines pulse
	go answers.follow(watching, func() int { return int(m.sim.Succeeded()) })
	go lines.follow(watching, func() int { // bytes in the journal
		info, err := os.Stat(filepath.Join(c.dir, "out", "r.part.zst"))
		if err != nil {
			return 0
		}
		return int(info.Size())
	})

	serve := func() (*exec.Cmd, *lockedBuffer) {
		return c.startAs(nil, append([]string{"serve", "--replicas", "3", "--dir", "out", "--flush", "200ms"},
			bus...)...)
	}

	work := func(name string) (*exec.Cmd, *lockedBuffer) {
		return c.startAs(nil, append([]string{"worker", "--name", name, "--url", m.url}, bus...)...)
	}

	serving, serveSaid := serve()
	poll(t, patience, "serve", func() bool { return strings.Contains(serveSaid.String(), "serving the runs on") })
	working, workSaid := work("w1")

	submit, said := c.startAs(nil, append([]string{
		"submit", in, "--replicas", "3", "--run", "r", "--model", "sim", "--progress", "none",
	}, bus...)...)
	if code := waitExit(t, submit, said, patience); code != exit.CodeOK {
		t.Fatalf("submit: exit code %d:\n%s", code, said)
	}

	// after waits for more answers and for lines, which prove that all parts work. Then
	// there are no more answers until the next thing happens, or a busy machine would be
	// through with the run before.
	after := func(more int) {
		t.Helper()
		goal, begin := m.sim.Succeeded()+int64(more), time.Now()
		poll(t, patience, "answers", func() bool { return m.sim.Succeeded() >= goal })
		m.sim.Hang(true)
		poll(t, patience, "lines in the journal", func() bool {
			return lines.silent(begin) < time.Since(begin)-10*time.Millisecond
		})
	}

	during := func(what string, happens func()) {
		t.Helper()

		m.sim.Hang(false)
		begin := time.Now()
		happens()
		t.Logf("%s: %s in all, no answers for %s at most, nothing written for %s at most",
			what, time.Since(begin).Round(time.Millisecond),
			answers.longest(begin).Round(time.Millisecond), lines.longest(begin).Round(time.Millisecond))

		if files.Exists(filepath.Join(c.dir, "out", "r.meta.json")) {
			t.Fatalf("the run was over before this was: %s", what)
		}
	}

	killLeader := func(stream string) func() {
		return func() {
			leader := wholeStream(t, l.JS, stream)
			for _, n := range nodes {
				if n.name == leader {
					n.kill()
					after(300)
					n.start(t) // and catches up while the run continues
					m.sim.Hang(false)
					after(300)
				}
			}

			wholeStream(t, l.JS, stream)
		}
	}

	during("nothing happens", func() { after(500) })
	during("the worker is killed, and another is started", func() {
		killHard(working)
		working, workSaid = work("w2")
		after(500)
	})

	during("the leader of the work stream is killed, and comes back", killLeader(proto.WorkStream("r")))
	during("the collector is killed, and started again", func() {
		killHard(serving)
		serving, serveSaid = serve()
		after(500)
	})

	during("the leader of the results stream is killed, and comes back", killLeader(proto.ResultsStream("r")))
	m.sim.Hang(false)
	begin := time.Now()
	poll(t, patience, "the end of the run", func() bool {
		return files.Exists(filepath.Join(c.dir, "out", "r.meta.json"))
	})

	t.Logf("the rest: %s, no answers for %s at most, nothing written for %s at most",
		time.Since(begin).Round(time.Millisecond),
		answers.longest(begin).Round(time.Millisecond), lines.longest(begin).Round(time.Millisecond))

	poll(t, patience, "serve to say so", func() bool {
		return strings.Contains(serveSaid.String(), "run r is completed: 5,000 answered, 0 failed")
	})

	if text, code := c.run("verify", in, filepath.Join("out", "r.jsonl.zst")); code != exit.CodeOK {
		t.Errorf("verify: exit code %d:\n%s", code, text)
	}

	twice := m.sim.Succeeded() - requests
	t.Logf("%d requests were answered more than once", twice)
	// A worker may die with requests in flight, and with answers that are not stored;
	// so may a node, with messages that it has not confirmed.
	if most := int64(3 * 2 * 64); twice > most {
		t.Errorf("%d requests were run again, more than the %d of three deaths", twice, most)
	}

	terminate(t, working, workSaid)
	terminate(t, serving, serveSaid)
}

// The users and permissions that nats-config prints are enough for each part to be its
// role, on one server and on a cluster, and no part tries more.
func TestNATSConfigIsEnough(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d servers", size), func(t *testing.T) {
			t.Parallel()
			natsConfigIsEnough(t, size)
		})
	}
}

func natsConfigIsEnough(t *testing.T, size int) {
	const requests, big = 1000, 300_000
	c := newCommand(t)
	text, code := c.run("nats-config")
	if code != exit.CodeOK {
		t.Fatalf("nats-config: exit code %d:\n%s", code, text)
	}

	users := filepath.Join(c.dir, "promptmill.conf")
	// The server takes small messages, so that a medium request goes by the object store.
	// The last setting in the file holds.
	if err := os.WriteFile(users, []byte(text+"max_payload: 262144\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	var env []string
	password := map[proto.Role]string{}
	for _, role := range append(proto.Roles(), "owner") {
		password[role] = "secret-of-" + string(role)
		env = append(env, "PROMPTMILL_"+strings.ToUpper(string(role))+"_PASSWORD="+password[role])
	}

	nodes, _ := startNATSNodes(t, clusterSeats(t, size, fmt.Sprintf("include %q\n", relative(t, users))), env,
		nats.UserInfo("owner", password["owner"]))
	var urls []string
	for _, n := range nodes {
		urls = append(urls, n.url())
	}

	everything := map[string]*lockedBuffer{}
	as := func(role proto.Role, args ...string) (*exec.Cmd, *lockedBuffer) {
		cmd, said := c.startAs([]string{"NATS_PASSWORD=" + password[role]},
			append(args, "--nats", strings.Join(urls, ","), "--nats-user", string(role))...)
		everything[fmt.Sprintf("%s (%s)", args[0], role)] = said
		return cmd, said
	}

	done := func(role proto.Role, args ...string) string {
		t.Helper()
		cmd, said := as(role, args...)
		if code := waitExit(t, cmd, said, patience); code != exit.CodeOK {
			t.Fatalf("%s as %s: exit code %d:\n%s", strings.Join(args, " "), role, code, said)
		}
		return said.String()
	}

	m := newModel(t, sim.Config{Slots: 256, TTFT: 50 * time.Millisecond, Tokens: 20})
	in := c.input("in.jsonl", requests-1)
	appendBigRequest(t, filepath.Join(c.dir, in), big)
	replicas := fmt.Sprint(size)

	if text, code := c.run("list", "--nats", urls[0]); code != exit.CodeUnreachable {
		t.Errorf("list without a user: exit code %d:\n%s", code, text)
	}

	serving, serveSaid := as(proto.RoleCollector, "serve", "--replicas", replicas, "--flush", "200ms")
	working, workSaid := as(proto.RoleWorker, "worker", "--url", m.url)
	poll(t, patience, "serve", func() bool { return strings.Contains(serveSaid.String(), "serving the runs on") })
	done(proto.RoleProducer, "submit", in, "--replicas", replicas, "--run", "r", "--model", "sim", "--progress", "none")
	poll(t, patience, "answers", func() bool { return m.sim.Succeeded() > 100 })
	done(proto.RoleProducer, "pause", "r")
	done(proto.RoleProducer, "resume", "r")
	done(proto.RoleProducer, "submit", in, "--replicas", replicas, "--run", "wait", "--model", "sim",
		"--progress", "none", "--wait")

	for _, run := range []string{"r", "wait"} {
		poll(t, patience, "the end of run "+run, func() bool {
			return files.Exists(filepath.Join(c.dir, run+".meta.json"))
		})
		if text, code := c.run("verify", in, run+".jsonl.zst"); code != exit.CodeOK {
			t.Errorf("verify: exit code %d:\n%s", code, text)
		}
	}

	poll(t, patience, "serve to say so", func() bool {
		return strings.Contains(serveSaid.String(), "run wait is completed")
	})

	for _, args := range [][]string{{"list"}, {"status"}, {"status", "r"}, {"workers"}} {
		done(proto.RoleReader, args...)
	}

	if n := strings.Count(done(proto.RoleReader, "tail", "r"), "\"custom_id\":"); n != requests {
		t.Errorf("tail as reader gives %d lines of %d", n, requests)
	}

	if n := strings.Count(done(proto.RoleReader, "tail", "r", "--as", "me"), "\"custom_id\":"); n != requests {
		t.Errorf("tail --as as reader gives %d lines of %d", n, requests)
	}

	done(proto.RoleCollector, "delete", "r")
	terminate(t, working, workSaid)
	terminate(t, serving, serveSaid)

	for _, n := range nodes {
		everything["node "+n.name] = n.said
	}

	for who, said := range everything {
		for line := range strings.Lines(said.String()) {
			if text := strings.ToLower(line); strings.Contains(text, "violation") || strings.Contains(text, "drop ") {
				t.Errorf("%s: %s", who, line)
			}
		}
	}
}

// relative is a path as include wants it: relative to the file that includes.
func relative(t *testing.T, path string) string {
	t.Helper()
	// All folders of a test lie side by side, and so do the configurations.
	return filepath.Join("..", filepath.Base(filepath.Dir(path)), filepath.Base(path))
}

// appendBigRequest appends a request with n bytes that do not compress.
func appendBigRequest(t *testing.T, path string, size int) {
	t.Helper()

	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}

	noise := make([]byte, size)
	rand.NewChaCha8([32]byte{2}).Read(noise)
	w := bufio.NewWriter(file)
	fmt.Fprintf(w, "{\"custom_id\":\"big\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}\n",
		base64.StdEncoding.EncodeToString(noise))
	if err := errors.Join(w.Flush(), file.Close()); err != nil {
		t.Fatal(err)
	}
}
