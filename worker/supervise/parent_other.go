//go:build unix && !linux

package supervise

import "syscall"

// leaderAttributes gives the leader its own group; the guard alone kills it when this
// process dies.
func leaderAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
