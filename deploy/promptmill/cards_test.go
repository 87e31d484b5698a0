package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// fakeCards has a folder with an nvidia-smi of some cards of 100 W, and returns the environment that finds it.
func fakeCards(t *testing.T, cards int) (env []string) {
	t.Helper()

	script := `#!/bin/sh
for a; do case $a in --loop=*) loop=1;; --query-gpu=driver*) driver="550, ";; esac; done
while :; do
` + fmt.Sprintf("for i in $(seq 0 %d); do echo \"${driver}$i, GPU-$i, Card, 1000, 10, 100, 50, 40, %d\"; done\n",
		cards-1, cards) + `	[ -n "$loop" ] || exit 0
	sleep 0.2
done
`
	tools := t.TempDir()
	must(t, os.WriteFile(filepath.Join(tools, "nvidia-smi"), []byte(script), 0o755))

	return []string{"PATH=" + tools + ":" + os.Getenv("PATH"), "CUDA_VISIBLE_DEVICES="}
}

// A worker starts a server on each card of its host. One that does not start, and one that dies, leave the others
// at work; each worker has the energy of its own card; and nothing is left at the end, however that comes.
func TestWorkerOfManyCards(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as workers need to be heard some times")
	}

	t.Parallel()

	const cards, broken, requests, slots = 4, 2, 1200, 8
	c := newCommand(t)
	c.serve()
	env := fakeCards(t, cards)
	serve := fmt.Sprintf(`if [ "$CUDA_VISIBLE_DEVICES" = %d ]; then echo no memory; exit 3; fi; exec promptmill sim `+
		`--listen 127.0.0.1:{port} --model sim --sim-slots %d --sim-ttft 100ms --sim-tpot 0s`, broken, slots)
	begin := time.Now()
	box, out := c.startAs(env, "worker", "--name", "box", "--exec", serve, "--gpus", "all", "--verbose")

	servers := map[int]string{} // URLs by the cards
	poll(t, patience, "a worker of each card", func() bool {
		for _, w := range c.announced() {
			isBroken := strings.Contains(w.Problem, "does not start: exit status 3")
			if len(w.GPU) == 1 && w.Ready == (w.GPU[0].Index != broken) && w.Ready != isBroken {
				servers[w.GPU[0].Index] = w.Server
			}
		}
		return len(servers) == cards
	})

	in := c.input("in.jsonl", requests)
	c.must("submit", in, "--model", "sim", "--run", "out")
	poll(t, patience, "answers", func() bool { return len(c.journal("out")) > requests/10 })
	victim := regexp.MustCompile(`pid=(\d+) server=` + servers[0] + `\b`).FindStringSubmatch(out.String())
	pid, err := strconv.Atoi(victim[1])
	must(t, err)
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	meta := c.ended("out", patience)
	most := 1.15 * 100 * time.Since(begin).Seconds() // joules of a card since its worker began
	c.verified(in, "out")

	if r := meta.Results; r.FailureCount != 0 || r.EnergyJoules == nil {
		t.Errorf("%d failures, and an energy of %v J", r.FailureCount, deref(r.EnergyJoules))
	}

	for _, w := range meta.Workers {
		if len(w.GPUs) != 1 || w.GPUs[0].Index == broken || w.EnergyJoules == nil || *w.EnergyJoules > most {
			t.Errorf("worker %s has %v J, of %.0f at most, of its cards %+v", w.Name, deref(w.EnergyJoules), most, w.GPUs)
		}
	}

	poll(t, patience, "the server that died, at its URL again", func() bool {
		all := c.announced()
		ready := 0
		for _, w := range all {
			if w.Ready && len(w.GPU) == 1 && servers[w.GPU[0].Index] == w.Server {
				ready++
			}
		}
		return ready == cards-1 && len(serverPIDs(t, out)) > cards
	})

	// Another worker of the host, of the same name, takes other ports, and is killed.
	other, _ := c.startAs(env, "worker", "--name", "box", "--exec", serve, "--gpus", "0,1")
	var urls []string
	poll(t, patience, "another worker", func() bool {
		urls = nil
		for _, w := range c.announced() {
			if w.Ready {
				urls = append(urls, w.Server)
			}
		}
		return len(urls) == cards-1+2
	})
	if unique(urls) != len(urls) {
		t.Errorf("two servers have one URL: %q", urls)
	}
	killHard(other)

	must(t, box.Process.Signal(os.Interrupt))
	if code := waitExit(t, box, out, patience); code != exit.CodeOK {
		t.Errorf("exit code %d", code)
	}

	for _, url := range urls {
		poll(t, patience, "the end of "+url, func() bool {
			conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
	}
}

// announced returns the workers that the bus knows.
func (c command) announced() (all []proto.WorkerInfo) {
	stdout, _, code := c.output("workers", "--json")
	if code == exit.CodeOK {
		must(c.t, json.Unmarshal([]byte(stdout), &all))
	}
	return all
}

// unique counts the different texts.
func unique(texts []string) int {
	seen := map[string]bool{}
	for _, text := range texts {
		seen[text] = true
	}
	return len(seen)
}

// A command that fails on all cards ends the worker with its words.
func TestWorkerWhoseServersAllFail(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.serve()
	box, out := c.startAs(fakeCards(t, 3), "worker", "--exec", "echo no memory on {gpu} >&2; exit 3; : {port}",
		"--gpus", "all")
	if code := waitExit(t, box, out, time.Minute); code != exit.CodeUnreachable {
		t.Errorf("exit code %d", code)
	}

	for _, part := range []string{"all 3 model servers have given up", "exit status 3", "no memory on "} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%q is not said:\n%s", part, out)
		}
	}
}

// The cards of a list are checked against those of the host.
func TestCardsOfTheHost(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	for _, tt := range []struct {
		cards     int
		env, list string
		said      string
	}{
		{2, "", "0-2", "error: --gpus 0-2: this host has no card 2; it has 0, 1"},
		{2, "1", "0", "error: --gpus 0: card 0 is not among those of CUDA_VISIBLE_DEVICES, 1"},
		{0, "", "all", "error: --gpus all: the graphics cards of this host are not known"},
	} {
		env := append(fakeCards(t, tt.cards), "CUDA_VISIBLE_DEVICES="+tt.env)
		worker, out := c.startAs(env, "worker", "--exec", "vllm serve m", "--gpus", tt.list)
		code := waitExit(t, worker, out, patience)
		if code != exit.CodeUsage || !strings.Contains(out.String(), tt.said) {
			t.Errorf("--gpus %s: exit code %d, said:\n%s", tt.list, code, out)
		}
	}
}
