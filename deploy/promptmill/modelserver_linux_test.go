package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/worker/sim"
)

// The usual ports of model servers may be taken on the machine that runs the tests, so
// that these have one with a network of its own.

// A model server of each kind is found at its usual port, gets as much as it can run at
// once, is killed and started again, and nothing of this needs a flag.
func TestModelServerFoundAndKilled(t *testing.T) {
	t.Parallel()

	const requests, slots = 450, 16
	flavours := map[string]func(*testing.T){}
	for _, tt := range []struct {
		flavour  sim.Flavour
		port     int
		platform string
	}{
		{sim.VLLM, 8000, "vLLM"},
		{sim.SGLang, 30000, "SGLang"},
		{sim.LlamaCPP, 8080, "llama.cpp"},
		{sim.LlamaCPP, 9931, "llama.cpp"},
		{sim.Ollama, 11434, "Ollama"},
		{sim.TensorRT, 8000, "TensorRT-LLM"},
		{sim.LMStudio, 1234, "LM Studio"},
		{sim.Plain, 8000, "OpenAI-compatible"},
	} {
		flavours[fmt.Sprint(tt.flavour, " at ", tt.port)] = func(t *testing.T) {
			b := newModelBox(t, tt.flavour, tt.port, slots)
			in := b.input("in.jsonl", requests)
			server := b.serve()
			run, out := b.network.start(b.command, "box", "run", in, "-o", "out.jsonl.zst", "--progress", "json")

			// between two answers
			busy := func(s progress.Sample) bool { return s.State == "running" && s.InFlight >= slots-2 }
			awaitSample(t, out, "all slots in use", busy)
			killHard(server)
			awaitSample(t, out, "the death noticed", func(s progress.Sample) bool {
				return strings.HasPrefix(s.State, "waiting for the model server")
			})

			b.serve()
			awaitSample(t, out, "all slots in use again", busy)

			if code := waitExit(t, run, out, patience); code != exit.CodeOK {
				t.Fatalf("exit code %d:\n%s", code, out)
			}

			start := parseStart(t, out.String())
			found := start.Server
			if url := fmt.Sprint("http://localhost:", tt.port); found == nil || !slices.Equal(found.URLs, []string{url}) {
				t.Errorf("found the servers %+v, want %s", found, url)
			} else if got := cmp.Or(strings.TrimPrefix(found.Flavour, "simulated "), "OpenAI-compatible"); got != tt.platform {
				t.Errorf("the server is %s, want %s", got, tt.platform)
			}

			b.verified(in, "out")
			meta := b.meta("out")
			r := meta.Results
			if !strings.HasPrefix(meta.Platform, tt.platform) || r.SuccessCount != requests || r.FailureCount != 0 {
				t.Errorf("%q answered %d and failed %d of %d requests",
					meta.Platform, r.SuccessCount, r.FailureCount, requests)
			}

			// Dying with a server is not held against a request, and the only trouble was that.
			delete(r.AttemptFailures, "server_died")
			if r.Attempts != requests || len(r.AttemptFailures) > 0 {
				t.Errorf("%d attempts at %d requests, other failed ones: %v", r.Attempts, requests, r.AttemptFailures)
			}
		}
	}

	together(t, flavours)
}

// parseStart returns the object of the type start in the output of --progress json.
func parseStart(t *testing.T, text string) (start progress.Start) {
	t.Helper()

	for line := range strings.Lines(text) {
		if json.Unmarshal([]byte(line), &start) == nil && start.Type == "start" {
			return start
		}
	}

	t.Fatalf("no start in the output:\n%s", text)

	return start
}

// modelBox is a host with a simulated model server.
type modelBox struct {
	command
	network *network
	args    []string // of the server
}

func newModelBox(t *testing.T, flavour sim.Flavour, port, slots int) modelBox {
	t.Helper()
	return modelBox{newCommand(t), newNetwork(t, "box"), []string{
		"sim", "--sim-flavour", string(flavour), "--listen", fmt.Sprintf("127.0.0.1:%d", port), "--model", "sim",
		"--sim-slots", fmt.Sprint(slots), "--sim-ttft", "150ms", "--sim-tpot", "1ms",
	}}
}

