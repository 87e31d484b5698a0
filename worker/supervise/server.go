package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// No process of the server may outlive this one, however it dies: a model server that
// nobody knows of keeps the GPU's memory for ever. The kernel can kill the leader with
// us (on Linux), but not the leader's children, of which vLLM has one for each GPU. So
// a guard, a process of its own, waits for the end of a pipe that only we hold open,
// and then kills the server's group.
//
// The guard is started first, and the leader tells it the group before it becomes the
// server: the group is its own process id, written into the same pipe. From the fork on
// the leader holds the pipe open until it has written. So there is no moment at which
// our death leaves a server that the guard does not know. The guard is not in the
// server's group, so that the group is gone when the server is, and signals that a
// terminal or a service manager sends do not end it before us. Only a process that makes
// itself a group of its own gets away; no model server known to us starts such.
const (
	guardScript  = `trap "" TERM INT HUP; read -r group || exit 0; read -r _; kill -s KILL -- "-$group"`
	leaderScript = `echo $$ >&3; exec 3>&-; exec env ` // env, so that NAME=VALUE may come first
)

// server is one life of the model server.
type server struct {
	group  int // its process group: the leader's process id
	leader *exec.Cmd
	guard  *exec.Cmd
	pipe   *os.File
	exited chan struct{} // closed when the leader is reaped
}

// startServer starts the guard and the server, which writes to out by its own descriptor: so
// what it logs costs us nothing, and is kept though we die.
func startServer(command string, out *os.File) (*server, error) {
	read, write, err := os.Pipe() // both ends are closed in other programs that we start
	if err != nil {
		return nil, err
	}
	defer read.Close()

	s := &server{pipe: write, exited: make(chan struct{})}
	s.guard = exec.Command("/bin/sh", "-c", guardScript)
	s.guard.Stdin = read
	s.guard.Env = serverEnvironment("")
	s.guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.guard.Start(); err != nil {
		write.Close()
		return nil, fmt.Errorf("start the guard: %w", err)
	}

	s.leader = exec.Command("/bin/sh", "-c", leaderScript+command)
	s.leader.Stdout, s.leader.Stderr = out, out
	s.leader.Env = serverEnvironment(command)
	s.leader.ExtraFiles = []*os.File{write}
	s.leader.SysProcAttr = leaderAttributes()

	started := make(chan error)
	go func() {
		// "Parent death" is the end of the thread that forked.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()

		err := s.leader.Start()
		started <- err
		if err == nil {
			s.leader.Wait()
			close(s.exited)
		}
	}()

	if err := <-started; err != nil {
		s.dismissGuard()
		return nil, err
	}

	s.group = s.leader.Process.Pid

	return s, nil
}

// exitStatus says how the leader ended, once it has.
func (s *server) exitStatus() string { return s.leader.ProcessState.String() }

// terminate ends the whole process group and waits until it is gone. With a grace, the group
// has that time to end by itself. It returns false when a process that is not the
// leader is still there killWait after it was killed: one that hangs in the GPU's
// driver, or a dead one that process 1 does not reap.
func (s *server) terminate(grace, killWait time.Duration) bool {
	gone := false
	if grace > 0 {
		s.signalGroup(syscall.SIGTERM)
		gone = s.awaitGone(grace)
	}

	if !gone {
		s.signalGroup(syscall.SIGKILL)
		gone = s.awaitGone(killWait)
	}

	<-s.exited // however long it takes: until then it may have the GPU and the port
	s.dismissGuard()

	return gone
}

// signalGroup signals the group, if it is still there.
func (s *server) signalGroup(sig syscall.Signal) { syscall.Kill(-s.group, sig) }

// awaitGone waits until the group is gone, for a time. Only the end of the leader is
// told by the kernel; the others have to be polled for.
func (s *server) awaitGone(within time.Duration) bool {
	timeout := time.NewTimer(within)
	defer timeout.Stop()

	select {
	case <-s.exited:
	case <-timeout.C:
		return false
	}

	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		// As process 1 of a container, we inherit the leader's children.
		syscall.Wait4(-s.group, nil, syscall.WNOHANG, nil)
		if errors.Is(syscall.Kill(-s.group, 0), syscall.ESRCH) {
			return true
		}

		select {
		case <-time.After(pause):
		case <-timeout.C:
			return false
		}
	}
}

// dismissGuard ends the guard, and only then closes the pipe, so that it kills nobody.
func (s *server) dismissGuard() {
	s.guard.Process.Kill()
	s.guard.Wait()
	s.pipe.Close()
}
