//go:build !linux

package worker

import "syscall"

// endWithTest has a process end with the test, where the system can do that.
func endWithTest() *syscall.SysProcAttr { return nil }
