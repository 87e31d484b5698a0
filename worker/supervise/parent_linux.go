package supervise

import "syscall"

// leaderAttributes gives the leader a group of its own, and has the kernel kill it
// when we die: sooner than the guard can.
func leaderAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
