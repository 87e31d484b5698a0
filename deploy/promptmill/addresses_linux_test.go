package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/worker/sim"
)

// hosts runs promptmill where /etc/hosts gives a name some addresses. The test is
// skipped where the file cannot be replaced.
func (c command) hosts(file string, args ...string) (string, int) {
	c.t.Helper()

	program, err := exec.LookPath("promptmill")
	must(c.t, err)
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()

	script := `mount --bind "$0" /etc/hosts || exit 77; exec "$@"`
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"-m", "sh", "-c", script, file, program}, args...)...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "PROMPTMILL_STATE="+c.state)
	out, _ := cmd.CombinedOutput()
	text, code := string(out), cmd.ProcessState.ExitCode()
	if code == 77 || strings.HasPrefix(text, "unshare:") {
		c.t.Skip("SKIPPED: a mount namespace is needed, and cannot be had: ", text)
	}

	return text, code
}

// Each address of a name is a server: with its share of the work, and a worker of its own.
func TestServersOfName(t *testing.T) {
	t.Parallel()

	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("SKIPPED: unshare is needed")
	}

	c := newCommand(t)
	hosts := filepath.Join(c.dir, "hosts")
	must(t, os.WriteFile(hosts, []byte("127.0.0.1 localhost\n127.0.0.2 llm\n127.0.0.3 llm\n"), 0o644))
	cfg := sim.Config{Models: []string{"sim"}, Slots: 8, TTFT: 20 * time.Millisecond, Tokens: 10}
	servers := []*sim.Server{sim.New(cfg), sim.New(cfg)}
	port := ""
	for i, s := range servers {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:%s", 2+i, port))
		if err != nil && port == "" {
			t.Skip("SKIPPED: this system has no 127.0.0.2: ", err)
		}

		must(t, err)
		_, port, _ = net.SplitHostPort(listener.Addr().String())
		server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: s}}
		server.Start()
		t.Cleanup(server.Close)
	}

	url := "http://llm:" + port
	text, code := c.hosts(hosts, "run", c.input("in.jsonl", 400), "-o", "out.jsonl.zst", "--url", url,
		"--progress", "json", "--json")
	if code != 0 {
		t.Fatalf("exit code %d:\n%s", code, text)
	}

	for i, s := range servers {
		if s.Succeeded() < 50 {
			t.Errorf("%d of 400 requests were answered at address %d", s.Succeeded(), i)
		}
		if name := fmt.Sprintf(`%s (127.0.0.%d)`, url, 2+i); !strings.Contains(text, name) {
			t.Errorf("%s is not named:\n%s", name, text)
		}
	}

	before := servers[1].Succeeded()
	text, code = c.hosts(hosts, "run", "in.jsonl", "-o", "one.jsonl.zst", "--url", url, "--each-address=false")
	if code != 0 || strings.Contains(text, "127.0.0.2") || servers[1].Succeeded() != before {
		t.Errorf("as one server: exit code %d:\n%s", code, text)
	}
}
