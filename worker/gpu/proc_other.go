//go:build !linux

package gpu

import "syscall"

// dieWithParent does nothing: only Linux ends a process with the one that started it.
func dieWithParent() *syscall.SysProcAttr { return nil }
