package supervise

import "syscall"

// leaderAttributes gives the leader its own group, and makes the kernel kill it when this
// process dies: sooner than the guard can.
func leaderAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
