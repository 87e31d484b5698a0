package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/verify"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// A box that is cut off for longer than its shards wait for it, while its model
// answers on, comes back with results that the other box has produced meanwhile. They
// are dropped, and the box works on.
func TestBoxCutOff(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED with -short: it takes longer than shards wait for a box")
	}

	t.Parallel()

	s := newSite(t, 5000)
	s.during("nothing happens", func() { s.after(400) })
	s.during("a box is cut off for longer than the ack wait", func() {
		s.network.plug("box1", false)
		cut := time.Now()
		s.after(300) // the other box works on
		for wait := bus.AckWait + 5*time.Second; time.Since(cut) < wait; {
			time.Sleep(100 * time.Millisecond) // the test is about the time that passes
		}
		s.network.plug("box1", true)
	})

	s.during("the box is back", func() {
		begin, before := time.Now(), s.writtenBy("box1")
		// More than it may have had when it was cut off.
		poll(t, patience, "new results of the box", func() bool { return s.writtenBy("box1") >= before+150 })
		t.Logf("the box works again %s after it could", time.Since(begin).Round(time.Millisecond))
	})

	meta := s.finish()
	// The other box also runs this box's requests, and the box sends its results every 10 s
	// until they are confirmed.
	if most := int64(6 * 2 * 64); meta.Results.DuplicatesDropped > most {
		t.Errorf("%d lines were dropped, more than the %d that a box may have sent",
			meta.Results.DuplicatesDropped, most)
	}
}

// The head is cut off from all boxes for a while: all wait, and continue.
func TestHeadCutOff(t *testing.T) {
	t.Parallel()

	s := newSite(t, 2000)
	s.during("nothing happens", func() { s.after(300) })
	s.during("the head is cut off", func() {
		s.network.plug("head", false)
		cut := time.Now()
		for time.Since(cut) < 8*time.Second {
			time.Sleep(100 * time.Millisecond) // the test is about the time that passes
		}
		s.network.plug("head", true)
	})

	s.during("the head is back", func() { s.after(300) })
	s.finish()
}

// The head's process is killed under load, and started again: the boxes find it by
// their old join strings.
func TestServeKilledUnderLoad(t *testing.T) {
	t.Parallel()

	s := newSite(t, 2000)
	s.during("nothing happens", func() { s.after(300) })

	for range 2 {
		s.during("serve is killed and started again", func() {
			killHard(s.serving)
			s.serve()
			s.after(300)
		})
	}

	s.finish()
}

// network is some hosts, each a network namespace, on a switch, which is also one.
type network struct {
	t    *testing.T
	name string
}

// networks counts the networks of this process.
var networks atomic.Int64

const networkPrefix = "promptmill-test-"

// newNetwork connects hosts; the i-th has the address 10.77.0.i+1. It skips the test
// where that is not possible.
func newNetwork(t *testing.T, hosts ...string) *network {
	t.Helper()

	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root can make network namespaces")
	}

	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("SKIPPED: there is no command ip (of iproute2) here")
	}

	forgetOldNetworks()
	n := &network{t: t, name: fmt.Sprintf("%s%d-%d-", networkPrefix, os.Getpid(), networks.Add(1))}
	all := append([]string{"switch"}, hosts...)
	t.Cleanup(func() {
		for _, host := range all {
			exec.Command("ip", "netns", "del", n.name+host).Run() // the links go with it
		}
	})

	for _, host := range all {
		if out, err := exec.Command("ip", "netns", "add", n.name+host).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: network namespaces cannot be made here: %v: %s", err, out)
		}
		n.ip("-n", n.name+host, "link", "set", "lo", "up")
	}

	sw := n.name + "switch"
	if out, err := exec.Command("ip", "-n", sw, "link", "add", "br0", "type", "bridge").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: bridges cannot be made here: %v: %s", err, out)
	}

	n.ip("-n", sw, "link", "set", "br0", "up")
	for i, host := range hosts {
		n.ip("-n", sw, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", n.name+host)
		n.ip("-n", sw, "link", "set", host, "master", "br0", "up")
		n.ip("-n", n.name+host, "addr", "add", fmt.Sprintf("10.77.0.%d/24", i+1), "dev", "eth0")
		n.ip("-n", n.name+host, "link", "set", "eth0", "up")
	}

	return n
}

// forgetOldNetworks removes the networks that a killed test process has left.
func forgetOldNetworks() {
	out, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		return
	}

	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest, ours := strings.CutPrefix(name, networkPrefix)
		text, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(text)
		if ours && err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			exec.Command("ip", "netns", "del", name).Run()
		}
	}
}

func (n *network) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// plug plugs a host's cable into the switch, or pulls it.
func (n *network) plug(host string, in bool) {
	n.t.Helper()
	state := "down"
	if in {
		state = "up"
	}
	n.ip("-n", n.name+"switch", "link", "set", host, state)
}

// start starts a promptmill process on a host.
func (n *network) start(c command, host string, args ...string) (*exec.Cmd, *lockedBuffer) {
	n.t.Helper()
	path, err := exec.LookPath("promptmill")
	if err != nil {
		n.t.Fatal(err)
	}
	// ip becomes it
	return c.launch(nil, exec.Command("ip", append([]string{"netns", "exec", n.name + host, path}, args...)...))
}

