package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/promptmill/promptmill/worker/sim"
)

// The test binary is also promptmill itself, so that tests can start real processes
// and kill them.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"promptmill": main})
}

// command is a promptmill process to be, with its own state folder.
type command struct {
	t     *testing.T
	dir   string // working directory; output and state lie in it
	state string
	env   []string // further variables
}

func newCommand(t *testing.T) command {
	t.Helper()
	dir := t.TempDir()
	return command{t: t, dir: dir, state: filepath.Join(dir, "state")}
}

// environ is the environment of the process. It has the state and the contexts in the command's folder.
func (c command) environ() []string {
	return append(os.Environ(), "PROMPTMILL_STATE="+c.state, "XDG_CONFIG_HOME="+filepath.Join(c.dir, "config"))
}

// start starts the process.
func (c command) start(args ...string) (*exec.Cmd, *lockedBuffer) {
	c.t.Helper()

	cmd, out := c.prepare(args...), &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}

	return cmd, out
}

// run runs the process to its end and returns its output and exit code.
func (c command) run(args ...string) (string, int) {
	c.t.Helper()
	cmd, out := c.start(args...)
	code := waitExit(c.t, cmd, out, patience)
	return out.String(), code
}

// left is all that lies in the command's folder.
func (c command) left() (names []string) {
	c.t.Helper()

	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != c.dir {
			names = append(names, strings.TrimPrefix(path, c.dir+"/"))
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}

	return names
}

// expect runs the command and fails the test unless its exit code and output match.
func (c command) expect(code int, said string, args ...string) {
	c.t.Helper()
	text, got := c.run(args...)
	if got != code || !strings.Contains(text, said) {
		c.t.Fatalf("%s: exit code %d, want %d and %q:\n%s", strings.Join(args, " "), got, code, said, text)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// waitExit waits for a process and returns its exit code.
func waitExit(t *testing.T, cmd *exec.Cmd, out *lockedBuffer, within time.Duration) int {
	t.Helper()

	timer := time.AfterFunc(within, func() { cmd.Process.Signal(syscall.SIGQUIT) })
	defer timer.Stop()

	cmd.Wait()
	if strings.Contains(out.String(), "SIGQUIT") {
		t.Fatalf("not done within %s:\n%s", within, out)
	}

	return cmd.ProcessState.ExitCode()
}

// lockedBuffer is a buffer that may be read while a process writes to it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// input writes a file of n requests, the i-th with a prompt of its own.
func (c command) input(name string, n int) string {
	c.t.Helper()

	file, err := os.Create(filepath.Join(c.dir, name))
	if err != nil {
		c.t.Fatal(err)
	}

	w := bufio.NewWriter(file)
	for i := range n {
		fmt.Fprintf(w, "{\"custom_id\":\"q-%d\",\"messages\":[{\"role\":\"user\",\"content\":\"question %d\"}]}\n",
			i, i)
	}

	if err := w.Flush(); err != nil {
		c.t.Fatal(err)
	}

	if err := file.Close(); err != nil {
		c.t.Fatal(err)
	}

	return name
}

// model is a simulated model server that outlives the promptmill processes of a test
// and counts its answers.
type model struct {
	url  string
	sim  *sim.Server
	mu   sync.Mutex
	most int // requests at once
	now  int
}

func newModel(t *testing.T, cfg sim.Config) *model {
	t.Helper()

	cfg.Models = []string{"sim"} // the model of the requests, which name none
	m := &model{sim: sim.New(cfg)}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.count(1)
		defer m.count(-1)
		m.sim.ServeHTTP(w, r)
	}))

	t.Cleanup(s.Close)
	m.url = s.URL

	return m
}

func (m *model) count(d int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now += d
	m.most = max(m.most, m.now)
}

// together runs tests that wait most of the time, all at once, and not only as many as
// there are processors.
func together(t *testing.T, tests map[string]func(*testing.T)) {
	t.Helper()
	var all sync.WaitGroup
	for name, test := range tests {
		all.Go(func() { t.Run(name, test) })
	}
	all.Wait()
}

// patience bounds waits for events that take seconds on an idle machine.
const patience = 3 * time.Minute

// poll waits until ok.
func poll(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, within)
		}
	}
}
