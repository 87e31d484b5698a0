package worker

import "syscall"

// endWithTest has a process end with the test, however that ends.
func endWithTest() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
