package supervise

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// supervisor is a process that supervises a server. The pipe is open in it, in its guard, in
// the server and in the server's children: it ends when all are dead.
type supervisor struct {
	*exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
	alive  *os.File
}

func newSupervisor(t *testing.T, command string) *supervisor {
	t.Helper()

	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()

	t.Cleanup(func() { read.Close() })
	s := &supervisor{Cmd: exec.Command(os.Args[0]), alive: read}
	s.Dir = t.TempDir()
	s.Env = append(os.Environ(), supervisorVariable+"="+command)
	s.ExtraFiles = []*os.File{write, write} // the leader's descriptor 3 is another
	s.Stderr = &s.stderr
	if s.stdin, err = s.StdinPipe(); err != nil {
		t.Fatal(err)
	}

	stdout, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}

	s.stdout = bufio.NewReader(stdout)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}

	return s
}

func (s *supervisor) awaitReady(t *testing.T) {
	t.Helper()
	if line, err := s.stdout.ReadString('\n'); line != "ready\n" {
		s.Process.Kill()
		s.Wait()
		t.Fatalf("supervisor prints %q, %v; %s", line, err, &s.stderr)
	}
}

func (s *supervisor) awaitAllDead(t *testing.T) {
	t.Helper()
	s.alive.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, s.alive); err != nil {
		t.Errorf("a process outlives the supervisor: %v", err)
	}
}

const stubborn = `sh -c 'trap "" TERM INT HUP; sleep 1000 & (sleep 1000) & echo "the log survives"; touch up; wait'`

func TestKilledWithAllProcesses(t *testing.T) {
	t.Parallel()

	s := newSupervisor(t, stubborn)
	s.awaitReady(t)
	s.Process.Kill()
	s.Wait()
	s.awaitAllDead(t)
	if log, err := os.ReadFile(s.Dir + "/server.log"); err != nil ||
		!strings.HasSuffix(string(log), "the log survives\n") {
		t.Errorf("log %q, %v", log, err)
	}
}

// The kill comes at any moment of a start, which takes some milliseconds.
func TestKilledWhileItStarts(t *testing.T) {
	t.Parallel()

	for n := range 24 {
		t.Run(fmt.Sprintf("after %d ms", n), func(t *testing.T) {
			t.Parallel()
			s := newSupervisor(t, stubborn)
			time.AfterFunc(time.Duration(n)*time.Millisecond, func() { s.Process.Kill() })
			s.Wait()
			s.awaitAllDead(t)
		})
	}
}

// In a container, this process may inherit orphans, and must reap them. A dead process that is
// not reaped would look like one that cannot be killed.
func TestOrphansAreReaped(t *testing.T) {
	t.Parallel()

	s := newSupervisor(t, `sh -c '(trap "" TERM; touch up; exec sleep 1000) & trap "exit 0" TERM; wait'`)
	s.awaitReady(t)
	s.stdin.Close()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}

	if log := s.stderr.String(); strings.Contains(log, "still there") {
		t.Errorf("supervisor says:\n%s", log)
	}

	s.awaitAllDead(t)
}