// serve starts the server.
func (b modelBox) serve() *exec.Cmd {
	b.t.Helper()
	server, said := b.network.start(b.command, "box", b.args...)
	poll(b.t, pollTime, "the model server", func() bool {
		return strings.Contains(said.String(), "simulated model server on ")
	})
	return server
}

// Without a model server, the message has the addresses that were tried and a hint.
func TestNoModelServer(t *testing.T) {
	t.Parallel()

	n, c := newNetwork(t, "box"), newCommand(t)
	in := c.input("in.jsonl", 3)
	const hint = `start one, name it with --url, have it started with --exec "vllm serve MODEL", or try --sim`

	run, out := n.start(c, "box", "run", in)
	if code := waitExit(t, run, out, patience); code != exit.CodeUnreachable {
		t.Errorf("exit code %d", code)
	}

	for _, want := range []string{
		"error: no model server found: tried http://localhost:8000, http://localhost:30000, http://localhost:8080, http://localhost:9931, http://localhost:11434, http://localhost:1234\n",
		"hint: " + hint,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("missing output %q:\n%s", want, out)
		}
	}

	// The message names a listener at such a port that is not a model server. A worker waits
	// for one, and takes it when it comes.
	_, bus := n.start(c, "box", "serve", "--listen", "127.0.0.1:0", "--metrics", ":8080")
	poll(t, pollTime, "the bus", func() bool { return strings.Contains(bus.String(), "serving ") })
	_, said := n.start(c, "box", "worker", "--name", "box")
	poll(t, pollTime, "the wait for a model server", func() bool {
		return strings.Contains(said.String(), "waiting for one to come (or "+hint+")")
	})

	if want := "list models of http://localhost:8080: status 404 Not Found, http://localhost:9931, http://localhost:11434, http://localhost:1234;"; !strings.Contains(said.String(),
		want) {
		t.Errorf("missing output %q:\n%s", want, said)
	}

	n.start(c, "box", "sim", "--sim-flavour", "ollama", "--listen", "127.0.0.1:11434", "--model", "sim")
	poll(t, pollTime, "the model server", func() bool {
		return strings.Contains(said.String(), "model server http://localhost:11434")
	})
}

// A worker whose join string is revoked while it waits for a model server ends, and says so.
func TestRevokedWithoutModelServer(t *testing.T) {
	t.Parallel()

	n, c := newNetwork(t, "box"), newCommand(t)
	_, bus := n.start(c, "box", "serve", "--listen", "127.0.0.1:0")
	poll(t, pollTime, "the bus", func() bool { return strings.Contains(bus.String(), "serving ") })

	creating, out := n.start(c, "box", "join", "create", "box7")
	if code := waitExit(t, creating, out, patience); code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	_, after, _ := strings.Cut(out.String(), "pm1_")
	join, _, _ := strings.Cut(after, "\n")
	working, said := n.start(c, "box", "worker", "--join", "pm1_"+join)
	poll(t, pollTime, "the wait for a model server", func() bool {
		return strings.Contains(said.String(), "waiting for one to come")
	})

	c.must("join", "revoke", "box7")
	if code := waitExit(t, working, said, patience); code != exit.CodeUnreachable ||
		!strings.Contains(said.String(), "refuses the join string box7: it was revoked") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
}

// Two model servers on one box: run takes one and reports it.
func TestTwoModelServersFound(t *testing.T) {
	t.Parallel()

	b := newModelBox(t, sim.Ollama, 11434, 16)
	b.serve()
	b.args = []string{"sim"} // as it is by default
	b.serve()

	run, out := b.network.start(b.command, "box", "run", b.input("in.jsonl", 3), "--model", "sim")
	if code := waitExit(t, run, out, patience); code != exit.CodeOK ||
		!strings.Contains(out.String(), "found 2 model servers, using http://localhost:8000; --url names another") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}
