//go:build !linux

package supervise

import "syscall"

// leaderAttributes gives the leader a group of its own; the guard alone kills it when this
// process dies.
func leaderAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
