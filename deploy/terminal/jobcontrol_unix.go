//go:build unix

package terminal

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// FollowJobControl keeps the live block apart from the output of the shell, until ctx ends: once a
// stop is over, the block is drawn below that output.
func (s *Screen) FollowJobControl(ctx context.Context) {
	if s.mode != ModeBar || signal.Ignored(syscall.SIGTSTP) {
		return
	}

	stops, continued := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stops, syscall.SIGTSTP)
	defer signal.Stop(stops)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)

	for {
		select {
		case <-stops:
			s.suspend(continued)
		case <-continued: // after a stop that no process can catch
			s.mu.Lock()
			s.block = nil
			s.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// suspend stops the process as the terminal has asked for, and returns when it is continued.
// Nothing is written meanwhile, not even at the last moment before the stop.
func (s *Screen) suspend(continued <-chan os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()

	// No shell could continue the process group of the session's leader. The system ignores SIGTSTP
	// for such a group as well.
	session, err := unix.Getsid(0)
	if err != nil || session == unix.Getpgrp() {
		return
	}

	s.block = nil
	select {
	case <-continued: // an earlier one
	default:
	}

	if syscall.Kill(os.Getpid(), syscall.SIGSTOP) == nil {
		<-continued
	}
}

// inBackground reports whether the process is a background job of the terminal. Only the foreground
// may redraw the screen.
func inBackground(file *os.File) bool {
	group, err := unix.IoctlGetInt(int(file.Fd()), unix.TIOCGPGRP)
	return err == nil && group != unix.Getpgrp()
}
