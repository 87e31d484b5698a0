package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/worker/sim"
)

// clientTime bounds a program of another's client.
const clientTime = 2 * time.Minute

// batchAPI is a serve with the batch API, and workers that simulate two models: "fast" answers at
// once, and "slow" takes its time.
type batchAPI struct {
	command

	// address is HOST:PORT of the API. It stays the same when the server starts again.
	address string
	serving *exec.Cmd
	said    *lockedBuffer
	args    []string
}

// startBatchAPI starts a server with some more flags, and the workers.
func startBatchAPI(t *testing.T, args ...string) *batchAPI {
	t.Helper()

	a := &batchAPI{
		command: newCommand(t),
		address: lastingAddress(t),
	}

	a.args = append([]string{
		"serve", "--api", a.address, "--dir", ".", "--listen", lastingAddress(t), "--advertise", "127.0.0.1",
		"--flush", "50ms",
	}, args...)

	a.startServing(t)

	for model, cfg := range map[string]sim.Config{
		"fast": {TTFT: time.Millisecond, Slots: 64},
		"slow": {TTFT: 100 * time.Millisecond, Slots: 16},
	} {
		cfg.Models = []string{model}
		server := httptest.NewServer(sim.New(cfg))
		t.Cleanup(server.Close)
		a.start("worker", "--url", server.URL, "--join", strings.TrimSpace(a.must("join")))
	}

	a.workers(2)

	return a
}

// startServing starts the server, and waits until clients can use it.
func (a *batchAPI) startServing(t *testing.T) {
	t.Helper()

	a.serving, a.said = a.start(a.args...)
	for deadline := time.Now().Add(pollTime); ; {
		res, err := http.Get("http://" + a.address + "/readyz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}

		if time.Now().After(deadline) {
			a.serving.Process.Signal(syscall.SIGQUIT) // it prints where it stands
			a.serving.Wait()
			t.Fatalf("the batch API is not ready within %s:\n%s", pollTime, a.said)
		}

		time.Sleep(10 * time.Millisecond)
	}
}

// kill kills the server at once.
func (a *batchAPI) kill(t *testing.T) {
	t.Helper()
	must(t, a.serving.Process.Kill())
	a.serving.Wait()
}

// lastingAddress returns an address whose port no connection of others takes while there is no
// listener: it is below the ports that systems choose from.
func lastingAddress(t *testing.T) string {
	t.Helper()

	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000)))
		if err == nil {
			l.Close()
			return l.Addr().String()
		}
	}

	t.Fatal("no port is free")

	return ""
}

// url is the base URL for clients.
func (a *batchAPI) url() string { return "http://" + a.address + "/v1" }

// environment is the environment of clients of OpenAI's API.
func (a *batchAPI) environment(more ...string) []string {
	return append(append(os.Environ(), "OPENAI_BASE_URL="+a.url(), "OPENAI_API_KEY=unused", "NO_PROXY=127.0.0.1"),
		more...)
}

// prepareClient makes a process of another's client.
func (a *batchAPI) prepareClient(program string, args ...string) (*exec.Cmd, *lockedBuffer) {
	out := &lockedBuffer{}
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = a.dir, a.environment(), out, out
	cmd.SysProcAttr = endWithTest()

	return cmd, out
}

// runClient runs a client to its end, which has to be good.
func (a *batchAPI) runClient(t *testing.T, cmd *exec.Cmd, out *lockedBuffer) {
	t.Helper()

	must(t, cmd.Start())
	if code := waitExit(t, cmd, out, clientTime); code != 0 {
		t.Errorf("%s: exit code %d:\n%s", strings.Join(cmd.Args, " "), code, out)
	}
}

// clientProgram is the path of a program of testdata/clients.
func clientProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", "clients", name))
	must(t, err)
	return path
}

// chatLines returns a batch file of chats with a model.
func chatLines(count int, model string) string {
	var b bytes.Buffer
	for i := range count {
		fmt.Fprintf(&b, `{"custom_id":"request-%d","method":"POST","url":"/v1/chat/completions","body":{"model":%q,`+
			`"messages":[{"role":"user","content":"hello"}]}}`+"\n", i, model)
	}
	return b.String()
}
