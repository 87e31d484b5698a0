//go:build unix

package usershell

import (
	"os/exec"
	"syscall"
)

// checkSystem returns no error: this system has a shell and process groups.
func checkSystem() error { return nil }

// useGroup gives a command that is not started yet a process group of its own.
func useGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func terminateGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }

func killGroup(cmd *exec.Cmd) { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