// site is a head that serves a run and two boxes that work for it, each with a model
// of 64 slots and about a second an answer in its own namespace.
type site struct {
	t        *testing.T
	network  *network
	command  command
	in       string
	requests int
	output   output.Prefix
	serving  *exec.Cmd
	said     *lockedBuffer // by serve
	boxes    [2]*lockedBuffer
	lines    pulse

	counted int64 // size of the journal when its lines were counted
	done    int   // lines in it then
}

var joinString = regexp.MustCompile(`--join (pm1_\S+)`)

// newSite starts a run.
func newSite(t *testing.T, requests int) *site {
	t.Helper()

	s := &site{t: t, network: newNetwork(t, "head", "box1", "box2"), command: newCommand(t), requests: requests}
	s.in = s.command.input("in.jsonl", requests)
	s.output = output.Prefix(filepath.Join(s.command.dir, "r"))

	join := s.serve()
	for i := range s.boxes {
		name := fmt.Sprintf("box%d", i+1)
		_, s.boxes[i] = s.network.start(s.command, name, "worker", "--name", name, "--join", join,
			"--sim", "--sim-slots", "64", "--sim-ttft", "1s", "--sim-tpot", "0s", "--sim-spread", "0.2",
			"--sim-tokens", "20")
	}

	submit, said := s.network.start(s.command, "head", "submit", s.in, "--run", "r", "--model", "sim",
		"--progress", "none")
	if code := waitExit(t, submit, said, patience); code != exit.CodeOK {
		t.Fatalf("submit: exit code %d:\n%s", code, said)
	}

	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)

	go s.lines.follow(ctx, func() int { return int(s.journal()) })

	return s
}

// serve starts the head's process and returns its join string.
func (s *site) serve() (join string) {
	s.t.Helper()

	s.serving, s.said = s.network.start(s.command, "head", "serve", "--listen", "10.77.0.1:4333", "--flush", "200ms")
	poll(s.t, patience, "a join string", func() bool {
		if found := joinString.FindStringSubmatch(s.said.String()); found != nil {
			join = found[1]
		}
		return join != ""
	})

	return join
}

// journal is the size of the run's journal.
func (s *site) journal() int64 {
	info, err := os.Stat(s.output.Journal())
	if err != nil {
		return 0
	}
	return info.Size()
}

// written is the number of requests with a line in the journal.
func (s *site) written() int {
	s.t.Helper()

	if size := s.journal(); size != s.counted {
		p, err := verify.Run(s.t.Context(), verify.Config{
			Inputs:  []string{filepath.Join(s.command.dir, s.in)},
			Output:  s.output,
			Answers: true,
		})
		if err != nil {
			return s.done // it begins, or has ended
		}

		s.counted, s.done = size, p.Answered+p.Failed
	}

	return s.done
}

// writtenBy is the number of lines in the journal that are a box's.
func (s *site) writtenBy(box string) (n int) {
	s.t.Helper()

	file, err := jsonl.Open(s.output.Journal())
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()

	lines := jsonl.NewReader(file)
	for {
		line, err := lines.Next()
		if err != nil {
			return n // of the last frame, which may be on its way
		}

		if strings.Contains(string(line), `"worker":"`+box+`"`) {
			n++
		}
	}
}

// after waits for n more lines.
func (s *site) after(more int) {
	s.t.Helper()
	goal := s.written() + more
	poll(s.t, patience, "more results", func() bool { return s.written() >= goal })
}

// during returns how long nothing was written during an event.
func (s *site) during(what string, happens func()) {
	s.t.Helper()

	begin, before := time.Now(), s.written()
	happens()

	if files.Exists(s.output.Meta()) {
		s.t.Fatalf("the run was over before this was: %s", what)
	}

	s.t.Logf("%s: %s in all, %d results, none for %s at most", what, time.Since(begin).Round(time.Millisecond),
		s.written()-before, s.lines.longest(begin).Round(time.Millisecond))
}

// finish waits for the run's end and checks its files.
func (s *site) finish() *metadata.Run {
	t := s.t
	t.Helper()

	begin := time.Now()
	poll(t, patience, "the end of the run", func() bool {
		return files.Exists(s.output.Meta()) && !files.Exists(s.output.Journal())
	})

	t.Logf("the rest: %s, no results for %s at most",
		time.Since(begin).Round(time.Millisecond), s.lines.longest(begin).Round(time.Millisecond))

	if text, code := s.command.run("verify", s.in, filepath.Base(s.output.Results())); code != exit.CodeOK {
		t.Errorf("verify: exit code %d:\n%s", code, text)
	}

	meta, err := s.output.ReadMeta()
	if err != nil {
		t.Fatal(err)
	}

	r := meta.Results
	if r.SuccessCount != s.requests || r.FailureCount != 0 || meta.Status != proto.StateCompleted {
		t.Errorf("%s: %d answered, %d failed of %d", meta.Status, r.SuccessCount, r.FailureCount, s.requests)
	}

	t.Logf("%d lines dropped, %d rounds, %.0f s in all",
		r.DuplicatesDropped, meta.Manifest.Publish.Round, r.TotalTimeSeconds)

	return meta
}
