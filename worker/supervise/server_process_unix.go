//go:build unix

package supervise

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// No process of the server may outlive this one, however it dies: a model server without a
// supervisor keeps the GPU's memory for ever. The kernel can kill the leader together with this
// process (on Linux), but not the leader's children, of which vLLM has one for each GPU. So a
// guard, a separate process, waits for the end of a pipe that only this process holds open,
// and then kills the server's group.
//
// The guard is started first, and the leader reports the group to it before it becomes the
// server: the group is its own process id, written into the same pipe. From the fork on the
// leader holds the pipe open until it has written. So there is no moment at which the death of
// this process leaves a server that the guard does not know. The guard is not in the server's
// group, so the group is gone when the server is, and signals of a terminal or a service
// manager do not end the guard before this process.
//
// A process that makes itself a group of its own, as the shards of text-generation-launcher do, still has the mark of
// its start in its environment. On Linux, such strays are found by it, and killed when the group is gone.
const (
	guardScript = `trap "" TERM INT HUP; read -r group || exit 0; read -r _; kill -s KILL -- "-$group"
for try in 1 2 3; do
	for found in $(grep -lsF -e "$1" /proc/[0-9]*/environ); do
		found=${found#/proc/}
		kill -s KILL "${found%/environ}"
	done
done`
	leaderScript = `echo $$ >&3; exec 3>&-; exec env ` // env, so that NAME=VALUE may come first
)

// checkSystem returns no error: this system has process groups.
func checkSystem() error { return nil }

// serverProcess is one start of the model server.
type serverProcess struct {
	group  int    // its process group: the leader's process id
	mark   string // in the environment of its processes
	leader *exec.Cmd
	guard  *exec.Cmd
	pipe   *os.File
	exited chan struct{} // closed when the leader is reaped
}

// startServer starts the guard and the server, which writes to out by its own descriptor: so
// its log costs this process nothing, and outlives it.
func startServer(command string, out *os.File) (*serverProcess, error) {
	read, write, err := os.Pipe() // both ends are closed in other programs that this process starts
	if err != nil {
		return nil, err
	}
	defer read.Close()

	s := &serverProcess{
		mark:   rand.Text(),
		pipe:   write,
		exited: make(chan struct{}),
	}
	s.guard = exec.Command("/bin/sh", "-c", guardScript, "guard", s.mark)
	s.guard.Stdin = read
	s.guard.Env = serverEnvironment("")
	s.guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.guard.Start(); err != nil {
		write.Close()
		return nil, fmt.Errorf("start the guard: %w", err)
	}

	s.leader = exec.Command("/bin/sh", "-c", leaderScript+command)
	s.leader.Stdout, s.leader.Stderr = out, out
	s.leader.Env = markEnvironment(serverEnvironment(command), s.mark)
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

// exitStatus returns how the leader ended, once it has.
func (s *serverProcess) exitStatus() string { return s.leader.ProcessState.String() }

// terminate ends the whole process group and waits until it is gone. With a grace, the group
// has that time to end by itself. It returns false if a process other than the leader is still
// there killWait after it was killed: one that hangs in the GPU's driver, or a dead one that
// process 1 does not reap.
func (s *serverProcess) terminate(grace, killWait time.Duration) bool {
	gone := false
	if grace > 0 {
		s.signalGroup(syscall.SIGTERM)
		gone = s.awaitGone(grace)
	}

	if !gone {
		s.signalGroup(syscall.SIGKILL)
		gone = s.awaitGone(killWait)
	}

	<-s.exited // however long it takes: until then it may hold the GPU and the port
	gone = killStrays(s.mark, killWait) && gone
	s.dismissGuard()

	return gone
}

// signalGroup signals the group, if it is still there.
func (s *serverProcess) signalGroup(sig syscall.Signal) { syscall.Kill(-s.group, sig) }

// awaitGone waits until the group is gone, for a time. The kernel reports only the end of the
// leader; the others have to be polled.
func (s *serverProcess) awaitGone(within time.Duration) bool {
	timeout := time.NewTimer(within)
	defer timeout.Stop()

	select {
	case <-s.exited:
	case <-timeout.C:
		return false
	}

	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		// As process 1 of a container, this process inherits the leader's children.
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

// dismissGuard ends the guard, and only then closes the pipe, so that the guard kills nothing.
func (s *serverProcess) dismissGuard() {
	s.guard.Process.Kill()
	s.guard.Wait()
	s.pipe.Close()
}
