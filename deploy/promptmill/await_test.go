package main

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// freeAddress returns an address without a listener.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// joinOf is the join string of the bus that a command would start at an address.
func (c command) joinOf(address string) string {
	c.t.Helper()
	id, err := localbus.LoadIdentity(c.state)
	must(c.t, err)
	return id.Join(proto.RoleWorker, []string{address}).String()
}

// A worker that starts before its bus waits for it, and reports that once; when the bus is
// started again later, it continues, and nothing is denied to it.
func TestWorkerAwaitsItsBus(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	address := freeAddress(t)
	m := newModel(t, sim.Config{})
	_, said := c.start("worker", "--url", m.url, "--join", c.joinOf(address))
	poll(t, pollTime, "the worker to wait", func() bool {
		return strings.Contains(said.String(), "waiting for it (start promptmill serve")
	})

	serving, out := c.serve("--listen", address)
	in := c.input("in.jsonl", 50)
	c.must("submit", in, "--model", "sim", "--run", "first")
	c.ended("first", pollTime)
	terminate(t, serving, out)
	poll(t, pollTime, "the worker to miss it", func() bool {
		return strings.Contains(said.String(), "lost the bus")
	})

	c.serve("--listen", address)
	c.must("submit", in, "--model", "sim", "--run", "second")
	c.ended("second", pollTime)

	text := said.String()
	if n := strings.Count(text, "waiting for it"); n != 1 {
		t.Errorf("it says %d times that it waits:\n%s", n, text)
	}

	if n := strings.Count(text, "failed to reach the bus"); n > 1 ||
		strings.Contains(strings.ToLower(text), "violation") {
		t.Errorf("after a restart of the bus:\n%s", text)
	}
}

// A bus that is another, or that refuses the string, is not waited for.
func TestWorkerIsRefused(t *testing.T) {
	t.Parallel()

	c, other := newCommand(t), newCommand(t)
	address := freeAddress(t)
	other.serve("--listen", address)
	old := c.joinOf(address)
	revoked, err := proto.ParseJoin(other.joinOf(address))
	must(t, err)
	revoked.Token[0]++

	nobody := freeAddress(t)
	for _, tt := range []struct{ name, join, says string }{
		{"another certificate", old, "it has another certificate"},
		{"a revoked string", revoked.String(), "refuses this join string: it was revoked"},
		{"a revoked string, and an address without a listener", func() string {
			revoked.Addresses = []string{address, nobody}
			return revoked.String()
		}(), "it was revoked"},
	} {
		out, code := c.run("worker", "--sim", "--join", tt.join)
		if code != exit.CodeUnreachable || !strings.Contains(out, tt.says) ||
			!strings.Contains(out, "promptmill join prints there now") {
			t.Errorf("%s: exit code %d:\n%s", tt.name, code, out)
		}
	}

	// Our bus may still come to an address without a listener.
	j, err := proto.ParseJoin(old)
	must(t, err)
	j.Addresses = []string{nobody, address}
	working, said := c.start("worker", "--sim", "--join", j.String())
	poll(t, pollTime, "the worker to wait", func() bool { return strings.Contains(said.String(), "waiting for it") })
	terminate(t, working, said)
}

// A worker ends when another bus has taken the place of its own for a while.
func TestWorkerLeavesAnotherBus(t *testing.T) {
	if testing.Short() {
		t.Skip("takes otherFor")
	}

	t.Parallel()

	c, other := newCommand(t), newCommand(t)
	address := freeAddress(t)
	serving, out := c.serve("--listen", address)
	working, said := c.start("worker", "--sim", "--join", c.joinOf(address))
	local, localSaid := c.start("worker", "--sim")
	c.workers(2)
	terminate(t, serving, out)
	other.serve("--listen", address)

	code := waitExit(t, working, said, busconn.GiveUpAfter+time.Minute)
	if code != exit.CodeUnreachable || !strings.Contains(said.String(), "the server there has another certificate") ||
		!strings.Contains(said.String(), "hint: take the join string that promptmill join prints there now") {
		t.Errorf("exit code %d:\n%s", code, said)
	}

	// A worker of this machine was given no join string.
	code = waitExit(t, local, localSaid, busconn.GiveUpAfter+time.Minute)
	if code != exit.CodeUnreachable ||
		!strings.Contains(localSaid.String(), "error: the bus of this machine at "+address+" was replaced") ||
		!strings.Contains(localSaid.String(), "hint: start this command again") {
		t.Errorf("without a join string: exit code %d:\n%s", code, localSaid)
	}
}
