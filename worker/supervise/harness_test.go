package supervise

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

var quickTuning = tuning{
	poll: 2 * time.Millisecond, pollLater: 10 * time.Millisecond, freshTime: time.Minute,
	pauseMin: time.Millisecond, pauseMax: 4 * time.Millisecond, steadyTime: time.Hour,
	readyWait: 10 * time.Second, killWait: 10 * time.Second, maxLogBytes: 1 << 20, logPoll: 5 * time.Millisecond,
}

// fileExists returns a Config.Ready that waits for a file.
func fileExists(path string) func(context.Context) error {
	return func(context.Context) error {
		_, err := os.Stat(path)
		return err
	}
}

// supervisedScript is a folder with a server script that makes the file "up" when it is ready,
// and a supervisor of it.
type supervisedScript struct {
	*Process
	dir    string
	log    *syncBuffer // of the supervisor
	alive  *os.File    // ends when no process has the pipe "alive" open
	cancel context.CancelFunc
	done   chan error // the error of Run
}

// newSupervisedScript writes the script, which runs in its folder.
func newSupervisedScript(t *testing.T, body string) *supervisedScript {
	t.Helper()

	b := &supervisedScript{dir: t.TempDir(), log: &syncBuffer{}, done: make(chan error, 1)}
	if err := syscall.Mkfifo(b.path("alive"), 0o600); err != nil {
		t.Fatal(err)
	}

	var err error
	if b.alive, err = os.OpenFile(b.path("alive"), os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { b.alive.Close() })
	if err := os.WriteFile(b.path("server.sh"), []byte("cd \"$DIR\"\n"+body), 0o600); err != nil {
		t.Fatal(err)
	}

	b.Process, err = New(Config{
		Command: fmt.Sprintf("DIR='%s' sh '%s'", b.dir, b.path("server.sh")), LogFile: b.path("server.log"),
		Ready: fileExists(b.path("up")), Grace: time.Minute, Log: zerolog.New(b.log),
	})
	if err != nil {
		t.Fatal(err)
	}

	b.tuning = quickTuning

	return b
}

func (b *supervisedScript) path(name string) string { return filepath.Join(b.dir, name) }

func (b *supervisedScript) start(t *testing.T) {
	t.Helper()

	ctx, cancel := context.WithCancel(t.Context())
	b.cancel = cancel

	go func() { b.done <- b.Run(ctx) }()
	t.Cleanup(func() {
		b.cancel()
		<-b.done
	})
}

// awaitResult waits for Run to return.
func (b *supervisedScript) awaitResult(t *testing.T) error {
	t.Helper()

	select {
	case err := <-b.done:
		b.done <- err
		return err
	case <-time.After(time.Minute):
		t.Fatalf("Run does not return; status %+v", b.Status())
		return nil
	}
}

// awaitPhase waits for a phase of a start.
func (b *supervisedScript) awaitPhase(t *testing.T, phase Phase, starts int) Status {
	t.Helper()

	timeout := time.After(time.Minute)
	for {
		changed := b.Changed()
		status := b.Status()
		if status.Phase == phase && status.Starts == starts {
			return status
		}

		select {
		case <-changed:
		case err := <-b.done:
			b.done <- err
			t.Fatalf("Run returned %v; waited for %s of start %d", err, phase, starts)
		case <-timeout:
			t.Fatalf("status %+v; waited for %s of start %d", status, phase, starts)
		}
	}
}

// awaitAllDead waits until no process has the pipe "alive" open.
func (b *supervisedScript) awaitAllDead(t *testing.T) {
	t.Helper()
	b.alive.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, b.alive); err != nil {
		t.Errorf("a process of the server is alive: %v", err)
	}
}

func (b *supervisedScript) readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(b.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// killProcess kills the process whose id is in a file.
func (b *supervisedScript) killProcess(t *testing.T, name string) {
	t.Helper()

	pid, err := strconv.Atoi(strings.TrimSpace(b.readFile(t, name)))
	if err != nil {
		t.Fatal(err)
	}

	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
