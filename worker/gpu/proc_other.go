//go:build !linux

package gpu

import "syscall"

// endWithUs does nothing: only Linux ends a process with the one that started it.
func endWithUs() *syscall.SysProcAttr { return nil }
